//! The entries of the replicated log. Each that changes who serves is a compare-and-set (docs/safety.md, rules 4 to 7).

use serde::{Deserialize, Serialize};

use super::ids::{Epoch, GroupId, Incarnation, Index, Nanos, Role, VoterId};

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// The cluster's voters and groups, as the configuration names them. Groups not named go once nobody owns them.
    Configure {
        /// The voters of the lease and their roles. Accepted as a whole only by an empty state (voter changes: rule 9).
        voters: Vec<(VoterId, Role)>,
        /// The groups that shall exist.
        groups: Vec<GroupId>,
        /// The lease that these voters may grant.
        lease_ns: Nanos,
    },
    /// A voter's first entry in a new incarnation (rule 5).
    Barrier {
        /// Who started.
        voter: VoterId,
        /// Its new incarnation; must be larger than the one on record.
        incarnation: Incarnation,
    },
    /// Ends a round about a node (rule 4).
    Conclude {
        /// Whom the round is about.
        node: VoterId,
        /// The index of the last conclusion about `node`, 0 if none.
        last: Index,
        /// Who promised, and in which incarnation.
        promised: Vec<(VoterId, Incarnation)>,
        /// What was concluded.
        verdict: Verdict,
    },
    /// The owner gives a group up; its gate for this epoch is closed already (rule 6).
    Release {
        /// The group.
        group: GroupId,
        /// The epoch given up.
        epoch: Epoch,
        /// The owner, and its incarnation: a release must not outlive the agent that closed the gate.
        node: VoterId,
        /// The owner's incarnation.
        incarnation: Incarnation,
        /// Why.
        reason: Cause,
    },
    /// A release as the leader puts it into the log where it can name the next owner at once: that one has the group as epoch
    /// + 1 by the same entry.
    ReleaseTo {
        /// The group.
        group: GroupId,
        /// The epoch given up.
        epoch: Epoch,
        /// The owner.
        node: VoterId,
        /// The owner's incarnation.
        incarnation: Incarnation,
        /// Why.
        reason: Cause,
        /// The next owner.
        to: VoterId,
    },
    /// Gives a group without an owner to a node, as epoch + 1.
    Assign {
        /// The group.
        group: GroupId,
        /// The epoch that the group has now.
        epoch: Epoch,
        /// Its new owner.
        to: VoterId,
        /// Why.
        cause: Cause,
    },
    /// Begins a planned move (rule 7).
    Prepare {
        /// The group.
        group: GroupId,
        /// Its epoch now.
        epoch: Epoch,
        /// The node that shall take it.
        to: VoterId,
        /// The target's incarnation.
        to_incarnation: Incarnation,
    },
    /// The target is ready to receive.
    Ready {
        /// The group.
        group: GroupId,
        /// Its epoch.
        epoch: Epoch,
        /// The move: the index of its `Prepare`.
        movement: Index,
        /// The target's incarnation.
        to_incarnation: Incarnation,
        /// Whether it can steer packets of flows that it does not know back to the owner.
        #[serde(default)]
        steers: bool,
    },
    /// The owner has closed its gate to new flows (and forwards them, if `steers`): this is the change of owner.
    Diverted {
        /// The group.
        group: GroupId,
        /// Its epoch.
        epoch: Epoch,
        /// The move.
        movement: Index,
        /// The old owner's incarnation.
        from_incarnation: Incarnation,
        /// Whether the old owner goes on serving its flows: a drain begins.
        #[serde(default)]
        steers: bool,
    },
    /// Ends a drain: the old owner's flows are over, or it cannot serve them any more.
    Drained {
        /// The group.
        group: GroupId,
        /// Its epoch.
        epoch: Epoch,
        /// The old owner.
        node: VoterId,
        /// What became of its flows, if it said so itself.
        #[serde(default)]
        summary: Option<DrainSummary>,
    },
    /// Gives a move up before it was diverted.
    Abandon {
        /// The group.
        group: GroupId,
        /// Its epoch.
        epoch: Epoch,
        /// The move.
        movement: Index,
    },
    /// An operator's order: the node shall own nothing (`true`), or may own groups again.
    Standby {
        /// The node.
        node: VoterId,
        /// On or off.
        on: bool,
    },
    /// An operator's order: something is switched on or off.
    Switch {
        /// What.
        what: Switch,
        /// On or off.
        on: bool,
    },
}

/// What an operator can switch, and everybody then knows. Off unless the state has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    /// Nothing is moved, assigned, started again or stopped on anybody's own accord.
    Maintenance(Scope),
    /// The group shall have no owner.
    Stopped(GroupId),
    /// A resource of the group that is neither started nor stopped.
    Unmanaged(GroupId, String),
}

/// What a maintenance is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everything.
    Cluster,
    /// A node and what it owns.
    Node(VoterId),
    /// A group.
    Group(GroupId),
}

impl Switch {
    /// The group that it is about, if it is about one.
    pub fn group(&self) -> Option<&GroupId> {
        match self {
            Self::Maintenance(Scope::Group(group)) | Self::Stopped(group) | Self::Unmanaged(group, _) => Some(group),
            Self::Maintenance(Scope::Cluster | Scope::Node(_)) => None,
        }
    }
}

impl Entry {
    /// Whether it is what `proposed` has come to: the same, or a release to which the leader has added the next owner.
    pub fn comes_of(&self, proposed: &Self) -> bool {
        match (self, proposed) {
            (
                Self::ReleaseTo { group, epoch, node, incarnation, reason, .. },
                Self::Release { group: g, epoch: e, node: n, incarnation: i, reason: r },
            ) => (group, epoch, node, incarnation, reason) == (g, e, n, i, r),
            (entry, proposed) => entry == proposed,
        }
    }
}

/// What an old owner saw of its flows while they drained, as far as the kernel can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainSummary {
    /// TCP connections that were open when the group moved.
    pub kept: u64,
    /// Those of them that were still open when the time was over, and were reset.
    pub reset: u64,
    /// New flows that still came here and were forwarded to the new owner.
    pub forwarded: u64,
    /// Packets of the old flows that passed here.
    pub packets: u64,
    /// How long it took, ns.
    pub lasted_ns: Nanos,
}

/// What a conclusion says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The node goes on as it was; the promises are void.
    Alive,
    /// The node lost its lease: its groups and unfinished moves end.
    Lost {
        /// Every group that it owns or moves, the group's epoch now, and the new owner, or none.
        moves: Vec<(GroupId, Epoch, Option<VoterId>)>,
        /// Why.
        cause: Cause,
    },
}

/// Why a group changed its owner. Also the `cause` label of the failover metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The first owner of a new group, or of one that nobody could own before.
    Initial,
    /// The owner was silent for longer than the hold.
    Silent,
    /// The owner said that it holds no lease.
    NoLease,
    /// The owner's agent made no progress.
    Wedged,
    /// The owner's front link went down.
    FrontDown,
    /// An operator moved the group.
    Order,
    /// An operator put the owner on standby.
    Standby,
    /// The owner's agent was stopped in an orderly way.
    Shutdown,
    /// A resource of the group failed on its owner.
    Resource,
    /// The owner restarted and had lost the group meanwhile, or could not start it.
    Restart,
}
