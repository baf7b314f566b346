//! The working copy of a plan: groups are put on nodes one bundle after the other, and taken off again, until nothing changes.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    Unfit,
    plan::{Obstacle, Why},
    relations::{Bundle, Relations},
    world::{Amount, Failback, Halt, World},
};
use crate::cluster::ids::{GroupId, VoterId};

mod trial;

use trial::Trial;

/// Where every group is, as far as it is decided.
pub(super) struct Desk<'w> {
    world: &'w World,
    net: &'w Relations<'w>,
    pub at: Vec<Option<VoterId>>,
    pub why: Vec<Why>,
    used: BTreeMap<VoterId, Amount>,
    load: BTreeMap<VoterId, usize>,
    went_back: BTreeSet<usize>,
    /// Whether anything left a node.
    freed: bool,
    /// The node of a group that is to be stopped: it takes room there until that is certain.
    leaving: Vec<Option<VoterId>>,
    /// Groups that are stopped, whatever else is found.
    gone: Vec<bool>,
    /// Nodes to which groups would go back once they have been better for long enough.
    pub better: BTreeMap<GroupId, VoterId>,
}

impl<'w> Desk<'w> {
    /// Everything where it is, or where it is being moved to.
    pub fn new(world: &'w World, net: &'w Relations<'w>) -> Self {
        let at: Vec<Option<VoterId>> = net.groups.iter().map(|g| g.target.or(g.owner)).collect();
        let mut used: BTreeMap<VoterId, Amount> = world.nodes.keys().map(|n| (*n, Amount::ZERO)).collect();
        for (group, place) in net.groups.iter().zip(&at) {
            if let Some(used) = place.and_then(|n| used.get_mut(&n)) {
                *used = used.plus(group.constraints.needs);
            }
        }
        Self {
            world,
            net,
            why: vec![Why::Kept; at.len()],
            at,
            used,
            load: world.nodes.iter().map(|(n, node)| (*n, node.load)).collect(),
            went_back: BTreeSet::new(),
            freed: false,
            leaving: vec![None; net.ids.len()],
            gone: vec![false; net.ids.len()],
            better: BTreeMap::new(),
        }
    }

    /// Places everything. What leaves a node makes room, so it goes around until nothing changes.
    ///
    /// What has to be stopped keeps its room until all else is decided: else it might find a place after all, and wait for a group
    /// that waits for it.
    pub fn settle(&mut self) {
        self.go_around(true);
        for (m, node) in std::mem::take(&mut self.leaving).into_iter().enumerate() {
            self.leaving.push(None);
            if let Some(node) = node {
                self.gone[m] = true;
                self.give_back(m, node);
            }
        }
        if self.gone.contains(&true) {
            self.go_around(false);
        }
    }

    fn go_around(&mut self, failback: bool) {
        let bundles = self.net.bundles.len();
        let bound = |lists: &[Vec<usize>]| lists.iter().any(|l| !l.is_empty());
        let bound = bound(&self.net.with) || bound(&self.net.apart) || bound(&self.net.after);
        for _ in 0..2 * bundles + 2 {
            let mut changed = false;
            self.freed = false;
            for number in 0..bundles {
                changed |= self.place(number);
            }
            for number in (0..bundles).filter(|_| failback) {
                changed |= self.go_back(number);
            }
            if !changed || !(self.freed || bound) {
                return;
            }
        }
    }

