//! Makes the resource that the configuration describes.

use super::{Common, Notifier, Resource, script};
use crate::config::Kind;

/// The resource of a kind. Nothing is started, and nothing is looked at.
pub fn build(common: Common, kind: &Kind, notifier: &Notifier) -> Box<dyn Resource> {
    let _ = notifier;
    match kind {
        Kind::Script(spec) => Box::new(script::Script::new(&common, spec.clone())),
    }
}
