//! Planned restarts (docs/safety.md, rule 10): the agent ends and leaves a keeper, which beats on with what the gates hold; the
//! next agent adopts the gates, or finds that the keeper's time is over.
//!
//! They come from a source of chance of their own, in one world of three.

use std::collections::BTreeMap;

use super::{
    clock::Instant,
    kernel::{Beat, order},
    machine::{Agent, Item, Running},
    mutation::Mutation,
    random::Random,
    world::{Event, World},
};
use crate::cluster::{
    command::GateRole,
    ids::{Epoch, GroupId, Incarnation, Index, VoterId},
};

/// What beats for an agent that is away.
#[derive(Clone, Copy, Debug)]
pub struct Keeper {
    /// The incarnation of the agent that left it.
    incarnation: Incarnation,
    /// The number of its last beat.
    number: u64,
    token: u64,
    term: u64,
    log_index: Index,
    /// When it gives up (true time).
    until: Instant,
    /// Which keeper of the machine it is.
    life: u64,
}

impl World {
    /// Whether a seed has planned restarts, and their source of chance.
    pub fn upgrades(seed: u64) -> Option<Random> {
        seed.is_multiple_of(3).then(|| Random::new(seed, 4))
    }

    /// Somebody is told to restart, and the next one is planned.
    pub fn upgrade(&mut self) {
        let hold = self.timing.hold_ns();
        let Some(random) = self.upgrades.as_mut().filter(|_| !self.calm) else {
            return;
        };
        let any = random.index(self.machines.len());
        let slot = random.index(self.group_ids.len());
        let owner = self.checker.newest().and_then(|state| state.groups.get(&self.group_ids[slot])?.owner);
        let at = if random.per_mille(700) { owner.map_or(any, Self::position) } else { any };
        let next = self.now + random.spread(hold, 16 * hold);
        self.note(Some(at), || "! agent is told to restart".to_owned());
        self.queue.push(self.now, Event::Tell(at, Box::new(Item::Restart)));
        if next < self.plan.until {
            self.queue.push(next, Event::Upgrade);
        }
    }

    /// The agent has handed over what it led: it ends, and leaves a keeper and what runs.
    pub fn leave_keeper(&mut self, position: usize) {
        let hold = self.timing.hold_ns();
        let (until, back) =
            (self.now + self.random.spread(hold, 20 * hold), self.now + self.random.spread(hold / 10, 10 * hold));
        let Some(machine) = self.machines.get_mut(position) else {
            return;
        };
        let (Some(kernel), Some(agent)) = (machine.kernel.as_ref(), machine.agent.as_ref()) else {
            return;
        };
        let control = kernel.control;
        let (life, incarnation, number) = (machine.generation, control.incarnation, agent.beat);
        let (token, term, log_index) = (control.token, control.term, control.log_index);
        machine.left = agent.running.clone();
        machine.keeper = Some(Keeper { incarnation, number, token, term, log_index, until, life });
        self.note(Some(position), || "! agent ends for a restart, a keeper beats on".to_owned());
        self.crash_agent(position);
        self.queue.push(self.now + self.random.below(self.timing.interval_ns), Event::Keep(position, life));
        self.queue.push(back, Event::Start(position));
    }

    /// The keeper's timer. It looks whether it is still wanted only after it has sent: what it sends late must do no harm.
    pub fn keep(&mut self, position: usize, life: u64) {
        let newest = self.checker.newest_index();
        let claims_newest = self.mutation == Some(Mutation::KeeperClaimsNewest);
        let Some(machine) = self.machines.get_mut(position) else {
            return;
        };
        let now = machine.local(self.now);
        let (Some(kernel), Some(keeper)) = (machine.kernel.as_ref(), machine.keeper.as_mut()) else {
            return;
        };
        if keeper.life != life {
            return;
        }
        keeper.number += 1;
        keeper.token += 1;
        let beat = Beat {
            from: machine.id,
            incarnation: keeper.incarnation,
            order: order(keeper.incarnation, keeper.number),
            stamp: now,
            gate_index: if claims_newest { newest } else { kernel.control.gate_index },
            holds_lease: now < kernel.control.lease_end,
            token: keeper.token,
            leader: 0,
            term: keeper.term,
            log_index: keeper.log_index,
        };
        let replaced = kernel.control.incarnation != keeper.incarnation;
        let over = replaced || self.now >= keeper.until;
        if over {
            machine.keeper = None;
        }
        let me = machine.id;
        let peers: Vec<VoterId> = self.voters.iter().map(|(voter, _)| *voter).filter(|&voter| voter != me).collect();
        for peer in peers {
            for link in 0..self.network.links() {
                self.send_beat(link, peer, beat);
            }
        }
        if over {
            self.note(Some(position), || "~ the keeper ends".to_owned());
            if !replaced {
                self.queue.push(self.now, Event::Tell(position, Box::new(Item::KeeperGone)));
            }
        } else {
            self.queue.push(self.now + self.timing.interval_ns, Event::Keep(position, life));
        }
    }

    /// What a starting agent adopts: what the gates do, and what runs behind them. `None`: it starts in the ordinary way, which
    /// begins with nothing.
    pub fn adopt(&mut self, position: usize) -> Option<(Gates, BTreeMap<usize, Running>)> {
        let machine = self.machines.get_mut(position)?;
        let kernel = machine.kernel.as_mut()?;
        let keeper = machine.keeper.take_if(|keeper| keeper.incarnation != kernel.control.incarnation);
        if keeper.is_some() || machine.keeper.is_none() {
            machine.left.clear();
            return None;
        }
        for (voter, _) in &self.voters {
            kernel.set_floor(*voter, Index::MAX);
        }
        let set = |slot: &usize| kernel.gates.get(*slot).is_some_and(|gate| gate.1 != GateRole::Closed);
        let running = machine.left.iter().filter(|(slot, _)| set(slot)).map(|(slot, what)| (*slot, *what)).collect();
        let gates = self.group_ids.iter().cloned().zip(kernel.gates.iter().copied());
        Some((gates.filter(|(_, (_, role))| *role != GateRole::Closed).collect(), running))
    }

    /// The first gate index after the own barrier: from here on the new agent beats itself.
    pub fn take_over(&mut self, position: usize, agent: &mut Agent) {
        agent.adopting = false;
        let incarnation = agent.core.settings().incarnation;
        if let Some(kernel) = self.machines.get_mut(position).and_then(|machine| machine.kernel.as_mut()) {
            kernel.control.incarnation = incarnation;
        }
        self.note(Some(position), || "  beats itself now".to_owned());
    }

    /// The keeper has gone too early: the gates close, and the start goes on in the ordinary way.
    pub fn keeper_gone(&mut self, position: usize, agent: &mut Agent) {
        if !agent.adopting {
            return;
        }
        let keeps_gates = self.mutation == Some(Mutation::OrphanKeepsGates);
        if let Some(machine) = self.machines.get_mut(position) {
            let now = machine.local(self.now);
            if let Some(kernel) = machine.kernel.as_mut().filter(|_| !keeps_gates) {
                kernel.control.gate_index = 0;
                kernel.gates.iter_mut().for_each(|gate| gate.1 = GateRole::Closed);
            }
            agent.core.forget_adopted(now);
        }
        self.take_over(position, agent);
    }
}

/// What gates do, by group.
pub type Gates = BTreeMap<GroupId, (Epoch, GateRole)>;
