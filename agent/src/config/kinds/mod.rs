//! The kinds of `[[group.resource]]`, one file a kind: its own keys, read and checked, and the specification that comes of them.

mod check;
mod filesystem;
mod ocf;
#[cfg(test)]
mod pages;
mod process;
mod script;
mod systemd;
#[cfg(test)]
mod tests;

use serde::Serialize;

use super::{
    diagnostic::{Mistakes, did_you_mean},
    reader::{At, Table},
};
use crate::cluster::ids::{MILLISECOND, Nanos};

pub use check::{Check, Http, Probe, Scope};
pub use filesystem::{Busy, Filesystem, Fsck};
pub use ocf::{GivenTimes, OCF_ROOT, Ocf, OcfRole};
pub use process::{Process, Ready};
pub use script::Script;
pub use systemd::Systemd;

const SECOND: Nanos = 1_000 * MILLISECOND;

/// What a resource is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A program that is called to start, stop and look.
    Script(Script),
    /// A program that Baton supervises.
    Process(Process),
    /// A unit of systemd.
    Systemd(Systemd),
    /// Something that must hold.
    Check(Check),
    /// A filesystem that is mounted.
    Filesystem(Filesystem),
    /// What an OCF resource agent runs.
    Ocf(Ocf),
}

/// The times of a kind, where the configuration does not say otherwise; nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// For a start.
    pub start: Nanos,
    /// For a stop.
    pub stop: Nanos,
    /// For a look at it.
    pub monitor: Nanos,
    /// Between two looks; 0: it reports by itself, and is not looked at regularly.
    pub interval: Nanos,
}

/// What most kinds have.
const USUAL: Times = Times { start: 60 * SECOND, stop: 60 * SECOND, monitor: 20 * SECOND, interval: 10 * SECOND };

type Read = fn(&mut Table<'_, '_>, &mut Mistakes<'_>) -> Option<Kind>;

/// The word of each kind in the file, and who reads its keys.
const KINDS: [(&str, Read); 6] = [
    ("script", script::read),
    ("process", process::read),
    ("systemd", systemd::read),
    ("check", check::read),
    ("filesystem", filesystem::read),
    ("ocf", ocf::read),
];

impl Kind {
    /// Its word in the file.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Filesystem(_) => "filesystem",
            Self::Ocf(_) => "ocf",
            Self::Script(_) => "script",
            Self::Process(_) => "process",
            Self::Systemd(_) => "systemd",
            Self::Check(_) => "check",
        }
    }

    /// The block device that it mounts, if it does: a filesystem that only one node may have at a time.
    pub fn block_device(&self) -> Option<&str> {
        match self {
            Self::Filesystem(fs) if !fs.is_network() => Some(&fs.device),
            Self::Filesystem(_)
            | Self::Ocf(_)
            | Self::Script(_)
            | Self::Process(_)
            | Self::Systemd(_)
            | Self::Check(_) => None,
        }
    }

    /// Its times, unless the configuration sets others.
    pub fn times(&self) -> Times {
        match self {
            Self::Filesystem(_) | Self::Ocf(_) | Self::Script(_) | Self::Process(_) | Self::Systemd(_) => USUAL,
            Self::Check(check) => check.times(),
        }
    }
}

/// Reads the keys of the kind that the table names. `None` after a mistake that leaves no resource.
pub(super) fn read(kind: &At<String>, t: &mut Table<'_, '_>, m: &mut Mistakes<'_>) -> Option<Kind> {
    let words = || KINDS.iter().map(|(word, _)| *word);
    let Some((_, read)) = KINDS.iter().find(|(word, _)| *word == kind.value) else {
        let hint = did_you_mean(&kind.value, words());
        let known = words().collect::<Vec<_>>().join(", ");
        m.error(
            &kind.span,
            format!("there is no kind of resource \"{}\"{hint}", kind.value),
            format!("the kinds are: {known}"),
        );
        t.ask_all();
        return None;
    };
    read(t, m)
}
