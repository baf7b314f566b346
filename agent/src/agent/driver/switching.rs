//! The driver's part of the operators' switches: what the executor needs to know of them.

use std::collections::BTreeSet;

use super::Driver;
use crate::{
    agent::executor::Job,
    cluster::{
        entry::{Scope, Switch},
        ids::GroupId,
    },
};

impl Driver {
    /// Tells the executor what operators have switched since it was last told.
    pub(super) fn follow_switches(&mut self) {
        let state = self.core.state();
        if state.switches == self.switches {
            return;
        }
        let mine = self.facts.config.shared.groups.values().filter(|group| group.nodes.contains(&self.me));
        for group in mine.map(|group| &group.id) {
            let (was, is) = (self.mode(&self.switches, group), self.mode(&state.switches, group));
            if was != is {
                let (maintenance, unmanaged) = is;
                self.executor.send(Job::Mode { group: group.clone(), maintenance, unmanaged });
            }
        }
        self.switches.clone_from(&self.core.state().switches);
    }

    /// Whether the group is in maintenance on this node, and which of its resources are unmanaged.
    fn mode(&self, switches: &BTreeSet<Switch>, group: &GroupId) -> (bool, BTreeSet<String>) {
        let scopes = [Scope::Cluster, Scope::Node(self.me), Scope::Group(group.clone())];
        let maintenance = scopes.into_iter().any(|scope| switches.contains(&Switch::Maintenance(scope)));
        let unmanaged = switches.iter().filter_map(|switch| match switch {
            Switch::Unmanaged(of, resource) if of == group => Some(resource.clone()),
            _ => None,
        });
        (maintenance, unmanaged.collect())
    }

    /// Whether nothing of the group is stopped or moved here for a failure.
    pub(super) fn in_maintenance(&self, group: &GroupId) -> bool {
        self.mode(&self.core.state().switches, group).0
    }
}
