//! Suppositions: a world in which something has happened, for `baton plan` and the tests.

use super::{
    Unfit,
    world::{Failback, World},
};
use crate::cluster::ids::{GroupId, VoterId};

impl World {
    /// A node that died: its groups need another, and whatever moved there does not.
    pub fn lose(&mut self, node: VoterId) {
        for group in self.groups.values_mut() {
            if group.owner == Some(node) {
                group.owner = None;
                group.running = false;
                group.order = group.target.take();
            }
            group.target = group.target.filter(|to| *to != node);
            group.order = group.order.filter(|to| *to != node);
            rule_out(group.against.entry(node).or_default(), Unfit::Silent);
        }
    }

    /// A node that an operator put on standby.
    pub fn put_on_standby(&mut self, node: VoterId) {
        if let Some(n) = self.nodes.get_mut(&node) {
            n.standby = true;
        }
        for group in self.groups.values_mut() {
            rule_out(group.against.entry(node).or_default(), Unfit::Standby);
        }
    }

    /// A group that an operator ordered to a node; [`super::against_order`] says whether he may.
    pub fn order(&mut self, group: &GroupId, to: VoterId) {
        if let Some(group) = self.groups.get_mut(group) {
            group.order = Some(to);
            // Else it would go back in the same plan.
            group.failback = Failback::Off;
        }
    }

    /// The world after every step of its plan.
    #[must_use]
    pub fn after(&self, plan: &super::Plan) -> Self {
        let mut world = self.clone();
        for (id, group) in &mut world.groups {
            group.owner = plan.places.get(id).and_then(|p| p.node);
            group.target = None;
            group.order = None;
            group.running = group.owner.is_some();
        }
        let owners: Vec<VoterId> = world.groups.values().filter_map(|g| g.owner).collect();
        for (id, node) in &mut world.nodes {
            node.load = owners.iter().filter(|o| *o == id).count();
        }
        world
    }
}

fn rule_out(against: &mut Vec<Unfit>, why: Unfit) {
    if !against.contains(&why) {
        against.push(why);
    }
}
