//! Which node shall own a group: who is fit, who scores highest, what binds groups to one another, and why the others are not
//! taken. [`plan()`] decides, for the leader and for `baton plan` alike.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{
    entry::Cause,
    ids::{Epoch, GroupId, Index, Role, VoterId},
    settings::GroupSettings,
    sight::Sight,
    state::Movement,
};

mod desk;
mod gather;
mod plan;
mod relations;
mod suppose;
#[cfg(test)]
mod tests;
pub mod text;
pub mod world;

pub(super) use self::gather::{belong_nowhere, gather, undecided};
pub use self::{
    plan::{Obstacle, Place, Plan, Step, Wait, Why, against_order, plan},
    world::{Amount, Constraints, Room, World},
};

/// Why a node cannot own a group now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unfit {
    /// It is an arbiter.
    Arbiter,
    /// The configuration does not let the group run there.
    NotAllowed,
    /// An operator put it on standby.
    Standby,
    /// An operator put it into maintenance.
    Maintenance,
    /// Its heartbeats do not arrive.
    Silent,
    /// Its heartbeats arrive, but its agent makes no progress.
    Wedged,
    /// It has restarted and has not yet caught up with the log.
    Restarting,
    /// It has not said how it is.
    NoReport,
    /// It is starting or stopping.
    NotReady,
    /// A front link is down.
    FrontDown,
    /// Its configuration differs from the cluster's.
    OtherConfiguration,
    /// It refuses the group: a resource failed there, or is still being stopped.
    Refuses,
    /// A resource of the group is not ready to be taken over there.
    Unready,
    /// It holds no lease.
    NoLease,
    /// It has not the room that the group needs.
    NoRoom,
    /// A group from which it must keep apart is there.
    Apart,
    /// A group that it must be with is not there.
    Without,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Arbiter => "it is an arbiter",
            Self::NotAllowed => "the configuration does not let the group run there",
            Self::Standby => "it is on standby",
            Self::Maintenance => "it is in maintenance",
            Self::Silent => "its heartbeats do not arrive",
            Self::Wedged => "its agent makes no progress",
            Self::Restarting => "it has restarted and has not caught up",
            Self::NoReport => "it has not reported",
            Self::NotReady => "it is starting or stopping",
            Self::FrontDown => "a front link is down",
            Self::OtherConfiguration => "its configuration differs from the cluster's",
            Self::Refuses => "a resource of the group failed there or is still being stopped",
            Self::Unready => "a resource of the group is not ready there",
            Self::NoLease => "it holds no lease",
            Self::NoRoom => "it has not the room that the group needs",
            Self::Apart => "a group from which this one must keep apart is there",
            Self::Without => "a group that this one must be with is not there",
        })
    }
}

/// Why a group is where it is, or why it is nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The group.
    pub group: GroupId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its owner.
    pub owner: Option<VoterId>,
    /// Why it has, or lost, its owner.
    pub cause: Cause,
    /// The entry that last changed the owner.
    pub since: Index,
    /// The planned move under way.
    pub movement: Option<Movement>,
    /// Whether it goes back to a better node on its own.
    pub failback: bool,
    /// By how much a better node must exceed the owner.
    pub stickiness: i32,
    /// Every voter with its score and all that stands against it, as this machine sees it.
    pub candidates: Vec<Candidate>,
}

/// One voter's chance to own a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The voter.
    pub node: VoterId,
    /// Its score by the configuration.
    pub score: i64,
    /// All that stands against it; empty if it is fit.
    pub against: Vec<Unfit>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.owner {
            Some(owner) => {
                write!(f, "group {} is on node {owner} (epoch {}, {:?})", self.group, self.epoch, self.cause)?
            }
            None => write!(f, "group {} has no owner (epoch {}, {:?})", self.group, self.epoch, self.cause)?,
        }
        if let Some(m) = self.movement {
            write!(f, "; it moves from node {} to node {}", m.from, m.to)?;
        }
        for c in &self.candidates {
            write!(f, "\n  voter {}, score {}: ", c.node, c.score)?;
            if c.against.is_empty() {
                f.write_str(if self.owner == Some(c.node) { "fit, and the owner" } else { "fit" })?;
            }
            for (i, reason) in c.against.iter().enumerate() {
                write!(f, "{}{reason}", if i == 0 { "" } else { ", " })?;
            }
        }
        let best = self.candidates.iter().filter(|c| c.against.is_empty()).max_by_key(|c| c.score);
        if let (Some(owner), Some(best)) = (self.owner, best)
            && best.node != owner
            && self.candidates.iter().any(|c| c.node == owner && c.score < best.score)
        {
            let why = if self.failback {
                "its lead is within the stickiness, or it has not been fit for long"
            } else {
                "failback is off"
            };
            write!(f, "\n  it stays on node {owner} although node {} scores higher: {why}", best.node)?;
        }
        Ok(())
    }
}

