//! Carrying out the core's commands: maps, channel, raft, executor.

use super::{
    faults::Moment,
    machine::{Agent, Item, Running},
    raft::RaftMessage,
    world::{Event, Outcome, Payload, World},
};
use crate::cluster::entry::Cause;
use crate::cluster::{
    command::Command,
    entry::Entry,
    ids::{Epoch, GroupId, Index, VoterId},
    message::Message,
};

impl World {
    /// One command of the core.
    pub fn carry_out(&mut self, position: usize, agent: &mut Agent, command: Command) {
        if !matches!(command, Command::Send { message: Message::Report(_), .. }) {
            self.note(Some(position), || match &command {
                Command::Record(fact) => format!("= {fact:?}"),
                other => format!("> {other:?}"),
            });
        }
        let Some(machine) = self.machines.get_mut(position) else {
            return;
        };
        let (me, now) = (machine.id, machine.local(self.now));
        let Some(kernel) = machine.kernel.as_mut() else {
            return;
        };
        match command {
            Command::SetFloor { peer, floor } => {
                kernel.set_floor(peer, floor);
                if floor == Index::MAX {
                    self.provoke(position, Moment::FloorRaised(peer));
                }
            }
            Command::SetGate { group, epoch, role } => {
                if let Some(slot) = self.group_ids.iter().position(|id| *id == group)
                    && let Some(gate) = kernel.gates.get_mut(slot)
                {
                    *gate = (epoch, role);
                    self.check_serving();
                }
            }
            Command::SetGateIndex(index) => {
                kernel.control.gate_index = index;
                if agent.adopting {
                    self.take_over(position, agent);
                }
            }
            Command::Start { group, epoch, cause } => self.start(position, agent, &group, epoch, cause),
            Command::Stop { group, epoch } => self.stop(position, agent, &group, epoch),
            Command::Receive { group, movement } => self.receive(position, agent, &group, movement),
            Command::Drain { group, epoch } => self.drain(position, agent, &group, epoch),
            Command::Announce { .. } | Command::Export { .. } => {}
            Command::Send { to, message } => {
                let moment = match &message {
                    Message::AskPromise { node, .. } => Some(Moment::Asking(*node, to)),
                    Message::Promise { node, .. } => Some(Moment::Promised(*node)),
                    _ => None,
                };
                let (sent_before, late_until) = machine.promises_late;
                if self.now < sent_before && matches!(moment, Some(Moment::Promised(_))) {
                    let at = late_until + self.random.below(3 * self.timing.hold_ns());
                    let payload = Box::new(Payload::Core(message));
                    self.queue.push(at, Event::Channel(Self::position(to), me, payload));
                } else {
                    self.send(me, to, Payload::Core(message));
                }
                if let Some(moment) = moment {
                    self.provoke(position, moment);
                }
            }
            Command::Propose(entry) => self.propose(position, agent, me, now, entry),
            Command::Elect => agent.raft.elect(now),
            Command::StepAside { .. } => agent.raft.step_aside(),
            Command::Resume => agent.raft.resume(),
            Command::Record(_) => {}
            Command::Halt(text) => self.checker.stuck(self.now, format!("the core of {me} halts: {text}")),
        }
        self.raft_outputs(position, agent);
    }

    fn propose(&mut self, position: usize, agent: &mut Agent, me: VoterId, now: u64, entry: Entry) {
        let moment = match &entry {
            Entry::Conclude { node, .. } => Some(Moment::Concluding(*node)),
            Entry::Release { .. } | Entry::ReleaseTo { .. } | Entry::Diverted { .. } => Some(Moment::GivingUp),
            Entry::Prepare { to, .. } => Some(Moment::Preparing(*to)),
            _ => None,
        };
        let (leader, _, _) = agent.raft.status();
        let until = now + 5 * self.timing.hold_ns();
        match agent.raft.propose(entry.clone()) {
            Ok(()) => agent.proposals.push((entry, until)),
            Err(entry) => match leader {
                Some(leader) if leader != me => {
                    self.send(me, leader, Payload::Raft(RaftMessage::Forward(entry.clone())));
                    agent.proposals.push((entry, until));
                }
                _ => agent.inbox.push_back(Item::ProposalFailed(entry)),
            },
        }
        if let Some(moment) = moment {
            self.provoke(position, moment);
        }
    }

