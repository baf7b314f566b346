//! The core's driver as the agent has it: inputs, a view, a step, the commands in order, a fresh view, until nothing is left.
//!
//! It can be preempted between the view and the step and between any two commands, for as long as a few leases; the kernel
//! side, raft and everybody else go on meanwhile. So the gate lags behind the log, and views grow old.

use std::collections::VecDeque;

use super::{
    clock::Instant,
    machine::{Agent, Item, Machine, Running, Stage},
    raft::{Output, RaftMessage},
    world::{Event, Outcome, Payload, World},
};
use crate::cluster::{
    command::Command,
    core::Core,
    entry::DrainSummary,
    ids::{GroupId, Nanos, VoterId},
    view::{RaftView, View},
};

/// Most turns of the driver at one call; more means that the core never comes to rest.
const TURNS_MAX: u32 = 10_000;
/// Most wake-ups in a row by a deadline that stays in the past.
const IDLE_WAKES_MAX: u32 = 2_000;
/// The least time between two calls by deadline.
const CALL_MIN_NS: u64 = 20_000;

impl World {
    /// Calls the driver at an instant, unless it is called earlier anyway.
    pub fn call(&mut self, position: usize, at: Instant) {
        let Some(machine) = self.machines.get_mut(position) else {
            return;
        };
        let generation = machine.generation;
        let Some(agent) = machine.agent.as_mut() else {
            return;
        };
        if agent.called.is_none_or(|called| at < called) {
            agent.called = Some(at);
            self.queue.push(at, Event::Drive(position, generation, at));
        }
    }

    /// Something for raft or for the inbox.
    pub fn input(&mut self, position: usize, event: Event) {
        let Some(machine) = self.machines.get_mut(position) else {
            return;
        };
        let now = machine.local(self.now);
        let Some(mut agent) = machine.agent.take() else {
            return;
        };
        match event {
            Event::Channel(_, from, payload) => match *payload {
                Payload::Core(message) => agent.inbox.push_back(Item::Message(from, message)),
                Payload::Raft(RaftMessage::NotLeader(entry)) => {
                    if let Some(place) = agent.proposals.iter().position(|(open, _)| entry.comes_of(open)) {
                        let (entry, _) = agent.proposals.remove(place);
                        agent.inbox.push_back(Item::ProposalFailed(entry));
                    }
                }
                Payload::Raft(RaftMessage::Forward(entry)) => {
                    let entry = agent.core.complete(now, entry);
                    agent.raft.message(now, from, RaftMessage::Forward(entry));
                }
                Payload::Raft(message) => agent.raft.message(now, from, message),
            },
            Event::Written(_, life, number) => match machine.disk.complete(self.now, number) {
                Ok(last) => agent.raft.written(number, last),
                Err(again) => self.queue.push(again, Event::Written(position, life, number)),
            },
            Event::RaftTick(_, life) => {
                agent.raft.tick();
                let interval = self.timing.interval_ns;
                self.queue.push(self.now + interval, Event::RaftTick(position, life));
            }
            Event::Executed(_, _, slot, epoch, outcome) => executed(&mut agent, slot, epoch, outcome),
            Event::Tell(_, item) => agent.inbox.push_back(*item),
            _ => {}
        }
        self.raft_outputs(position, &mut agent);
        let work = !agent.inbox.is_empty();
        if let Some(machine) = self.machines.get_mut(position) {
            machine.agent = Some(agent);
        }
        if work {
            self.call(position, self.now);
        }
    }

    /// Carries out what raft wants.
    pub fn raft_outputs(&mut self, position: usize, agent: &mut Agent) {
        let outputs = agent.raft.take_outputs();
        let Some(machine) = self.machines.get_mut(position) else {
            return;
        };
        let (me, generation) = (machine.id, machine.generation);
        for output in outputs {
            match output {
                Output::Send(to, message) => self.send(me, to, Payload::Raft(message)),
                Output::Write(number, write) => {
                    let Some(machine) = self.machines.get_mut(position) else {
                        return;
                    };
                    let at = machine.disk.submit(self.now, number, write, &mut self.random);
                    self.queue.push(at, Event::Written(position, generation, number));
                }
                Output::Restore(state) => agent.inbox.push_back(Item::Restore(state)),
                Output::Apply(index, entry) => agent.inbox.push_back(Item::Applied(index, entry)),
            }
        }
        let (_, term, _) = agent.raft.status();
        let letter = match agent.raft.leading() {
            Some(true) => 'q',
            Some(false) => 'L',
            None if agent.raft.standing_for_election() => 'C',
            None => 'F',
        };
        if agent.raft.leading().is_some() {
            self.checker.leads(self.now, term, me);
        }
        let changed = self
            .machines
            .get_mut(position)
            .is_some_and(|machine| std::mem::replace(&mut machine.raft_letter, letter) != letter);
        if changed {
            self.note(Some(position), || format!("  raft is {letter} in term {term}"));
        }
    }

    /// Sends on the channel.
    pub fn send(&mut self, from: VoterId, to: VoterId, payload: Payload) {
        for arrival in self.network.message(self.now, from.0, to.0).into_iter().flatten() {
            self.queue.push(arrival, Event::Channel(Self::position(to), from, Box::new(payload.clone())));
        }
    }

