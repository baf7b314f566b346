//! After the faults: every group must get an owner that really serves, everybody must catch up, and then nothing may change.

use super::{
    machine::Running,
    raft::Raft,
    world::{Event, World},
};
use crate::cluster::{
    command::GateRole,
    ids::{Index, VoterId},
    message::Order,
};

/// Every group must be served for good, and everybody have caught up, within this time after the faults stop (true time).
pub const RECOVERY_MAX_NS: u64 = 4_000_000_000;
/// The leader must be off the owners within this time: a transfer that failed is tried again after some seconds.
pub const SETTLED_MAX_NS: u64 = 9_000_000_000;
/// A node refuses a group that failed there for half a minute; that is waited for where a start has failed.
pub const REFUSAL_MAX_NS: u64 = 36_000_000_000;
/// All is well once nothing has changed for this time.
const STEADY_NS: u64 = 400_000_000;
/// Between two looks.
const LOOK_NS: u64 = 5_000_000;

impl World {
    /// Looks whether all is well, and again a little later.
    pub fn look(&mut self) {
        let since_calm = self.now - self.plan.until;
        let refused = if self.checker.statistics.failed_starts > 0 { REFUSAL_MAX_NS } else { 0 };
        let unserved = self.missing();
        // A group that goes back to a better node later is moved on purpose: what was steady once has recovered.
        let steady = self.served_since.is_some_and(|since| self.now >= since + STEADY_NS);
        match (&unserved, self.served_since) {
            (None, None) => self.served_since = Some(self.now),
            (Some(_), _) if !steady => self.served_since = None,
            _ => {}
        }
        let served = self.served_since.map_or(since_calm, |since| since - self.plan.until);
        if served > RECOVERY_MAX_NS + refused {
            let what = unserved.unwrap_or_else(|| "it came too late".to_owned());
            self.give_up(served, &what);
            return;
        }
        let index = self.checker.newest_index();
        let missing = unserved.or_else(|| self.missing_leader());
        match (&missing, self.well_since) {
            (Some(_), _) => self.well_since = None,
            (None, Some((_, known))) if known == index => {}
            (None, _) => self.well_since = Some((self.now, index)),
        }
        if let Some((since, _)) = self.well_since
            && self.now >= since + STEADY_NS
        {
            self.checker.statistics.recovery_ns = served;
            self.checker.statistics.settled_ns = since - self.plan.until;
            self.done = true;
            return;
        }
        if since_calm > SETTLED_MAX_NS + refused {
            let what = missing.unwrap_or_else(|| "entries are still being committed".to_owned());
            self.give_up(since_calm, &what);
            return;
        }
        self.take_back();
        self.queue.push(self.now + LOOK_NS, Event::Look);
    }

    fn give_up(&mut self, waited: u64, what: &str) {
        self.checker.stuck(self.now, format!("no recovery within {} ms: {what}", waited / 1_000_000));
    }

    /// Operators end what they ordered.
    fn take_back(&mut self) {
        let waiting = self
            .checker
            .newest()
            .and_then(|state| state.voters.iter().find(|(_, voter)| voter.standby).map(|(&node, _)| node));
        if let Some(node) = waiting
            && (self.now / LOOK_NS).is_multiple_of(10)
        {
            self.order(Order::Standby { node, on: false });
        }
        let on: Vec<_> = self.checker.newest().map_or_else(Vec::new, |state| state.switches.iter().cloned().collect());
        if (self.now / LOOK_NS).is_multiple_of(10) {
            for what in on {
                self.order(Order::Switch { what, on: false });
            }
        }
    }

    /// What is not well yet.
    fn missing(&self) -> Option<String> {
        let Some(state) = self.checker.newest() else {
            return Some("nothing was ever committed".to_owned());
        };
        if state.groups.len() != self.groups.len() {
            return Some(format!("{} of {} groups exist", state.groups.len(), self.groups.len()));
        }
        for (slot, id) in self.group_ids.iter().enumerate() {
            let group = state.groups.get(id)?;
            let Some(owner) = group.owner else {
                return Some(format!("{id} has no owner"));
            };
            let at = Self::position(owner);
            let machine = self.machines.get(at)?;
            if !matches!(machine.role(slot, self.now), GateRole::Owner { .. }) {
                return Some(format!("{id} is owned by {owner}, which does not serve it"));
            }
            if machine.kernel.as_ref()?.gates.get(slot)?.0 != group.epoch {
                return Some(format!("{id} is served by {owner} in another epoch"));
            }
            if self.running(at, slot) != Some(Running::Started(group.epoch)) {
                return Some(format!(
                    "{id} is owned by {owner}, where its resources do not run: {:?}",
                    self.running(at, slot)
                ));
            }
            if group.movement.is_some() {
                return Some(format!("{id} is still being moved"));
            }
            if let Some(node) = group.drain {
                return Some(format!("{id} still drains on {node}"));
            }
        }
        if let Some((voter, _)) = state.voters.iter().find(|(_, voter)| voter.standby) {
            return Some(format!("{voter} is still on standby"));
        }
        if let Some(switch) = state.switches.first() {
            return Some(format!("{switch:?} is still on"));
        }
        self.missing_of_machines()
    }

    fn missing_of_machines(&self) -> Option<String> {
        let index = self.checker.newest_index();
        for machine in &self.machines {
            let (Some(kernel), Some(agent)) = (&machine.kernel, &machine.agent) else {
                return Some(format!("no agent runs on {}", machine.id));
            };
            let applied = agent.core.state().applied;
            if applied != index || kernel.control.gate_index < index {
                return Some(format!(
                    "{} has applied {applied} and its gate {} of {index} entries",
                    machine.id, kernel.control.gate_index
                ));
            }
            let infinite = self
                .voters
                .iter()
                .map(|(voter, _)| *voter)
                .find(|&peer| peer != machine.id && kernel.floor(peer) == Index::MAX);
            if let Some(peer) = infinite {
                return Some(format!("the floor of {} for {peer} is infinite", machine.id));
            }
            if machine.local(self.now) >= kernel.control.lease_end {
                return Some(format!("{} holds no lease", machine.id));
            }
        }
        None
    }

    fn missing_leader(&self) -> Option<String> {
        let leads = |raft: &Raft| raft.leading() == Some(false);
        let newest = self.machines.iter().filter_map(|m| m.agent.as_ref()).map(|a| a.raft.status().1).max()?;
        let leader = self.machines.iter().find(|machine| {
            machine.agent.as_ref().is_some_and(|agent| leads(&agent.raft) && agent.raft.status().1 == newest)
        });
        let Some(leader) = leader else {
            return Some("there is no working leader".to_owned());
        };
        let state = self.checker.newest()?;
        let owns = |voter: VoterId| state.groups.values().any(|group| group.owner == Some(voter));
        if owns(leader.id) && self.voters.iter().any(|(voter, _)| !owns(*voter)) {
            return Some(format!("the leader {} owns a group although somebody else could lead", leader.id));
        }
        None
    }
}
