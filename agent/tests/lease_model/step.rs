//! What each action does.

use super::bounds::Bounds;
use super::facts::Fact;
use super::log::{Id, Movement, NODES, Shared};
use super::model::{Action, Lease};
use super::rules::Rule;
use super::state::{Handling, INFINITE, Node, State};

impl Node {
    /// The epoch for which the gate shall be open, by a state of the log; 0 for closed.
    pub fn right(&self, view: &Shared, node: Id) -> u8 {
        let diverted = self.diverted != 0 && view.movement.is_some_and(|m| m.id == self.diverted);
        if view.owned_by(node) && self.released != view.epoch && !diverted { view.epoch } else { 0 }
    }
}

impl State {
    /// Carries `action` out.
    pub fn step(&mut self, model: &Lease, action: Action) {
        match action {
            Action::Tick(missed) => self.tick(model, missed),
            Action::Check(voter, node, age) => {
                let index = if age == 0 { self.index_in_beat(model, node) } else { self.nodes[node].earlier_index };
                if self.floor_passes(model, voter, node, index) {
                    let (voter, node) = (voter as u8, node as u8);
                    self.handling = Some(Handling { voter, node, age, index, half: false });
                }
            }
            Action::Handle => self.handle(model),
            Action::Hear(node) => {
                let node = &mut self.nodes[node];
                let Some(age) = node.acknowledged.take() else {
                    return;
                };
                let left = if model.on(Rule::DepartureStamp) { model.bounds.lease - age } else { model.bounds.lease };
                node.lease = node.lease.max(left);
            }
            Action::Renew(voter, node) => {
                if self.floor_passes(model, voter, node, self.index_in_beat(model, node)) {
                    self.voters[voter].since[node] = 0;
                    self.nodes[node].lease = model.bounds.lease;
                }
            }
            Action::Apply(machine) => self.apply(model, machine),
            Action::Gate(node) => {
                let right = self.nodes[node].right(self.applied(node), node);
                self.nodes[node].open = right;
                self.nodes[node].gate_index = self.voters[node].applied;
            }
            Action::ReadEarly(voter, node) => self.voters[voter].read_early[node] = true,
            Action::Raise(voter, node) => {
                self.voters[voter].promising[node] = true;
                self.set_floors(model, voter);
            }
            Action::Promise(voter, node) => {
                self.voters[voter].promising[node] = true;
                self.set_floors(model, voter);
                let last = self.applied(voter).concluded[node];
                let incarnation = self.voters[voter].incarnation;
                self.say(model, Fact::Promise { voter: voter as u8, node: node as u8, last, incarnation });
            }
            Action::Release(node) => {
                let epoch = self.applied(node).epoch;
                self.left.releases -= 1;
                if model.on(Rule::CloseBeforeRelease) {
                    self.nodes[node].open = 0;
                    self.nodes[node].released = epoch;
                }
                let incarnation = self.voters[node].incarnation;
                self.say(model, Fact::Release { node: node as u8, epoch, incarnation });
            }
            Action::Divert(node) => {
                if let Some(movement) = self.applied(node).movement {
                    if model.on(Rule::CloseBeforeDiverted) {
                        self.nodes[node].open = 0;
                        self.nodes[node].diverted = movement.id;
                    }
                    let (epoch, incarnation) = (self.applied(node).epoch, self.voters[node].incarnation);
                    self.say(model, Fact::Diverted { id: movement.id, epoch, to: movement.to, incarnation });
                }
            }
            Action::RestartAgent(machine) => {
                self.left.restarts -= 1;
                self.restart(model, machine);
            }
            Action::RestartHost(machine) => {
                self.left.restarts -= 1;
                self.lose_maps(model, machine);
                self.restart(model, machine);
            }
            Action::Commit(entry) => {
                if let Some(state) = self.committed().apply(self.head + 1, &entry, model.off) {
                    self.left.spend(&entry);
                    self.head += 1;
                    self.log[usize::from(self.head)] = state;
                    self.facts.prune(&state, model.off);
                }
            }
        }
    }

    fn tick(&mut self, model: &Lease, missed: u8) {
        let Bounds { lease, hold, drift, .. } = model.bounds;
        self.phase = if drift == 0 { 0 } else { (self.phase + 1) % drift };
        for since in self.voters.iter_mut().flat_map(|v| &mut v.since) {
            *since = hold.min(*since + 1);
        }
        for node in (0..NODES).filter(|n| missed & 1 << n == 0) {
            // A beat as old as the lease can renew nothing: its loss is the same.
            let older = |age: u8| (age + 1 < lease).then_some(age + 1);
            let owner = &mut self.nodes[node];
            owner.lease = owner.lease.saturating_sub(1);
            owner.earlier_index = owner.gate_index;
            owner.acknowledged = owner.acknowledged.and_then(older);
            if let Some(handling) = self.handling.filter(|h| usize::from(h.node) == node) {
                self.handling = older(handling.age).map(|age| Handling { age, ..handling });
            }
        }
    }