    /// The row of a group in the gates.
    fn slot(&self, group: &GroupId) -> Option<usize> {
        self.group_ids.iter().position(|id| id == group)
    }

    fn start(&mut self, position: usize, agent: &mut Agent, group: &GroupId, epoch: Epoch, cause: Cause) {
        let Some(slot) = self.slot(group) else { return };
        self.check_alone(position, slot, epoch, cause);
        if let Some(running) = agent.running.get(&slot)
            && !matches!(running, Running::Receiving(_) | Running::Draining(_))
            // What an adopted gate serves is started again in place.
            && !matches!(running, Running::Starting(at) | Running::Started(at) if *at == epoch)
        {
            let what = format!("voter {} starts {group} in epoch {epoch} while {running:?}", position + 1);
            self.checker.violated(self.now, what);
        }
        agent.running.insert(slot, Running::Starting(epoch));
        let fails = self.machines.get(position).is_some_and(|machine| machine.starts_fail);
        self.checker.statistics.failed_starts += u64::from(fails);
        let outcome = if fails { Outcome::StartFailed } else { Outcome::Started };
        self.execute(position, slot, epoch, outcome);
    }

    /// What must not run twice does not: when a group was given up, or moved in a planned way, its owner of before has stopped it.
    /// (One that died or lost its lease could not be asked.)
    fn check_alone(&mut self, position: usize, slot: usize, epoch: Epoch, cause: Cause) {
        let voluntary = match cause {
            Cause::Order | Cause::Standby | Cause::Shutdown | Cause::Resource | Cause::FrontDown => true,
            Cause::Initial | Cause::Silent | Cause::NoLease | Cause::Wedged | Cause::Restart => false,
        };
        if !voluntary || self.groups.get(slot).is_none_or(|g| g.stops_first.is_none()) {
            return;
        }
        let before = epoch.saturating_sub(1);
        let others = (0..self.machines.len()).filter(|other| *other != position);
        let runs = |other: &usize| matches!(self.running(*other, slot), Some(Running::Starting(at) | Running::Started(at) | Running::Stopping(at)) if at == before);
        if let Some(other) = others.filter(runs).min() {
            let what = format!(
                "voter {} starts group {slot} in epoch {epoch} while voter {} runs it",
                position + 1,
                other + 1
            );
            self.checker.violated(self.now, what);
        }
    }

    fn receive(&mut self, position: usize, agent: &mut Agent, group: &GroupId, movement: Index) {
        let Some(slot) = self.slot(group) else { return };
        agent.running.insert(slot, Running::Receiving(movement));
        let fails = self.machines.get(position).is_some_and(|machine| machine.starts_fail);
        let outcome = if fails { Outcome::ReceiveFailed } else { Outcome::Received };
        self.execute(position, slot, movement, outcome);
    }

    fn drain(&mut self, position: usize, agent: &mut Agent, group: &GroupId, epoch: Epoch) {
        let Some(slot) = self.slot(group) else { return };
        agent.running.insert(slot, Running::Draining(epoch));
        let Some(machine) = self.machines.get(position) else {
            return;
        };
        let lasts = self.random.spread(100_000, 20 * self.timing.hold_ns());
        let event = Event::Executed(position, machine.generation, slot, epoch, Outcome::Drained);
        self.queue.push(self.now + lasts, event);
    }

    fn stop(&mut self, position: usize, agent: &mut Agent, group: &GroupId, epoch: Epoch) {
        let Some(slot) = self.slot(group) else { return };
        if agent.running.contains_key(&slot) {
            agent.running.insert(slot, Running::Stopping(epoch));
        }
        self.execute(position, slot, epoch, Outcome::Stopped);
    }

    fn execute(&mut self, position: usize, slot: usize, epoch: Epoch, outcome: Outcome) {
        let slow = if self.calm { 10_000_000 } else { 4 * self.timing.hold_ns() };
        let takes = self.random.spread(100_000, slow);
        let Some(machine) = self.machines.get(position) else {
            return;
        };
        self.queue.push(self.now + takes, Event::Executed(position, machine.generation, slot, epoch, outcome));
    }
}
