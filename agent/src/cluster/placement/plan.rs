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
    /// It has to be stopped before it can be anywhere.
    Stopping,
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

/// Makes a plan. The same world gives the same plan; the world after it an empty one, unless a group was stopped or went back.
pub fn plan(world: &World) -> Plan {
    let net = Relations::of(world);
    let mut desk = Desk::new(world, &net);
    desk.settle();
    let Desk { at, why, better, .. } = desk;
    let steps = steps(world, &net, &at);
    let places = net.ids.iter().zip(at).zip(why);
    let places = places.map(|((id, node), why)| ((*id).clone(), Place { node, why })).collect();
    Plan { places, steps, better }
}

/// What stands against moving a group to a node by order, beside how the node itself is.
pub fn against_order(world: &World, group: &GroupId, to: VoterId) -> Vec<Obstacle> {
    let net = Relations::of(world);
    match net.ids.binary_search(&group) {
        Ok(group) => Desk::new(world, &net).against_order(group, to),
        Err(_) => Vec::new(),
    }
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
    let changes = |m: &usize| net.groups[*m].target.is_none() && net.groups[*m].owner != at[*m];
    let (stops, others): (Vec<usize>, Vec<usize>) = net.sequence().filter(changes).partition(|m| at[*m].is_none());
    // Whoever came last goes first.
    let stop = |m: &usize| Step { group: net.ids[*m].clone(), from: net.groups[*m].owner, to: None, waits: Vec::new() };
    let mut steps: Vec<Step> = stops.iter().rev().map(stop).collect();
    for m in possible_order(world, net, at, others) {
        let (group, Some(to)) = (net.groups[m], at[m]) else {
            continue;
        };
        let needs = group.constraints.needs;
        let name = |g: &usize| net.ids[*g].clone();
        let stays = |a: usize| net.groups[a].target.is_none() && net.groups[a].owner == at[a];
        let first = net.after[m].iter().filter(|a| !net.groups[**a].running || !stays(**a));
        let mut waits: Vec<Wait> = first.map(|a| Wait::Runs(name(a))).collect();
        let partners = net.with[m].iter().filter(|p| net.leads(**p, m) && net.groups[**p].owner != Some(to));
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

/// The groups that start or move, in an order in which each finds what it needs once those before it are done: room, and nobody
/// from whom it must keep apart. They come in the order of placement, which is kept where nothing speaks against it.
fn possible_order(world: &World, net: &Relations<'_>, at: &[Option<VoterId>], mut rest: Vec<usize>) -> Vec<usize> {
    // What is stopped, and what moves already, is done first.
    let mut now: Vec<Option<VoterId>> =
        net.groups.iter().zip(at).map(|(g, at)| at.and_then(|_| g.target.or(g.owner))).collect();
    let mut used: BTreeMap<VoterId, Amount> = BTreeMap::new();
    for (group, node) in net.groups.iter().zip(&now) {
        if let Some(node) = node {
            let used = used.entry(*node).or_default();
            *used = used.plus(group.constraints.needs);
        }
    }
    let mut order = Vec::with_capacity(rest.len());
    loop {
        let before = rest.len();
        rest.retain(|m| {
            let Some(to) = at[*m] else {
                return false;
            };
            let needs = net.groups[*m].constraints.needs;
            let room = world.nodes.get(&to).map(|n| n.room).unwrap_or_default();
            let ready = room.holds(used.get(&to).copied().unwrap_or_default(), needs)
                && net.apart[*m].iter().all(|o| now[*o] != Some(to))
                && net.with[*m].iter().all(|p| !net.leads(*p, *m) || now[*p] == Some(to))
                && net.after[*m].iter().all(|a| now[*a] == at[*a]);
            if ready {
                if let Some(used) = now[*m].and_then(|from| used.get_mut(&from)) {
                    *used = used.minus(needs);
                }
                let used = used.entry(to).or_default();
                *used = used.plus(needs);
                now[*m] = Some(to);
                order.push(*m);
            }
            !ready
        });
        if rest.is_empty() || rest.len() == before {
            break;
        }
    }
    order.extend(rest);
    order
}
