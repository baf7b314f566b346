//! The plan: where each group shall be and why, and the steps to there in the order in which they may be taken (docs/placement.md).

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    Unfit,
    desk::Desk,
    relations::Relations,
    world::{Amount, Halt, Room, World},
};
use crate::cluster::ids::{GroupId, VoterId};

/// Where everything shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Every group.
    pub places: BTreeMap<GroupId, Place>,
    /// What is to be done for it. Each step may be taken as soon as nothing is left that it waits for.
    pub steps: Vec<Step>,
    /// Groups that would go back by themselves, and to where, once that node has been better for long enough.
    #[serde(skip)]
    pub better: BTreeMap<GroupId, VoterId>,
}

/// Where one group shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The node; `None`: nowhere.
    pub node: Option<VoterId>,
    /// Why.
    pub why: Why,
}

/// Why a group shall be where it shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It is there, and nothing asks it to leave.
    Kept,
    /// It is being moved there.
    Moving,
    /// It was asked for there.
    Ordered,
    /// Of all nodes that can take it this one is the best.
    Chosen {
        /// The scores of it and of those that follow it.
        score: i64,
    },
    /// It goes back to the node that it prefers.
    Back {
        /// The scores of it and of those that follow it.
        score: i64,
    },
    /// It is where this group is.
    Follows(GroupId),
    /// It is left alone.
    Halted(Halt),
    /// It ought to leave, and no other node can take it.
    NowhereElse(BTreeMap<VoterId, Vec<Obstacle>>),
    /// No node can take it.
    Nowhere(BTreeMap<VoterId, Vec<Obstacle>>),
    /// It has to leave its node to this group, and no other node can take it.
    Ousted(GroupId),
    /// It cannot be where this group is.
    NotWith(GroupId, Vec<Obstacle>),
    /// This group does not run, and has no node where it could.
    After(GroupId),
}

/// Why a group cannot be on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Obstacle {
    /// The node is not fit for it.
    Unfit(Unfit),
    /// A group from which it must keep away is there.
    Apart(GroupId),
    /// A group that it must be with is not.
    Without(GroupId),
    /// The node has not enough room.
    Room {
        /// What the group needs.
        needs: Amount,
        /// What is in use already.
        used: Amount,
        /// What there is in all.
        room: Room,
    },
    /// It is started only while this group runs.
    After(GroupId),
    /// It is left alone.
    Halted(Halt),
    /// This group, which follows it, cannot come along.
    Left(GroupId, Vec<Obstacle>),
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The group.
    pub group: GroupId,
    /// Where it is; `None`: nowhere.
    pub from: Option<VoterId>,
    /// Where it goes; `None`: it is stopped.
    pub to: Option<VoterId>,
    /// What must be true before.
    pub waits: Vec<Wait>,
}

/// What a step waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// This group runs.
    Runs(GroupId),
    /// This group is on the same node.
    Partner(GroupId),
    /// This group has left the node.
    Leaves(GroupId),
    /// The node has room.
    Room,
}

/// Makes a plan. The same world gives the same plan, and the world after it gives an empty one.
pub fn plan(world: &World) -> Plan {
    let net = Relations::of(world);
    let mut waiting = BTreeMap::new();
    loop {
        let mut desk = Desk::new(world, &net, &waiting);
        desk.settle();
        let more = cannot_start(&net, &desk.at, &waiting);
        if more.is_empty() {
            let Desk { at, why, better, .. } = desk;
            let steps = steps(world, &net, &at);
            let places = net.ids.iter().zip(at).zip(why);
            let places = places.map(|((id, node), why)| ((*id).clone(), Place { node, why })).collect();
            return Plan { places, steps, better };
        }
        waiting.extend(more);
    }
}

/// What stands against moving a group to a node by order, beside how the node itself is.
pub fn against_order(world: &World, group: &GroupId, to: VoterId) -> Vec<Obstacle> {
    let net = Relations::of(world);
    let waiting = BTreeMap::new();
    match net.ids.binary_search(&group) {
        Ok(group) => Desk::new(world, &net, &waiting).against_order(group, to),
        Err(_) => Vec::new(),
    }
}

/// Groups without an owner that were given a place although what they come after will not run, and what that is.
fn cannot_start(net: &Relations<'_>, at: &[Option<VoterId>], waiting: &BTreeMap<usize, usize>) -> Vec<(usize, usize)> {
    let mut runs: Vec<bool> = net.groups.iter().zip(at).map(|(g, at)| g.owner.is_some() && at.is_some()).collect();
    // Whoever has a place runs once all that it comes after does; a circle never gets that far.
    loop {
        let next = (0..at.len()).find(|m| !runs[*m] && at[*m].is_some() && net.after[*m].iter().all(|a| runs[*a]));
        match next {
            Some(m) => runs[m] = true,
            None => break,
        }
    }
    let stuck = (0..at.len()).filter(|m| !runs[*m] && at[*m].is_some() && !waiting.contains_key(m));
    stuck.filter_map(|m| Some((m, net.after[m].iter().copied().find(|a| !runs[*a])?))).collect()
}

/// The way from where the groups are to where they shall be.
fn steps(world: &World, net: &Relations<'_>, at: &[Option<VoterId>]) -> Vec<Step> {
    let mut there: Vec<BTreeSet<VoterId>> =
        net.groups.iter().map(|g| g.owner.into_iter().chain(g.target).collect()).collect();
    let mut used: BTreeMap<VoterId, Amount> = BTreeMap::new();
    for (group, nodes) in net.groups.iter().zip(&there) {
        for node in nodes {
            let used = used.entry(*node).or_default();
            *used = used.plus(group.constraints.needs);
        }
    }
    let mut steps = Vec::new();
    let sequence = net.sequence();
    let changes = |m: &&usize| net.groups[**m].target.is_none() && net.groups[**m].owner != at[**m];
    let (stops, others): (Vec<usize>, Vec<usize>) = sequence.iter().filter(changes).partition(|m| at[**m].is_none());
    // Whoever came last goes first.
    for &m in stops.iter().rev() {
        steps.push(Step { group: net.ids[m].clone(), from: net.groups[m].owner, to: None, waits: Vec::new() });
    }
    for m in others {
        let (group, Some(to)) = (net.groups[m], at[m]) else {
            continue;
        };
        let needs = group.constraints.needs;
        let name = |g: &usize| net.ids[*g].clone();
        let stays = |a: usize| net.groups[a].target.is_none() && net.groups[a].owner == at[a];
        let first = net.after[m].iter().filter(|a| !net.groups[**a].running || !stays(**a));
        let mut waits: Vec<Wait> = first.map(|a| Wait::Runs(name(a))).collect();
        let partners = net.with[m].iter().filter(|p| **p != m && net.groups[**p].owner != Some(to));
        waits.extend(partners.map(|p| Wait::Partner(name(p))));
        waits.extend(net.apart[m].iter().filter(|o| there[**o].contains(&to)).map(|o| Wait::Leaves(name(o))));
        let room = world.nodes.get(&to).map(|n| n.room).unwrap_or_default();
        if !room.holds(used.get(&to).copied().unwrap_or_default(), needs) {
            waits.push(Wait::Room);
        }
        if waits.is_empty() {
            there[m].insert(to);
            let used = used.entry(to).or_default();
            *used = used.plus(needs);
        }
        steps.push(Step { group: name(&m), from: group.owner, to: Some(to), waits });
    }
    steps
}
