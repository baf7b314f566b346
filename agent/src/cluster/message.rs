//! What the voters' cores tell one another over the authenticated channel, outside the log. Losing any of it only delays.

use serde::{Deserialize, Serialize};

use super::{
    entry::Switch,
    ids::{GroupId, Incarnation, Index, VoterId},
};

/// A message between two cores. The channel adds the sender's identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Level, not edge: what the sender sees now. Sent to everybody on change, and repeated at a slow pace.
    Report(Report),
    /// The leader asks for a promise about `node` (rule 3).
    AskPromise {
        /// Whom the round is about.
        node: VoterId,
        /// The last conclusion about `node` in the leader's log.
        last: Index,
    },
    /// The sender has raised its floor for `node` to infinity and waited out its hold.
    Promise {
        /// Whom it is about.
        node: VoterId,
        /// The last conclusion about `node` that the sender has applied.
        last: Index,
        /// The sender's incarnation.
        incarnation: Incarnation,
    },
    /// The leader steps aside: the receiver shall stand for election now.
    TakeLeadership {
        /// The term that ends.
        term: u64,
    },
    /// An operator's order, forwarded to the leader.
    Order(Order),
}

/// What a voter sees. Masks have bit `1 << id` for voter `id`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The sender's incarnation.
    pub incarnation: Incarnation,
    /// Grows with each report of the incarnation: reports may overtake one another.
    pub sequence: u64,
    /// Voters whose hold, here, has run out without a new acknowledgement.
    pub silent: u16,
    /// Voters about which the sender's floor is infinite because of a promise (asked for or given).
    pub promising: u16,
    /// The newest entry that the sender's state reflects.
    pub applied: Index,
    /// Whether the sender's gate reflects its barrier: only then may it take on groups.
    pub ready: bool,
    /// Whether every front link that the sender's groups need is up. Always true for an arbiter.
    pub front_up: bool,
    /// Whether its configuration's digest equals the cluster's.
    pub same_configuration: bool,
    /// Groups that the sender refuses to run for now (a resource failed there).
    pub unfit: Vec<GroupId>,
    /// Groups whose resources are not ready to be taken over there, each with the reason.
    #[serde(default)]
    pub unready: Vec<(GroupId, String)>,
    /// The peers to which the sender can steer packets.
    #[serde(default)]
    pub steers: u16,
    /// Of the groups that others come after, those whose resources run on the sender.
    #[serde(default)]
    pub running: Vec<GroupId>,
    /// Whether its program knows [`Entry::ReleaseTo`], which one of an earlier version cannot read.
    #[serde(default)]
    pub knows_release_to: bool,
}

/// An operator's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Move a group to a node.
    Move {
        /// The group.
        group: GroupId,
        /// The target.
        to: VoterId,
        /// End the drain of an earlier move, should one be under way.
        #[serde(default)]
        force: bool,
    },
    /// Put a node on standby, or take it off.
    Standby {
        /// The node.
        node: VoterId,
        /// On or off.
        on: bool,
    },
    /// Switch something on or off.
    Switch {
        /// What.
        what: Switch,
        /// On or off.
        on: bool,
    },
}
