//! What operators have switched: maintenance, stopped groups, unmanaged resources (docs/safety.md, "Switches").
//!
//! A switch only ever takes rights away: of whoever gives groups to nodes, never of the rules that close a gate.

use std::{collections::BTreeSet, fmt};

use super::{Effect, State};
use crate::cluster::{
    entry::{Scope, Switch},
    ids::{GroupId, VoterId},
    refusal::Refusal,
};

/// Why a group stays where it is, or nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// An operator stopped it.
    Stopped,
    /// The cluster is in maintenance.
    Cluster,
    /// The group is in maintenance.
    Group,
    /// Its owner, or the node that owned it last, is in maintenance.
    Owner(VoterId),
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("it was stopped by an operator"),
            Self::Cluster => f.write_str("the cluster is in maintenance"),
            Self::Group => f.write_str("it is in maintenance"),
            Self::Owner(node) => write!(f, "node {node} is in maintenance"),
        }
    }
}

impl State {
    /// Whether an operator stopped the group: nobody shall own it.
    pub fn stopped(&self, group: &GroupId) -> bool {
        self.is_on(|| Switch::Stopped(group.clone()))
    }

    /// Why the group is in maintenance where it is, if it is: nothing of it is moved, started again or stopped on anybody's own accord.
    pub fn maintenance(&self, group: &GroupId) -> Option<Held> {
        let owner = self.groups.get(group).and_then(|g| g.owner).or_else(|| self.waiting.get(group).copied());
        if self.is_on(|| Switch::Maintenance(Scope::Cluster)) {
            Some(Held::Cluster)
        } else if self.is_on(|| Switch::Maintenance(Scope::Group(group.clone()))) {
            Some(Held::Group)
        } else {
            owner.filter(|node| self.in_maintenance(*node)).map(Held::Owner)
        }
    }

    /// Why nobody gives the group to a node on his own accord.
    pub fn held(&self, group: &GroupId) -> Option<Held> {
        if self.stopped(group) { Some(Held::Stopped) } else { self.maintenance(group) }
    }

    /// Whether the node itself is in maintenance: nothing is moved to it.
    pub fn in_maintenance(&self, node: VoterId) -> bool {
        self.is_on(|| Switch::Maintenance(Scope::Node(node)))
    }

    /// The resources of the group that nobody starts or stops.
    pub fn unmanaged(&self, group: &GroupId) -> BTreeSet<String> {
        let named = self.switches.iter().filter_map(|switch| match switch {
            Switch::Unmanaged(of, resource) if of == group => Some(resource.clone()),
            _ => None,
        });
        named.collect()
    }

    fn is_on(&self, switch: impl FnOnce() -> Switch) -> bool {
        !self.switches.is_empty() && self.switches.contains(&switch())
    }

    /// Whether the group may be given to the node now.
    pub(super) fn check_held(&self, group: &GroupId, to: VoterId) -> Result<(), Refusal> {
        if self.held(group).is_some() || self.in_maintenance(to) {
            return Err(Refusal::Held(group.clone()));
        }
        Ok(())
    }

    pub(super) fn switch(&mut self, what: &Switch, on: bool) -> Result<Vec<Effect>, Refusal> {
        match what {
            Switch::Maintenance(Scope::Cluster) => {}
            Switch::Maintenance(Scope::Node(node)) => self.may_own(*node)?,
            Switch::Maintenance(Scope::Group(group)) | Switch::Stopped(group) | Switch::Unmanaged(group, _) => {
                if !self.groups.contains_key(group) {
                    return Err(Refusal::UnknownGroup(group.clone()));
                }
            }
        }
        if let (Switch::Maintenance(Scope::Node(node)), false) = (what, on) {
            self.waiting.retain(|_, of| of != node);
        }
        let changed = if on { self.switches.insert(what.clone()) } else { self.switches.remove(what) };
        Ok(if changed { vec![Effect::Switched(what.clone(), on)] } else { Vec::new() })
    }

    /// The node has the group no longer, and nobody has. In maintenance of the node it waits for the end of that.
    pub(super) fn note_waiting(&mut self, group: &GroupId, node: VoterId) {
        if self.in_maintenance(node) {
            self.waiting.insert(group.clone(), node);
        }
    }

    /// The group is gone, and what was switched of it.
    pub(super) fn forget_switches(&mut self, group: &GroupId) {
        self.switches.retain(|switch| switch.group() != Some(group));
        self.waiting.remove(group);
    }
}
