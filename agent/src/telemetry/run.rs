//! How a group's resources run on one node, as its executor reports it.

use serde::{Deserialize, Serialize};

use crate::cluster::ids::Nanos;

/// The resources of a group on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRun {
    /// Why the group can be neither stopped nor given up, if so: which resource, what failed, and what to do.
    pub blocked: Option<String>,
    /// Its resources, in the order in which they start.
    pub resources: Vec<ResourceState>,
}

/// One resource on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceState {
    /// Its name in its group.
    pub name: String,
    /// The word of its kind: "script", "vip", "haproxy", …
    pub kind: String,
    /// What it does.
    pub state: RunState,
    /// Since when, on this node's CLOCK_BOOTTIME, in nanoseconds; 0 where it is not known.
    pub since: Nanos,
    /// Failures that are not forgotten.
    pub failures: u32,
    /// What failed last, if that is not forgotten.
    pub last_error: Option<String>,
}

/// What a resource does on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Nothing of it runs.
    #[default]
    Stopped,
    /// Its start is under way, or waits for what it requires.
    Starting,
    /// It runs.
    Running,
    /// Its stop is under way.
    Stopping,
    /// It failed, and waits to be started again, or for its group to move.
    Failed,
    /// It cannot be stopped.
    Blocked,
    /// An operator took it out of the executor's hands.
    Unmanaged,
}

impl RunState {
    /// The name in metrics and JSON, and for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
            Self::Blocked => "blocked",
            Self::Unmanaged => "unmanaged",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_the_names_in_json() {
        for state in [
            RunState::Stopped,
            RunState::Starting,
            RunState::Running,
            RunState::Stopping,
            RunState::Failed,
            RunState::Blocked,
            RunState::Unmanaged,
        ] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }
}