/// All that stands against `node` as the owner of the group.
pub(super) fn against(sight: &Sight<'_>, group: &GroupSettings, node: VoterId) -> Vec<Unfit> {
    let mut reasons = Vec::new();
    let Some(voter) = sight.state.voters.get(&node) else {
        return vec![Unfit::NotAllowed];
    };
    let mut note = |is: bool, why| {
        if is {
            reasons.push(why);
        }
    };
    note(voter.role == Role::Arbiter, Unfit::Arbiter);
    note(!group.allows(node), Unfit::NotAllowed);
    note(voter.standby, Unfit::Standby);
    note(sight.state.in_maintenance(node), Unfit::Maintenance);
    let heard = sight.heard(node);
    note(!heard, Unfit::Silent);
    if heard {
        note(sight.wedged(node), Unfit::Wedged);
        let restarting = sight.peer(node).is_some_and(|p| node != sight.me() && p.incarnation != voter.incarnation);
        note(restarting, Unfit::Restarting);
        note(!sight.holds_lease(node), Unfit::NoLease);
    }
    match sight.report(node) {
        None => note(heard, Unfit::NoReport),
        Some(report) => {
            note(!report.ready, Unfit::NotReady);
            note(!report.front_up, Unfit::FrontDown);
            note(!report.same_configuration, Unfit::OtherConfiguration);
            note(report.unfit.contains(&group.id), Unfit::Refuses);
            note(report.unready.iter().any(|(id, _)| *id == group.id), Unfit::Unready);
        }
    }
    reasons
}

/// Whether `node` may take the group when its owner is gone. One whose resources are not ready may: a service that limps is better
/// than none, and what ails it may ail all nodes.
pub(super) fn fit(sight: &Sight<'_>, group: &GroupSettings, node: VoterId) -> bool {
    takes(&against(sight, group, node))
}

/// Why the group's resources are not ready on `node`, by its own report.
pub(super) fn unready<'a>(sight: &Sight<'a>, group: &GroupId, node: VoterId) -> Option<&'a str> {
    let report = sight.report(node)?;
    report.unready.iter().find(|(id, _)| id == group).map(|(_, why)| why.as_str())
}

/// Whether a node may take a group although this stands against it: as [`fit`].
fn takes(against: &[Unfit]) -> bool {
    against.iter().all(|why| *why == Unfit::Unready)
}

/// How many groups each voter owns.
pub(super) fn load(sight: &Sight<'_>) -> BTreeMap<VoterId, usize> {
    sight.state.voters.keys().map(|v| (*v, sight.state.owned(*v))).collect()
}

/// Whether a node that is not fit (yet) would be preferred to `chosen`, by its score or because it would spread the groups:
/// after a start of the whole cluster it is waited for.
pub(super) fn awaits_better(
    sight: &Sight<'_>,
    group: &GroupSettings,
    chosen: VoterId,
    load: &BTreeMap<VoterId, usize>,
) -> bool {
    let nodes = sight.state.voters.iter().filter(|(n, v)| v.role == Role::Node && !v.standby && group.allows(**n));
    let cost = |n: VoterId| (-group.score(n), load.get(&n).copied().unwrap_or(0));
    let mut better = nodes.map(|(n, _)| *n).filter(|n| cost(*n) < cost(chosen));
    better.any(|n| !fit(sight, group, n))
}

/// Explains a group's place as this machine sees it; `None` for an unknown group.
pub(super) fn explain(sight: &Sight<'_>, id: &GroupId) -> Option<Explanation> {
    let state = sight.state.groups.get(id)?;
    let unconfigured = GroupSettings { nodes: vec![VoterId(0)], ..GroupSettings::anywhere(&id.0) };
    let group = sight.settings.group(id).unwrap_or(&unconfigured);
    let candidate = |node: &VoterId| {
        let mut against = against(sight, group, *node);
        if state.owner != Some(*node) {
            against.extend(gather::bound(sight, group, *node));
        }
        Candidate { node: *node, score: group.score(*node), against }
    };
    Some(Explanation {
        group: id.clone(),
        epoch: state.epoch,
        owner: state.owner,
        cause: state.cause,
        since: state.since,
        movement: state.movement,
        failback: group.failback,
        stickiness: group.stickiness,
        candidates: sight.state.voters.keys().map(candidate).collect(),
    })
}