    /// The driver runs until it is preempted or has nothing left to do.
    pub fn drive(&mut self, position: usize, at: Instant) {
        let Some(machine) = self.machines.get_mut(position) else {
            return;
        };
        if machine.agent.as_ref().is_none_or(|agent| agent.called != Some(at)) {
            return;
        }
        let Some(mut agent) = machine.agent.take() else {
            return;
        };
        agent.called = None;
        let mut turns = 0;
        let preempted = loop {
            turns += 1;
            if turns > TURNS_MAX {
                let id = VoterId(u8::try_from(position + 1).unwrap_or(0));
                self.checker.stuck(self.now, format!("the core of {id} never comes to rest"));
                break false;
            }
            match self.turn(position, &mut agent) {
                Turn::Again => {}
                Turn::Preempted => break true,
                Turn::Rest => break false,
            }
        };
        self.raft_outputs(position, &mut agent);
        let preemption = self.preemption();
        let Some(machine) = self.machines.get_mut(position) else {
            return;
        };
        let now = machine.local(self.now);
        let next = if preempted {
            Some(self.now + preemption)
        } else if agent.stopping && agent.core.is_drained() {
            machine.agent = Some(agent);
            self.note(Some(position), || "! agent has stopped in an orderly way".to_owned());
            self.crash_agent(position);
            let back = self.timing.hold_ns();
            self.queue.push(self.now + back, Event::Start(position));
            return;
        } else if agent.restarting && !agent.stopping && agent.core.may_restart() {
            machine.agent = Some(agent);
            self.leave_keeper(position);
            return;
        } else {
            self.rest(position, &mut agent, now)
        };
        if let Some(machine) = self.machines.get_mut(position) {
            machine.agent = Some(agent);
        }
        if let Some(next) = next {
            self.call(position, next);
        }
    }

    /// Nothing left: when to come back.
    fn rest(&mut self, position: usize, agent: &mut Agent, now: Nanos) -> Option<Instant> {
        let machine = self.machines.get(position)?;
        let waited = agent.proposals.iter().map(|(_, until)| *until).min();
        let deadline = agent.core.next_deadline();
        if deadline.is_some_and(|deadline| deadline <= now) {
            agent.idle_wakes += 1;
            if agent.idle_wakes > IDLE_WAKES_MAX {
                let what = format!("the core of {} spins: its deadline stays in the past", machine.id);
                self.checker.stuck(self.now, what);
            }
        } else {
            agent.idle_wakes = 0;
        }
        let local = [waited, deadline].into_iter().flatten().min()?;
        Some(machine.clock.instant(local).max(self.now + CALL_MIN_NS))
    }

    fn preemption(&mut self) -> u64 {
        self.random.spread(5_000, 3 * self.timing.lease_ns)
    }

    fn preempts(&mut self, position: usize) -> bool {
        let per_mille = self.machines.get(position).map_or(0, |machine| machine.preempted);
        self.random.per_mille(per_mille)
    }

    fn turn(&mut self, position: usize, agent: &mut Agent) -> Turn {
        match std::mem::replace(&mut agent.stage, Stage::Idle) {
            Stage::Idle => {
                let Some(machine) = self.machines.get_mut(position) else {
                    return Turn::Rest;
                };
                let now = machine.local(self.now);
                let mut index = 0;
                while index < agent.proposals.len() {
                    if agent.proposals[index].1 <= now {
                        let (entry, _) = agent.proposals.remove(index);
                        agent.inbox.push_back(Item::ProposalFailed(entry));
                    } else {
                        index += 1;
                    }
                }
                while let Some(item) = agent.inbox.pop_front() {
                    self.hand_over(position, agent, now, item);
                }
                self.view(position, agent)
            }
            Stage::Due => self.view(position, agent),
            Stage::Viewed(at, view) => {
                let Some(machine) = self.machines.get(position) else {
                    return Turn::Rest;
                };
                // `at` 0: the clock is read after the view, and maybe long after it.
                let at = if at == 0 { machine.local(self.now) } else { at };
                let commands: VecDeque<Command> = agent.core.step(at, &view).into();
                if commands.is_empty() {
                    return if agent.inbox.is_empty() { Turn::Rest } else { Turn::Again };
                }
                agent.idle_wakes = 0;
                agent.stage = Stage::Carrying(commands);
                if self.preempts(position) { Turn::Preempted } else { Turn::Again }
            }
            Stage::Carrying(mut commands) => {
                let Some(command) = commands.pop_front() else {
                    agent.stage = if agent.inbox.is_empty() { Stage::Due } else { Stage::Idle };
                    return Turn::Again;
                };
                self.carry_out(position, agent, command);
                agent.stage = Stage::Carrying(commands);
                if self.preempts(position) { Turn::Preempted } else { Turn::Again }
            }
        }
    }

