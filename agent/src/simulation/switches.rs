//! Operators who flip switches at random: maintenance, groups that are stopped and started.
//!
//! They come from a source of chance of their own, in one world of three; each switch is most often taken back after a while,
//! and what is still on when the faults stop is switched off then.

use super::{
    machine::Item,
    random::Random,
    world::{Event, World},
};
use crate::cluster::{
    entry::{Scope, Switch},
    ids::{Role, VoterId},
    message::Order,
};

/// In a thousand: how often a switch that is on is switched off, rather than another one on.
const BACK: u64 = 600;

impl World {
    /// Whether a seed has operators who flip switches, and their source of chance.
    pub fn switches(seed: u64) -> Option<Random> {
        (seed % 3 == 1).then(|| Random::new(seed, 5))
    }

    /// Somebody flips a switch, and the next one is planned.
    pub fn flip(&mut self) {
        let hold = self.timing.hold_ns();
        let nodes: Vec<VoterId> =
            self.voters.iter().filter(|(_, role)| *role == Role::Node).map(|(voter, _)| *voter).collect();
        let on: Vec<Switch> =
            self.checker.newest().map_or_else(Vec::new, |state| state.switches.iter().cloned().collect());
        let Some(random) = self.switches.as_mut().filter(|_| !self.calm) else {
            return;
        };
        let back = !on.is_empty() && random.per_mille(BACK);
        let group = self.group_ids[random.index(self.group_ids.len())].clone();
        let what = match random.below(8) {
            _ if back => on[random.index(on.len())].clone(),
            0 => Switch::Maintenance(Scope::Cluster),
            1 | 2 => Switch::Maintenance(Scope::Node(nodes[random.index(nodes.len())])),
            3 => Switch::Maintenance(Scope::Group(group)),
            4 => Switch::Unmanaged(group, "data".to_owned()),
            _ => Switch::Stopped(group),
        };
        let at = random.index(self.machines.len());
        let next = self.now + random.spread(hold / 2, 8 * hold);
        let order = Order::Switch { what, on: !back };
        self.note(Some(at), || format!("! operator: {order:?}"));
        self.queue.push(self.now, Event::Tell(at, Box::new(Item::Order(order))));
        if next < self.plan.until {
            self.queue.push(next, Event::Switch);
        }
    }
}
