//! What operators ask of the nodes that run a group, and that is no matter of the log.

use serde::{Deserialize, Serialize};

use crate::cluster::ids::GroupId;

/// A request to the nodes of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mend {
    /// Stop a resource and what requires it, and start them again: for the owner.
    Restart {
        /// The group.
        group: GroupId,
        /// The resource.
        resource: String,
    },
    /// Forget what failed, try again at once what could not be stopped, and refuse the group no longer: for every node of the group.
    Cleanup {
        /// The group.
        group: GroupId,
        /// The resource whose failures are forgotten; `None`: all of them.
        resource: Option<String>,
    },
}

impl Mend {
    /// The group that it is about.
    pub const fn group(&self) -> &GroupId {
        match self {
            Self::Restart { group, .. } | Self::Cleanup { group, .. } => group,
        }
    }
}