    fn view(&mut self, position: usize, agent: &mut Agent) -> Turn {
        let view_first = self.random.per_mille(300);
        let Some(machine) = self.machines.get_mut(position) else {
            return Turn::Rest;
        };
        let now = machine.local(self.now);
        let Some(view) = view_of(machine, agent) else {
            return Turn::Rest;
        };
        agent.stage = Stage::Viewed(if view_first { 0 } else { now }, Box::new(view));
        if self.preempts(position) { Turn::Preempted } else { Turn::Again }
    }

    fn hand_over(&mut self, position: usize, agent: &mut Agent, now: Nanos, item: Item) {
        if !matches!(item, Item::Message(_, crate::cluster::message::Message::Report(_))) {
            self.note(Some(position), || input_line(&item));
        }
        match item {
            Item::Applied(index, entry) => {
                if let Some(entry) = &entry
                    && let Some(place) = agent.proposals.iter().position(|(open, _)| entry.comes_of(open))
                {
                    agent.proposals.remove(place);
                }
                agent.core.on_applied(now, index, entry.as_ref());
                self.applied(position, agent, index, entry.as_ref());
            }
            Item::Restore(state) => agent.core.restore(now, (*state).clone()),
            Item::Message(from, message) => agent.core.on_message(now, from, message),
            Item::Order(order) => {
                if let Err(refused) = agent.core.on_order(now, order) {
                    self.note(Some(position), || format!("  order refused: {refused}"));
                }
            }
            Item::ProposalFailed(entry) => agent.core.on_proposal_failed(now, &entry),
            Item::Executed(slot, number, outcome) => {
                if let Some(group) = self.group_ids.get(slot) {
                    report(&mut agent.core, now, group, number, outcome);
                }
            }
            Item::Restart => {
                if !agent.adopting && !agent.stopping {
                    agent.restarting = true;
                    agent.core.begin_restart(now);
                }
            }
            Item::KeeperGone => self.keeper_gone(position, agent),
            Item::Shutdown => {
                agent.stopping = true;
                agent.core.begin_shutdown(now);
            }
        }
    }

    fn applied(
        &mut self,
        position: usize,
        agent: &mut Agent,
        index: u64,
        entry: Option<&crate::cluster::entry::Entry>,
    ) {
        let Some(machine) = self.machines.get(position) else {
            return;
        };
        self.checker.applied(self.now, machine.id, index, entry, agent.core.state());
        if agent.raft.entries() > self.log_max && agent.core.state().applied == index {
            agent.raft.compact(&std::rc::Rc::new(agent.core.state().clone()));
        }
    }
}

/// How a turn of the driver ended.
enum Turn {
    Again,
    Preempted,
    Rest,
}

/// What the core sees: also where the agent tells the pulse what to say.
fn view_of(machine: &mut Machine, agent: &Agent) -> Option<View> {
    let kernel = machine.kernel.as_mut()?;
    let (leader, term, log_index) = agent.raft.status();
    kernel.control.token += 1;
    kernel.control.leader = leader.map_or(0, |leader| leader.0);
    kernel.control.term = term;
    kernel.control.log_index = log_index;
    kernel.control.applied = agent.core.state().applied;
    Some(View {
        peers: kernel.view(),
        lease_end: kernel.control.lease_end,
        punctual_since: kernel.control.punctual_since,
        front_up: machine.front_up,
        steers: machine.steers,
        configuration_differs: false,
        raft: RaftView { leader, term, log_index },
    })
}

/// The executor is done with something: it tells the core, unless it has been told otherwise meanwhile.
fn executed(agent: &mut Agent, slot: usize, number: u64, outcome: Outcome) {
    match (agent.running.get(&slot), outcome) {
        (Some(Running::Starting(at)), Outcome::Started) if *at == number => {
            agent.running.insert(slot, Running::Started(number));
        }
        (Some(Running::Starting(at)), Outcome::StartFailed) | (Some(Running::Stopping(at)), Outcome::Stopped)
            if *at == number =>
        {
            agent.running.remove(&slot);
        }
        (Some(Running::Receiving(at)), Outcome::Received | Outcome::ReceiveFailed) if *at == number => {}
        (Some(Running::Draining(at)), Outcome::Drained) if *at == number => {}
        (None, Outcome::Stopped) => {}
        _ => return,
    }
    agent.inbox.push_back(Item::Executed(slot, number, outcome));
}

/// Tells the core what the executor has done.
fn report(core: &mut Core, now: Nanos, group: &GroupId, number: u64, outcome: Outcome) {
    match outcome {
        Outcome::Started => core.on_started(now, group, number),
        Outcome::Stopped => core.on_stopped(now, group, number),
        Outcome::StartFailed => core.on_start_failed(now, group, number),
        Outcome::Received => core.on_received(now, group, number),
        Outcome::ReceiveFailed => core.on_receive_failed(now, group, number, String::new()),
        Outcome::Drained => core.on_drained(now, group, number, DrainSummary::default()),
    }
}

fn input_line(item: &Item) -> String {
    match item {
        Item::Applied(index, entry) => match entry {
            Some(entry) => format!("# {index} {entry:?}"),
            None => format!("# {index} blank"),
        },
        other => format!("< {other:?}"),
    }
}
