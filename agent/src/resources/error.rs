//! Why an operation on a resource failed: the object, the cause with its errno, and the next step.

use std::{fmt, time::Duration};

use super::Context;
use crate::netlink::NetlinkError;

/// An operation of [`super::Resource`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// `probe`.
    Probe,
    /// `start`.
    Start,
    /// `stop`.
    Stop,
    /// `monitor`.
    Monitor,
    /// `promote`.
    Promote,
    /// `demote`.
    Demote,
    /// `announce`.
    Announce,
    /// `attend`.
    Attend,
    /// `readiness`.
    Readiness,
    /// `receive`.
    Receive,
    /// `export`.
    Export,
    /// `import`.
    Import,
    /// `drain`.
    Drain,
    /// `drained`.
    Drained,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Probe => "probe",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Monitor => "monitor",
            Self::Promote => "promote",
            Self::Demote => "demote",
            Self::Announce => "announce",
            Self::Attend => "attend",
            Self::Readiness => "readiness",
            Self::Receive => "receive",
            Self::Export => "export",
            Self::Import => "import",
            Self::Drain => "drain",
            Self::Drained => "drained",
        })
    }
}

/// The error of an operation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// The kernel refused something, or several things.
    #[error("{operation} of {resource}: {}", join(failures))]
    Network {
        /// The resource.
        resource: String,
        /// The operation.
        operation: Operation,
        /// Each object with its errno and remedy; never empty.
        failures: Vec<NetlinkError>,
    },
    /// Anything else failed.
    #[error("{operation} of {resource}: {object}: {cause}; {remedy}")]
    Failed {
        /// The resource.
        resource: String,
        /// The operation.
        operation: Operation,
        /// The object: a path, a unit, a process.
        object: String,
        /// What happened.
        cause: String,
        /// The errno, if the kernel gave one.
        errno: Option<i32>,
        /// What to do.
        remedy: String,
    },
    /// The time limit ran out.
    #[error("{operation} of {resource} took longer than {limit:?}; see what it waits for, or raise its timeout")]
    TimedOut {
        /// The resource.
        resource: String,
        /// The operation.
        operation: Operation,
        /// The limit.
        limit: Duration,
    },
    /// What the other node exported cannot be used here.
    #[error("{operation} of {resource}: what the other node handed over cannot be used: {cause}; {remedy}")]
    Foreign {
        /// The resource.
        resource: String,
        /// The operation.
        operation: Operation,
        /// What is wrong with it.
        cause: String,
        /// What to do.
        remedy: String,
    },
    /// The kind has no roles.
    #[error(
        "{operation} of {resource} in group {group}: this kind of resource has no roles; give it no role in the configuration"
    )]
    NoRoles {
        /// The resource.
        resource: String,
        /// The operation.
        operation: Operation,
        /// The group.
        group: String,
    },
}

impl ResourceError {
    pub(super) fn no_roles(resource: &str, operation: Operation, context: &Context) -> Self {
        Self::NoRoles { resource: resource.to_owned(), operation, group: context.group.to_string() }
    }
}

/// How many failures a text names one by one: a thousand addresses may fail for one reason.
const NAMED_MAX: usize = 5;

fn join(failures: &[NetlinkError]) -> String {
    let mut text = failures.iter().take(NAMED_MAX).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if failures.len() > NAMED_MAX {
        text.push_str(&format!("; and {} more", failures.len() - NAMED_MAX));
    }
    text
}