    /// Decides about a bundle that has no place, or may not keep its own. Returns whether anything changed.
    fn place(&mut self, number: usize) -> bool {
        let net = self.net;
        let bundle = &net.bundles[number];
        let lead = bundle.lead();
        let group = net.groups[lead];
        if let Some(halt) = group.halt.filter(|h| group.owner.is_none() || *h == Halt::Stopped) {
            self.why[lead] = Why::Halted(halt);
            return self.put(bundle, None);
        }
        if self.gone[lead] {
            return self.put(bundle, None);
        }
        let ordered = group.order.filter(|_| !self.went_back.contains(&number));
        if let Some(to) = ordered.filter(|to| self.at[lead] != Some(*to) && group.target.is_none()) {
            let trial = self.trial(bundle, to);
            if trial.possible() && !self.must_stay(lead, to) {
                self.went_back.insert(number);
                self.why[lead] = Why::Ordered;
                return self.put(bundle, Some(trial));
            }
        }
        let Some(node) = self.at[lead] else {
            if let Some(first) = self.unstartable(lead) {
                self.why[lead] = Why::After(first);
                return self.put(bundle, None);
            }
            return self.choose(bundle, None);
        };
        if group.target.is_some() {
            self.why[lead] = Why::Moving;
        } else if let Some(halt) = group.halt.filter(|h| !matches!(h, Halt::Draining(_))) {
            self.why[lead] = Why::Halted(halt);
        } else if let Some(other) = self.ousted(number, node) {
            if let Some(first) = self.unstartable(lead) {
                self.why[lead] = Why::After(first);
                return self.put(bundle, None);
            }
            return self.choose(bundle, Some((node, Some(other))));
        } else if self.world.nodes.get(&node).is_some_and(|n| n.standby) {
            let Some(first) = self.unstartable(lead) else {
                return self.choose(bundle, Some((node, None)));
            };
            // Stopped there, it could not be started elsewhere.
            self.why[lead] = Why::After(first);
        } else if !matches!(self.why[lead], Why::Kept) && group.owner == Some(node) {
            self.why[lead] = Why::Kept;
        }
        let trial = self.trial(bundle, node);
        self.put(bundle, Some(Trial { there: keep_lead(trial.there), ..trial }))
    }

    /// Chooses a node for a bundle; `from` is the one that it has to leave, and for the sake of which group.
    fn choose(&mut self, bundle: &Bundle, from: Option<(VoterId, Option<usize>)>) -> bool {
        let lead = bundle.lead();
        let left = from.map(|(node, _)| node);
        let mut against = BTreeMap::new();
        let mut best: Option<Trial> = None;
        for node in self.world.nodes.keys().filter(|n| Some(**n) != left) {
            let trial = self.trial(bundle, *node);
            if !trial.possible() {
                against.insert(*node, trial.obstacles.into_iter().next().unwrap_or_default());
            } else if best.as_ref().is_none_or(|b| self.cost(&trial) < self.cost(b)) {
                best = Some(trial);
            }
        }
        match (best, from) {
            (Some(best), _) if from.is_none() || !self.must_stay(lead, best.node) => {
                self.why[lead] = Why::Chosen { score: best.score };
                self.put(bundle, Some(best))
            }
            (_, Some((_, Some(other)))) if !self.must_stay(lead, VoterId(0)) => {
                self.why[lead] = Why::Ousted(self.net.ids[other].clone());
                self.put(bundle, None)
            }
            (best, Some((node, _))) => {
                let held = self.net.groups[lead].halt.filter(|_| best.is_some());
                self.why[lead] = held.map_or(Why::NowhereElse(against), Why::Halted);
                let trial = self.trial(bundle, node);
                self.put(bundle, Some(Trial { there: keep_lead(trial.there), ..trial }))
            }
            (_, None) => {
                self.why[lead] = Why::Nowhere(against);
                self.put(bundle, None)
            }
        }
    }

