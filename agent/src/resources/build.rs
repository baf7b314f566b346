//! Makes the resource that the configuration describes.

use super::{Common, Notifier, Resource, check, filesystem, ocf, process, script, systemd};
use crate::config::Kind;

/// The resource of a kind. Nothing is started, and nothing is looked at.
pub fn build(common: Common, kind: &Kind, notifier: &Notifier) -> Box<dyn Resource> {
    match kind {
        Kind::Script(spec) => Box::new(script::Script::new(&common, spec.clone())),
        Kind::Process(spec) => Box::new(process::Process::new(&common, spec.clone(), notifier)),
        Kind::Systemd(spec) => Box::new(systemd::Systemd::new(&common, spec.clone(), notifier)),
        Kind::Check(spec) => Box::new(check::Check::new(&common, spec.clone(), notifier)),
        Kind::Filesystem(spec) => Box::new(filesystem::Filesystem::new(&common, spec)),
        Kind::Ocf(spec) => Box::new(ocf::Ocf::new(&common, spec)),
    }
}