    fn index_in_beat(&self, model: &Lease, node: Id) -> u8 {
        if model.on(Rule::BeatCarriesGateIndex) { self.nodes[node].gate_index } else { self.voters[node].applied }
    }

    fn floor_passes(&self, model: &Lease, voter: Id, node: Id, index: u8) -> bool {
        let floor = self.voters[voter].floor[node];
        if model.on(Rule::FloorChecksIndex) { index >= floor } else { floor != INFINITE }
    }

    /// The program: exchange R, check the floor again, answer; or the other way round without the rule.
    fn handle(&mut self, model: &Lease) {
        let Some(handling) = self.handling else {
            return;
        };
        let (voter, node) = (usize::from(handling.voter), usize::from(handling.node));
        let exchange = handling.half != model.on(Rule::ExchangeBeforeAnswer);
        if exchange {
            self.voters[voter].since[node] = 0;
        } else if !model.on(Rule::SecondFloorCheck) || self.floor_passes(model, voter, node, handling.index) {
            let youngest = self.nodes[node].acknowledged.map_or(handling.age, |age| age.min(handling.age));
            self.nodes[node].acknowledged = Some(youngest);
        }
        self.handling = if handling.half { None } else { Some(Handling { half: true, ..handling }) };
    }

    fn apply(&mut self, model: &Lease, machine: Id) {
        let before = *self.applied(machine);
        let was_past = self.past_barrier(machine, model.off);
        self.voters[machine].applied += 1;
        let after = *self.applied(machine);
        let past = self.past_barrier(machine, model.off);
        let voter = &mut self.voters[machine];
        if past && !was_past && model.on(Rule::HoldAfterBarrier) {
            voter.since = [0; NODES];
        }
        for node in 0..NODES {
            if before.concluded[node] != after.concluded[node] {
                voter.promising[node] = false;
                voter.read_early[node] = false;
            }
        }
        if past {
            self.set_floors(model, machine);
            self.propose_ready(model, machine);
        }
    }

    /// A target says that it is ready as soon as it can: that it does so later is the same as that it arrives later.
    fn propose_ready(&mut self, model: &Lease, machine: Id) {
        let (view, incarnation) = (*self.applied(machine), self.voters[machine].incarnation);
        let wanted = |m: &Movement| usize::from(m.to) == machine && !m.ready && m.to_incarnation == incarnation;
        if let Some(movement) = view.movement.filter(wanted) {
            self.say(model, Fact::Ready { id: movement.id, epoch: view.epoch, to: movement.to, incarnation });
        }
    }

    fn set_floors(&mut self, model: &Lease, machine: Id) {
        let concluded = self.applied(machine).concluded;
        let voter = &mut self.voters[machine];
        for node in (0..NODES).filter(|node| *node != machine) {
            let infinite = voter.promising[node] && model.on(Rule::PromiseRaisesFloor);
            voter.floor[node] = if infinite { INFINITE } else { concluded[node] };
        }
    }

    /// The maps in the kernel go with the host: gate, lease, floors and R.
    fn lose_maps(&mut self, model: &Lease, machine: Id) {
        self.handling = self.handling.filter(|h| usize::from(h.voter) != machine);
        let voter = &mut self.voters[machine];
        voter.since = [model.bounds.hold; NODES];
        let floor = if model.on(Rule::FloorAfterRestart) { INFINITE } else { 0 };
        for node in (0..NODES).filter(|node| *node != machine) {
            voter.floor[node] = floor;
        }
        if let Some(owner) = self.nodes.get_mut(machine) {
            owner.lease = 0;
            owner.open = 0;
            owner.gate_index = 0;
        }
    }

    fn restart(&mut self, model: &Lease, machine: Id) {
        let voter = &mut self.voters[machine];
        voter.promising = [false; NODES];
        voter.read_early = [false; NODES];
        if model.on(Rule::Barrier) {
            voter.incarnation += 1;
        } else {
            // Everything else of rule 5 still holds: the floors are those of the log, the holds start afresh.
            voter.since = [0; NODES];
            self.set_floors(model, machine);
        }
        if let Some(owner) = self.nodes.get_mut(machine) {
            owner.released = 0;
            owner.diverted = 0;
            // The new incarnation ignores what answers the old one.
            owner.earlier_index = owner.gate_index;
            owner.acknowledged = None;
            self.handling = self.handling.filter(|h| usize::from(h.node) != machine);
        }
    }

    fn say(&mut self, model: &Lease, fact: Fact) {
        self.facts.insert(fact);
        let head = *self.committed();
        self.facts.prune(&head, model.off);
    }
}