    /// Lets a bundle go back to a better node, if it may and loses nobody on the way.
    fn go_back(&mut self, number: usize) -> bool {
        let net = self.net;
        let bundle = &net.bundles[number];
        let lead = bundle.lead();
        let group = net.groups[lead];
        let Some(node) = self.at[lead].filter(|_| group.failback != Failback::Off && group.target.is_none()) else {
            return false;
        };
        let placed_now = group.owner.is_none() || self.went_back.contains(&number);
        let held = group.halt.is_some_and(|h| !matches!(h, Halt::Draining(_)));
        if placed_now || self.world.nodes.get(&node).is_some_and(|n| n.standby) {
            return false;
        }
        let here = self.trial(bundle, node);
        let others = self.world.nodes.keys().filter(|n| **n != node).map(|n| self.trial(bundle, *n));
        let best = others.filter(Trial::possible).min_by_key(|t| self.cost(t));
        let leads = |t: &Trial| t.missing <= here.missing && t.score > here.score.saturating_add(group.stickiness);
        let Some(best) = best.filter(leads) else {
            return false;
        };
        let ripe = match group.failback {
            Failback::Now => true,
            Failback::Ripe(node) => node == Some(best.node),
            Failback::Off => false,
        };
        self.better.insert(net.ids[lead].clone(), best.node);
        if !ripe || held || self.must_stay(lead, best.node) || self.would_wait(bundle) {
            return false;
        }
        self.went_back.insert(number);
        self.why[lead] = Why::Back { score: best.score };
        self.put(bundle, Some(best))
    }

    /// What a group comes after and has no place: the group could not be started.
    fn unstartable(&self, group: usize) -> Option<GroupId> {
        self.net.after[group].iter().find(|a| self.at[**a].is_none()).map(|a| self.net.ids[*a].clone())
    }

    /// Whether a member would have to wait for another group if it were moved now.
    fn would_wait(&self, bundle: &Bundle) -> bool {
        let runs = |a: &usize| self.net.groups[*a].running && self.net.groups[*a].owner == self.at[*a];
        bundle.members.iter().any(|m| self.net.after[*m].iter().any(|a| !runs(a)))
    }

    /// What counts when nodes are compared; the least is best.
    fn cost(&self, trial: &Trial) -> impl Ord + use<> {
        let load = self.load.get(&trial.node).copied().unwrap_or(0);
        (trial.missing, trial.unready, trial.moves, Reverse(trial.score), load, trial.node)
    }

    /// Whether what keeps a group forbids that it goes to `to`.
    fn must_stay(&self, group: usize, to: VoterId) -> bool {
        match self.net.groups[group].halt {
            None | Some(Halt::Stopped) => false,
            Some(Halt::Draining(node)) => node != to,
            Some(_) => true,
        }
    }

    /// The group for which this bundle has to leave the node: one that it keeps away from, and that comes first or cannot move.
    fn ousted(&self, number: usize, node: VoterId) -> Option<usize> {
        let net = self.net;
        let members = net.bundles[number].members.iter().filter(|m| self.at[**m] == Some(node));
        let others = members.flat_map(|m| &net.apart[*m]).copied();
        others.into_iter().find(|o| self.at[*o] == Some(node) && self.goes_first(*o, number))
    }

    /// Whether a group keeps a node that it must not share with one of the bundle.
    fn goes_first(&self, other: usize, number: usize) -> bool {
        let of = self.net.bundle_of[other];
        let fixed = self.net.groups[other].target.is_some() || self.must_stay(other, VoterId(0));
        of < number || (of > number && fixed)
    }

    /// Writes a trial down; `None` puts the whole bundle nowhere. Returns whether anybody's place changed.
    fn put(&mut self, bundle: &Bundle, trial: Option<Trial>) -> bool {
        let net = self.net;
        let mut changed = false;
        for (position, &m) in bundle.members.iter().enumerate() {
            let group = net.groups[m];
            let to = trial.as_ref().filter(|t| t.there[position]).map(|t| t.node);
            if position > 0 {
                let (to, why) = self.followed(m, to, trial.as_ref().map(|t| &t.obstacles[position]), bundle);
                self.why[m] = why;
                changed |= self.set(m, to);
            } else {
                // A group that moves already, or must not be touched, stays so, whatever is to be said of it.
                let kept = group.target.is_some() || (to.is_none() && self.must_stay(m, VoterId(0)));
                changed |= self.set(m, if kept { self.at[m] } else { to });
            }
        }
        changed
    }

