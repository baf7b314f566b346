//! What the configuration tells the core, and what an operator may be refused.

use std::collections::BTreeMap;

use super::{
    command::GateRole,
    ids::{Epoch, GroupId, Incarnation, MILLISECOND, Nanos, Role, VoterId},
    mutations::Mutations,
    placement::{Constraints, Room},
    state::Held,
    timing::Timing,
};

/// For how long a node refuses a group of addresses that failed there.
pub const FAILURE_EXPIRES: Nanos = 30_000 * MILLISECOND;

/// What one machine's core knows before it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// This machine.
    pub me: VoterId,
    /// What this machine is. Must agree with `voters`.
    pub role: Role,
    /// All voters of the cluster, this machine included.
    pub voters: Vec<(VoterId, Role)>,
    /// All groups of the cluster.
    pub groups: Vec<GroupSettings>,
    /// What the nodes offer to groups that say what they need; one that is missing offers as much as is asked for.
    pub rooms: BTreeMap<VoterId, Room>,
    /// The intervals that all voters share.
    pub timing: Timing,
    /// The number of this start; larger than at every earlier start of this machine.
    pub incarnation: Incarnation,
    /// What the gates do that this start found set and keeps (rule 10); empty in an ordinary start, which has closed them.
    pub adopted: BTreeMap<GroupId, (Epoch, GateRole)>,
    /// All off in the agent.
    pub mutations: Mutations,
}

impl Settings {
    /// A group's settings, if the configuration names it.
    pub fn group(&self, id: &GroupId) -> Option<&GroupSettings> {
        self.groups.iter().find(|g| g.id == *id)
    }

    /// How long the group's resources may take to stop before it is given up; `None` where nobody waits for that.
    pub fn stops_first(&self, id: &GroupId) -> Option<Nanos> {
        self.group(id).and_then(|g| g.stops_first)
    }

    /// Whether the configuration lets this machine run the group.
    pub fn may_run(&self, id: &GroupId) -> bool {
        self.role == Role::Node && self.group(id).is_some_and(|g| g.allows(self.me))
    }
}

/// How a group is placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// The group.
    pub id: GroupId,
    /// The nodes that may run it; empty means all of them.
    pub nodes: Vec<VoterId>,
    /// Scores of nodes; a node that is not named has 0. The highest score of those that are fit wins.
    pub prefers: Vec<(VoterId, i32)>,
    /// By how much another node's score must exceed the owner's before the group goes back on its own.
    pub stickiness: i32,
    /// Whether the group goes back on its own at all.
    pub failback: bool,
    /// Set for a group whose resources must not run twice: its owner stops them before it gives the group up, which takes this
    /// long at most, in nanoseconds. A group that is addresses alone is given up when its gate is closed.
    pub stops_first: Option<Nanos>,
    /// What binds it to other groups and to its node.
    pub constraints: Constraints,
    /// For how long a node refuses the group after it failed there, ns.
    pub refused_for: Nanos,
}

impl GroupSettings {
    /// A group that may run on every node, with no preference, and stays where it is.
    pub fn anywhere(id: &str) -> Self {
        Self {
            id: GroupId::new(id),
            nodes: Vec::new(),
            prefers: Vec::new(),
            stickiness: 0,
            failback: false,
            stops_first: None,
            constraints: Constraints::default(),
            refused_for: FAILURE_EXPIRES,
        }
    }

    /// Whether `node` may run the group.
    pub fn allows(&self, node: VoterId) -> bool {
        self.nodes.is_empty() || self.nodes.contains(&node)
    }

    /// The score of `node`, the sum of what is said about it.
    pub fn score(&self, node: VoterId) -> i64 {
        self.prefers.iter().filter(|(n, _)| *n == node).map(|(_, s)| i64::from(*s)).sum()
    }
}

/// Why an operator's order is refused, and what to do instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderRefused {
    /// No such group.
    #[error("there is no group {0}; `baton status` lists the groups")]
    UnknownGroup(GroupId),
    /// No such node, or an arbiter.
    #[error("voter {0} is not a node of this cluster; `baton status` lists the nodes")]
    NotANode(VoterId),
    /// It is there already.
    #[error("group {0} is on node {1} already; nothing to do")]
    AlreadyThere(GroupId, VoterId),
    /// The group has no owner, so there is nothing to move.
    #[error("group {0} has no owner now; `baton status` says what it waits for")]
    NoOwner(GroupId),
    /// A planned move is under way.
    #[error("group {0} is being moved already; try again when that is over")]
    Moving(GroupId),
    /// Flows of an earlier move are still served by a third node.
    #[error(
        "flows of the last move of group {0} still drain on node {1}; wait until they have ended, move it to node {1}, or give the \
         order with --force: then they break"
    )]
    Draining(GroupId, VoterId),
    /// The target cannot take it.
    #[error("node {node} cannot take group {group}: {reason}; mend that, or name another node")]
    NotFit {
        /// The group.
        group: GroupId,
        /// The target.
        node: VoterId,
        /// All that stands against it.
        reason: String,
    },
    /// It would break what binds groups to one another or to their node.
    #[error(
        "group {group} cannot be moved to node {node}: {reason}; `baton plan FILE --move {group} NODE` shows what would work"
    )]
    Bound {
        /// The group.
        group: GroupId,
        /// The target.
        node: VoterId,
        /// All that binds it.
        reason: String,
    },
    /// A switch stands against it.
    #[error("group {group} stays where it is: {why}; {}", ended(*.why))]
    Held {
        /// The group.
        group: GroupId,
        /// The switch.
        why: Held,
    },
    /// Nobody leads.
    #[error(
        "the cluster has no leader now, so no order can be carried out; try again in a moment, and see `baton status`"
    )]
    NoLeader,
    /// Too many orders wait.
    #[error("{0} orders wait already; try again when they are done")]
    Busy(usize),
}

/// How a switch is switched off.
const fn ended(why: Held) -> &'static str {
    match why {
        Held::Stopped => "`baton group start` ends that",
        Held::Cluster | Held::Group | Held::Owner(_) => {
            "`baton maintenance off` (with --node or --group, as it was switched on) ends that"
        }
    }
}
