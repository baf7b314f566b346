//! The leader's sight as a plan's world.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Unfit, against,
    world::{Amount, Constraints, Failback, Group, Halt, Node, World},
};
use crate::cluster::{
    ids::{GroupId, VoterId},
    settings::GroupSettings,
    sight::Sight,
    state::{GroupState, Held},
};

/// Whether there is anything to plan: a group without an owner, on a node on standby, that may go back, or whose constraints do
/// not hold. While there is not, which is nearly always, no plan is made.
pub(in crate::cluster) fn undecided(sight: &Sight<'_>) -> bool {
    let standby = |node: VoterId| sight.state.voters.get(&node).is_some_and(|v| v.standby);
    let place = |g: &GroupState| g.movement.map(|m| m.to).or(g.owner);
    sight.settings.groups.iter().any(|settings| {
        let Some(group) = sight.state.groups.get(&settings.id) else {
            return false;
        };
        let at = |id: &GroupId| sight.state.groups.get(id).and_then(place);
        let here = place(group);
        let bound = &settings.constraints;
        (group.owner.is_none() && sight.state.held(&settings.id).is_none())
            || (group.movement.is_none() && (settings.failback || group.owner.is_some_and(standby)))
            || bound.with.iter().any(|p| sight.state.groups.contains_key(p) && at(p) != here)
            || bound.apart.iter().any(|o| at(o) == here)
    })
}

/// The groups of this node that have no place any more: one that they must be with is elsewhere and they cannot join it, or one
/// from which they must keep apart is here and keeps the node. Their owner gives them up; the leader cannot.
pub(in crate::cluster) fn belong_nowhere(sight: &Sight<'_>) -> BTreeSet<GroupId> {
    let place = |id: &GroupId| sight.state.groups.get(id).and_then(|g| g.movement.map(|m| m.to).or(g.owner));
    let here = |id: &GroupId| place(id) == Some(sight.me());
    let mine = |id: &GroupId| sight.state.groups.get(id).is_some_and(|g| g.owner == Some(sight.me()));
    let broken = |g: &GroupSettings| {
        let Constraints { with, apart, .. } = &g.constraints;
        let with = with.iter().any(|p| sight.state.groups.contains_key(p) && !here(p));
        let apart = apart.iter().any(|o| here(o) && here(&g.id));
        (mine(&g.id) && with) || apart
    };
    if !sight.settings.groups.iter().any(broken) {
        return BTreeSet::new();
    }
    let plan = super::plan(&gather(sight, None, |_, _| None, |_| Failback::Off));
    let stops = plan.steps.into_iter().filter(|s| s.from == Some(sight.me()) && s.to.is_none());
    stops.map(|s| s.group).collect()
}

/// The world as this machine sees it; without the node `lost`, whose groups need another. `halt` says why a group is to be left
/// alone, `failback` whether one may go back.
pub(in crate::cluster) fn gather(
    sight: &Sight<'_>,
    lost: Option<VoterId>,
    mut halt: impl FnMut(&GroupId, &GroupState) -> Option<Halt>,
    failback: impl Fn(&GroupSettings) -> Failback,
) -> World {
    let nodes = sight.state.voters.iter().map(|(id, v)| {
        let room = sight.settings.rooms.get(id).copied().unwrap_or_default();
        (*id, Node { standby: v.standby, room, load: sight.state.owned(*id) })
    });
    let nodes: BTreeMap<VoterId, Node> = nodes.collect();
    let standby = |node: VoterId| nodes.get(&node).is_some_and(|n| n.standby);
    // Those that others name may have to move for them.
    let bound = sight.settings.groups.iter().flat_map(|g| g.constraints.with.iter().chain(&g.constraints.apart));
    let named: BTreeSet<&GroupId> = bound.collect();
    let groups = sight.settings.groups.iter().filter_map(|settings| {
        let state = sight.state.groups.get(&settings.id)?;
        let movement = state.movement.filter(|m| lost.is_none_or(|l| !m.involves(l)));
        let owner = state.owner.filter(|o| Some(*o) != lost);
        // Of a group that stays anyhow nobody asks where else it could be.
        let bound = &settings.constraints;
        let binds = !bound.with.is_empty() || !bound.apart.is_empty() || named.contains(&settings.id);
        let open = owner.is_none_or(standby) || settings.failback || binds;
        let against = |node: &VoterId| {
            let mut against = against(sight, settings, *node);
            if Some(*node) == lost && !against.contains(&Unfit::Silent) {
                against.push(Unfit::Silent);
            }
            (*node, against)
        };
        let group = Group {
            owner,
            target: movement.map(|m| m.to),
            running: owner.is_some() && runs(sight, &settings.id, state),
            against: if open { nodes.keys().map(against).collect() } else { BTreeMap::new() },
            scores: nodes.keys().map(|n| (*n, settings.score(*n))).filter(|(_, s)| *s != 0).collect(),
            stickiness: i64::from(settings.stickiness),
            failback: if settings.failback { failback(settings) } else { Failback::Off },
            constraints: settings.constraints.clone(),
            halt: sight.state.held(&settings.id).map(halted).or_else(|| halt(&settings.id, state)),
            // A target that was being prepared was asked for by name.
            order: state.movement.filter(|m| owner.is_none() && Some(m.to) != lost).map(|m| m.to),
        };
        Some((settings.id.clone(), group))
    });
    let groups = groups.collect();
    World { nodes, groups }
}

/// What a switch means for a plan.
fn halted(why: Held) -> Halt {
    match why {
        Held::Stopped => Halt::Stopped,
        Held::Cluster | Held::Group | Held::Owner(_) => Halt::Maintenance,
    }
}

/// Whether the group's resources run on its owner, by the owner's own report.
fn runs(sight: &Sight<'_>, id: &GroupId, state: &GroupState) -> bool {
    let report = state.owner.and_then(|owner| sight.report(owner));
    report.is_some_and(|r| r.running.contains(id))
}

/// What binds a group away from a node that it does not own yet, by the owners in the log.
pub(super) fn bound(sight: &Sight<'_>, group: &GroupSettings, node: VoterId) -> Vec<Unfit> {
    let state = sight.state;
    let on = |id: &GroupId| {
        state.groups.get(id).is_some_and(|g| g.owner == Some(node) || g.movement.is_some_and(|m| m.to == node))
    };
    let Constraints { with, apart, needs, .. } = &group.constraints;
    let mut found = Vec::new();
    if *needs != Amount::ZERO
        && let Some(room) = sight.settings.rooms.get(&node)
    {
        let others = sight.settings.groups.iter().filter(|g| g.id != group.id && on(&g.id));
        let used = others.fold(Amount::ZERO, |sum, g| sum.plus(g.constraints.needs));
        found.extend((!room.holds(used, *needs)).then_some(Unfit::NoRoom));
    }
    let names_it = |g: &&GroupSettings| g.constraints.apart.contains(&group.id) && on(&g.id);
    if apart.iter().any(on) || sight.settings.groups.iter().any(|g| names_it(&g)) {
        found.push(Unfit::Apart);
    }
    if !with.iter().all(on) {
        found.push(Unfit::Without);
    }
    found
}
