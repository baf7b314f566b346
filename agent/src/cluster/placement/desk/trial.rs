//! What would become of a bundle on a node: the heart of every decision.

use super::Desk;
use crate::cluster::{
    ids::VoterId,
    placement::{Unfit, plan::Obstacle, relations::Bundle, takes, world::Halt},
};

/// What became of one bundle on one node, if it were put there.
pub(super) struct Trial {
    pub node: VoterId,
    /// Which members would be there, in the bundle's order.
    pub there: Vec<bool>,
    /// What stands against the others.
    pub obstacles: Vec<Vec<Obstacle>>,
    pub missing: usize,
    pub unready: usize,
    pub moves: usize,
    pub score: i64,
}

impl Trial {
    /// Whether the group that chooses the node could be there.
    pub fn possible(&self) -> bool {
        self.there.first() == Some(&true)
    }
}

impl Desk<'_> {
    /// What would become of the bundle on a node.
    pub(super) fn trial(&self, bundle: &Bundle, node: VoterId) -> Trial {
        let net = self.net;
        let number = net.bundle_of[bundle.lead()];
        let mut used = self.used.get(&node).copied().unwrap_or_default();
        let room = self.world.nodes.get(&node).map(|n| n.room).unwrap_or_default();
        let mut trial = Trial {
            node,
            there: Vec::with_capacity(bundle.members.len()),
            obstacles: Vec::with_capacity(bundle.members.len()),
            missing: 0,
            unready: 0,
            moves: 0,
            score: 0,
        };
        for (position, &m) in bundle.members.iter().enumerate() {
            let group = net.groups[m];
            let mut obstacles = Vec::new();
            let here = self.at[m] == Some(node);
            match group.against.get(&node) {
                // Whoever serves there already is not asked to be fit.
                _ if here => {}
                None => obstacles.push(Obstacle::Unfit(Unfit::NotAllowed)),
                Some(why) if takes(why) => {}
                Some(why) => obstacles.extend(why.iter().map(|w| Obstacle::Unfit(*w))),
            }
            let is_there = |o: &usize| match bundle.members.iter().position(|b| b == o) {
                Some(p) => trial.there.get(p) == Some(&true),
                None => self.at[*o] == Some(node),
            };
            // Whoever is there already stays, if the other is to leave.
            let yields = |o: &usize| here && net.bundle_of[*o] != number && !self.goes_first(*o, number);
            let conflicts = net.apart[m].iter().filter(|o| is_there(o) && !yields(o));
            obstacles.extend(conflicts.map(|o| Obstacle::Apart(net.ids[*o].clone())));
            let takes_room = here || self.leaving[m] == Some(node);
            if !takes_room && !room.holds(used, group.constraints.needs) {
                obstacles.push(Obstacle::Room { needs: group.constraints.needs, used, room });
            }
            if position > 0 {
                let absent = net.with[m].iter().filter(|p| **p != m && !is_there(p));
                obstacles.extend(absent.map(|p| Obstacle::Without(net.ids[*p].clone())));
                let first = net.after[m].iter().find(|a| self.at[**a].is_none() && !is_there(a));
                obstacles.extend(first.filter(|_| !here).map(|a| Obstacle::After(net.ids[*a].clone())));
                match group.halt {
                    Some(halt) if group.owner.is_none() || halt == Halt::Stopped => {
                        obstacles.push(Obstacle::Halted(halt));
                    }
                    Some(halt) if !here && self.must_stay(m, node) => obstacles.push(Obstacle::Halted(halt)),
                    _ => {}
                }
            }
            if self.gone[m] && obstacles.is_empty() {
                obstacles.push(Obstacle::Stopping);
            }
            if obstacles.is_empty() {
                used = if takes_room { used } else { used.plus(group.constraints.needs) };
                trial.score += group.scores.get(&node).copied().unwrap_or(0);
                let unready = |why: &Vec<Unfit>| why.contains(&Unfit::Unready);
                trial.unready += usize::from(group.against.get(&node).is_some_and(unready));
                trial.moves += usize::from(position > 0 && !here && self.at[m].is_some());
            } else {
                trial.missing += 1;
            }
            trial.there.push(obstacles.is_empty());
            trial.obstacles.push(obstacles);
        }
        trial
    }
}
