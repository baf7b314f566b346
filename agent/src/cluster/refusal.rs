//! Why the state refuses an entry: the premise that no longer holds.

use super::ids::{GroupId, VoterId};

/// Why an entry was refused. Never a fault of the log: somebody was faster, and whoever proposed the entry looks again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A list of voters that is empty, names one twice, or names a number outside 1 to 8.
    #[error(
        "the list of voters is empty, names a voter twice or names a number outside 1 to 8; correct the configuration"
    )]
    VotersInvalid,
    /// The cluster was formed with other voters.
    #[error(
        "the cluster was formed with other voters or roles; give every machine the configuration it was formed with"
    )]
    VotersDiffer,
    /// The cluster was formed with another lease.
    #[error("the cluster was formed with another lease; give every machine the profile it was formed with")]
    LeaseDiffers,
    /// No such voter.
    #[error("voter {0} is not in the cluster; look at the configured voters")]
    UnknownVoter(VoterId),
    /// No such group.
    #[error("group {0} is not in the cluster; look at the configured groups")]
    UnknownGroup(GroupId),
    /// An arbiter, where a node is needed.
    #[error("voter {0} is an arbiter and owns nothing; name a node")]
    NotANode(VoterId),
    /// The voter has restarted since, or has not yet begun.
    #[error("voter {0} is on record with another incarnation; it acts again after its barrier")]
    StaleIncarnation(VoterId),
    /// A conclusion about the node came first.
    #[error("another conclusion about node {0} came first; the leader looks again")]
    OtherRound(VoterId),
    /// A promise that is the node's own or is named twice.
    #[error("voter {0} cannot promise here: it is the node itself or is named twice; the leader asks again")]
    PromiseNotCounted(VoterId),
    /// Too few promises.
    #[error("{promised} promises about node {node} of {needed} needed; the leader asks again")]
    NoMajority {
        /// The node.
        node: VoterId,
        /// How many promised.
        promised: usize,
        /// How many it takes.
        needed: usize,
    },
    /// The conclusion does not name exactly the groups that the node owns or moves.
    #[error("the groups of node {0} changed meanwhile; the leader looks again")]
    OtherGroups(VoterId),
    /// The group's epoch changed.
    #[error("group {0} has another epoch by now; whoever proposed this looks again")]
    OtherEpoch(GroupId),
    /// The group's owner is not the one that the entry presumes.
    #[error("group {0} has another owner by now; whoever proposed this looks again")]
    OtherOwner(GroupId),
    /// The group's movement is not the one that the entry presumes.
    #[error("group {0} has another planned move, or none, by now; whoever proposed this looks again")]
    OtherMovement(GroupId),
    /// Flows of an earlier move still drain on another node, or drain no more.
    #[error("flows of the last planned move of group {0} still drain on another node, or do no more; try again later")]
    Draining(GroupId),
    /// An operator's switch stands against it.
    #[error("group {0} is stopped or in maintenance, or the node is; an operator ends that")]
    Held(GroupId),
    /// The target has not said that it can receive.
    #[error("the target of the planned move of group {0} is not ready; the owner waits for it")]
    NotReady(GroupId),
}

impl Refusal {
    /// A short name, the label of the metric and of the flight recorder.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::VotersInvalid => "voters_invalid",
            Self::VotersDiffer => "voters_differ",
            Self::LeaseDiffers => "lease_differs",
            Self::UnknownVoter(_) => "unknown_voter",
            Self::UnknownGroup(_) => "unknown_group",
            Self::NotANode(_) => "not_a_node",
            Self::StaleIncarnation(_) => "stale_incarnation",
            Self::OtherRound(_) => "other_round",
            Self::PromiseNotCounted(_) => "promise_not_counted",
            Self::NoMajority { .. } => "no_majority",
            Self::OtherGroups(_) => "other_groups",
            Self::OtherEpoch(_) => "other_epoch",
            Self::OtherOwner(_) => "other_owner",
            Self::OtherMovement(_) => "other_movement",
            Self::Draining(_) => "draining",
            Self::Held(_) => "held",
            Self::NotReady(_) => "not_ready",
        }
    }
}
