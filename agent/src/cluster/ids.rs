//! The names of things in the cluster: voters, groups, incarnations, epochs, instants.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// A voter's number, 1 to [`VoterId::MAX`]; the configuration gives it and it never changes hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VoterId(pub u8);

impl VoterId {
    /// The largest voter number; the kernel's peer table has this many rows (row 0 is unused).
    pub const MAX: u8 = 8;

    /// The bit of this voter in a mask of voters.
    pub const fn bit(self) -> u16 {
        1 << self.0
    }
}

impl fmt::Display for VoterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A group's name. Names rather than positions, so that an edited configuration never re-labels a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(pub Arc<str>);

impl GroupId {
    /// A group by its name.
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A number that grows at each start of a machine's agent; 0 means "never started".
pub type Incarnation = u64;

/// A number that grows by one at every change of a group's owner; 0 means "never owned".
pub type Epoch = u64;

/// The index of a log entry; 0 means "none" (raft's first entry has a larger one).
pub type Index = u64;

/// An instant or a span on this machine's CLOCK_BOOTTIME, in nanoseconds. Never compared between machines.
pub type Nanos = u64;

/// One millisecond in [`Nanos`].
pub const MILLISECOND: Nanos = 1_000_000;

/// What a machine is in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// May own groups, and votes.
    Node,
    /// Only votes.
    Arbiter,
}