    /// Where a group that follows others goes, and why.
    fn followed(
        &self,
        m: usize,
        to: Option<VoterId>,
        obstacles: Option<&Vec<Obstacle>>,
        bundle: &Bundle,
    ) -> (Option<VoterId>, Why) {
        let group = self.net.groups[m];
        let lead = self.net.with[m].first().copied().unwrap_or(bundle.lead());
        if group.target.is_some() {
            return (self.at[m], Why::Moving);
        }
        if let Some(halt) = group.halt.filter(|h| to.is_none() && *h != Halt::Stopped && group.owner.is_some()) {
            return (self.at[m], Why::Halted(halt));
        }
        match (to, obstacles) {
            (Some(to), _) => (Some(to), Why::Follows(self.net.ids[lead].clone())),
            (None, Some(obstacles)) => (None, Why::NotWith(self.net.ids[lead].clone(), obstacles.clone())),
            (None, None) => (None, Why::NotWith(self.net.ids[lead].clone(), Vec::new())),
        }
    }

    fn set(&mut self, m: usize, to: Option<VoterId>) -> bool {
        let from = std::mem::replace(&mut self.at[m], to);
        if from == to {
            return false;
        }
        self.freed |= from.is_some();
        let group = self.net.groups[m];
        let stopping = to.is_none() && group.owner.is_some() && group.halt != Some(Halt::Stopped);
        let left = self.leaving[m].take().or(from);
        match left {
            Some(node) if stopping => self.leaving[m] = Some(node),
            Some(node) => self.give_back(m, node),
            None => {}
        }
        if let Some(load) = from.and_then(|n| self.load.get_mut(&n)) {
            *load = load.saturating_sub(1);
        }
        if let Some(used) = to.and_then(|n| self.used.get_mut(&n)) {
            *used = used.plus(group.constraints.needs);
        }
        if let Some(load) = to.and_then(|n| self.load.get_mut(&n)) {
            *load += 1;
        }
        true
    }

    /// The room that a group took on a node is free again.
    fn give_back(&mut self, m: usize, node: VoterId) {
        if let Some(used) = self.used.get_mut(&node) {
            *used = used.minus(self.net.groups[m].constraints.needs);
        }
    }

    /// What stands against a group's move by order, its followers included.
    pub fn against_order(&mut self, group: usize, to: VoterId) -> Vec<Obstacle> {
        let net = self.net;
        let bundle = &net.bundles[net.bundle_of[group]];
        let partners = net.with[group].iter().filter(|p| **p != group && self.at[**p] != Some(to));
        let mut obstacles: Vec<Obstacle> = partners.map(|p| Obstacle::Without(net.ids[*p].clone())).collect();
        let stopped = net.after[group].iter().filter(|a| !net.groups[**a].running);
        obstacles.extend(stopped.map(|a| Obstacle::After(net.ids[*a].clone())));
        // Whoever follows somebody goes alone, if at all.
        if !net.with[group].is_empty() {
            return obstacles;
        }
        let trial = self.trial(bundle, to);
        for (position, found) in trial.obstacles.into_iter().enumerate() {
            let member = bundle.members[position];
            if member == group {
                // How the node is was asked already.
                obstacles.extend(found.into_iter().filter(|o| !matches!(o, Obstacle::Unfit(_))));
                continue;
            }
            let why = net.groups[member].against.get(&to);
            let unready = why.is_some_and(|w| w.contains(&Unfit::Unready)).then_some(Obstacle::Unfit(Unfit::Unready));
            let found: Vec<Obstacle> = found.into_iter().chain(unready).collect();
            if self.at[member].is_some() && !found.is_empty() {
                obstacles.push(Obstacle::Left(net.ids[member].clone(), found));
            }
        }
        obstacles
    }
}

/// A group that stays is there, whatever stands against it.
fn keep_lead(mut there: Vec<bool>) -> Vec<bool> {
    if let Some(lead) = there.first_mut() {
        *lead = true;
    }
    there
}
