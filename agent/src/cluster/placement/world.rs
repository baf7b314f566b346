//! What a plan is made from: nodes with their room, groups with their places, scores and constraints. Plain data, built by
//! the leader from what it sees, by `baton plan` from a status, and by the golden tests from files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Unfit;
use crate::cluster::ids::{GroupId, VoterId};

/// An amount of processor and memory: what a group needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Amount {
    /// Processors, in thousandths.
    pub cpu: u64,
    /// Memory, in bytes.
    pub memory: u64,
}

impl Amount {
    /// Nothing at all.
    pub const ZERO: Self = Self { cpu: 0, memory: 0 };

    /// Both sums; too much stays too much.
    pub fn plus(self, other: Self) -> Self {
        Self { cpu: self.cpu.saturating_add(other.cpu), memory: self.memory.saturating_add(other.memory) }
    }

    /// Both differences, not below nothing.
    pub fn minus(self, other: Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(other.cpu), memory: self.memory.saturating_sub(other.memory) }
    }
}

/// What a node offers to groups, overcommitment included; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Processors, in thousandths.
    pub cpu: Option<u64>,
    /// Memory, in bytes.
    pub memory: Option<u64>,
}

impl Room {
    /// Whether this much finds room. An amount of 0 does where nothing is left, and where too much is in use already.
    pub fn holds(&self, used: Amount, needs: Amount) -> bool {
        let fits = |room: Option<u64>, used: u64, needs: u64| {
            needs == 0 || room.is_none_or(|room| used.saturating_add(needs) <= room)
        };
        fits(self.cpu, used.cpu, needs.cpu) && fits(self.memory, used.memory, needs.memory)
    }
}

/// What binds a group to others and to its node. All of it is mandatory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraints {
    /// It is started only while these run, anywhere.
    pub after: Vec<GroupId>,
    /// It is on the node of these, or nowhere.
    pub with: Vec<GroupId>,
    /// It is never on the node of one of these; holds both ways.
    pub apart: Vec<GroupId>,
    /// What it needs of its node.
    pub needs: Amount,
}

impl Constraints {
    /// Whether nothing binds it.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Everything that a plan looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// The voters that may own groups, and the arbiters.
    pub nodes: BTreeMap<VoterId, Node>,
    /// The groups.
    pub groups: BTreeMap<GroupId, Group>,
}

/// A node as a plan sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Whether it shall own nothing.
    pub standby: bool,
    /// What it offers.
    pub room: Room,
    /// How many groups it owns.
    pub load: usize,
}

/// A group as a plan sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Who owns it.
    pub owner: Option<VoterId>,
    /// The target of a planned move under way.
    pub target: Option<VoterId>,
    /// Whether its resources run on its owner.
    pub running: bool,
    /// What stands against each node, by the node's own state; a node that is missing may not run it. Asked for only where the
    /// group has no place yet, or might leave its own.
    pub against: BTreeMap<VoterId, Vec<Unfit>>,
    /// Scores; a node that is missing has 0.
    pub scores: BTreeMap<VoterId, i64>,
    /// By how much a better node's score must exceed that of the group's place.
    pub stickiness: i64,
    /// Whether it goes back by itself.
    pub failback: Failback,
    /// What binds it.
    pub constraints: Constraints,
    /// What keeps it as it is.
    pub halt: Option<Halt>,
    /// The node that it was asked for: by an operator, or as the target of a move that its owner's death cut short.
    pub order: Option<VoterId>,
}

/// Whether a group goes back to a better node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failback {
    /// Never.
    #[default]
    Off,
    /// Once a node has been better for long enough: that is true of this one now.
    Ripe(Option<VoterId>),
    /// At once.
    Now,
}

/// Why a group is left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Halt {
    /// An operator stopped it: it shall be nowhere.
    Stopped,
    /// An operator put it, its node or the cluster in maintenance.
    Maintenance,
    /// It could not be stopped where it is.
    Blocked,
    /// Connections of its last move still drain on this node: it may go there only.
    Draining(VoterId),
    /// A move of it has just been given up.
    Paused,
    /// A node is just being found lost.
    Round,
    /// Its owner is not heard.
    Unheard,
    /// The log does not know it yet.
    Unknown,
}
