//! The discrete-event world: machines, network, events, and what an event does to the machine that it reaches.

use std::collections::{BTreeMap, VecDeque};

use super::{
    checker::Checker,
    clock::{Clock, Instant},
    faults::{Ends, Plan},
    kernel::{Acknowledgement, Beat, InFlight, Kernel},
    machine::{Agent, Item, Machine, Running, Stage},
    mutation::Mutation,
    network::Network,
    raft::{Raft, RaftMessage},
    random::Random,
    trace::Trace,
};
use crate::cluster::{
    command::GateRole,
    core::{Core, GroupSettings, Settings},
    ids::{Epoch, GroupId, Index, Nanos, Role, VoterId},
    message::Message,
    timing::Timing,
};

/// What travels on the channel between two agents.
#[derive(Clone, Debug)]
pub enum Payload {
    /// Between the cores.
    Core(Message),
    /// Between the rafts.
    Raft(RaftMessage),
}

/// What the executor reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Started.
    Started,
    /// Stopped.
    Stopped,
    /// Could not start.
    StartFailed,
    /// Can receive.
    Received,
    /// Cannot receive.
    ReceiveFailed,
    /// The flows have ended.
    Drained,
}

/// An event. The first field of most is the position of the machine, `life` the boot or the run of the agent it belongs to.
#[derive(Clone, Debug)]
pub enum Event {
    /// The pulse's timer.
    Pulse(usize, u64),
    /// A beat that the pulse has written is stamped and leaves.
    Egress(usize, u64, usize, VoterId, Beat),
    /// A beat arrives on a link.
    Beat(usize, usize, Beat),
    /// The program goes on with a beat.
    BeatSecond(usize, u64, usize, InFlight),
    /// An acknowledgement arrives.
    Acknowledged(usize, Acknowledgement),
    /// A message arrives on the channel.
    Channel(usize, VoterId, Box<Payload>),
    /// A write of raft is done.
    Written(usize, u64, u64),
    /// Raft's heartbeat timer.
    RaftTick(usize, u64),
    /// The driver goes on.
    Drive(usize, u64, Instant),
    /// The executor has done something.
    Executed(usize, u64, usize, Epoch, Outcome),
    /// An operator gives an order to this machine's agent, or the service manager stops it.
    Tell(usize, Box<Item>),
    /// The machine boots.
    Boot(usize),
    /// The agent starts.
    Start(usize),
    /// The keeper's timer.
    Keep(usize, u64),
    /// The next planned restart.
    Upgrade,
    /// An operator flips a switch.
    Switch,
    /// The next fault.
    Fault,
    /// A fault ends.
    Ends(Ends),
    /// The faults stop.
    Calm,
    /// After the faults: has everything recovered?
    Look,
}

impl Event {
    /// Whether a full queue may drop it.
    pub const fn is_packet(&self) -> bool {
        matches!(self, Self::Beat(..) | Self::Acknowledged(..) | Self::Channel(..))
    }
}

/// The whole of it.
pub struct World {
    /// True time.
    pub now: Instant,
    /// What comes.
    pub queue: super::queue::Queue<Event>,
    /// The machines, voter 1 first.
    pub machines: Vec<Machine>,
    /// The backplane.
    pub network: Network,
    /// The time constants that all share.
    pub timing: Timing,
    /// The groups, by slot.
    pub groups: Vec<GroupSettings>,
    /// Their names, by slot.
    pub group_ids: Vec<GroupId>,
    /// The voters and their roles.
    pub voters: Vec<(VoterId, Role)>,
    /// Chance.
    pub random: Random,
    /// The observer.
    pub checker: Checker,
    /// The trace.
    pub trace: Trace,
    /// The plan of the faults.
    pub plan: Plan,
    /// The rule left out.
    pub mutation: Option<Mutation>,
    /// Whether the faults are over.
    pub calm: bool,
    /// Raft's leader lease, and the time between its heartbeats.
    pub raft_lease_ns: Nanos,
    /// Log entries that are kept before they become a snapshot.
    pub log_max: usize,
    /// In a thousand: how often a program or the pulse is preempted in its middle.
    pub racy: u64,
    /// Whether all is over.
    pub done: bool,
    /// Since when every group has been served after the faults.
    pub served_since: Option<Instant>,
    /// Since when all has been well after the faults, and the newest entry then.
    pub well_since: Option<(Instant, Index)>,
    /// Chance for planned restarts, where the world has them.
    pub upgrades: Option<Random>,
    /// The source of chance of the operators' switches, in worlds that have them.
    pub switches: Option<Random>,
}

impl World {
    /// The position of a voter among the machines.
    pub fn position(voter: VoterId) -> usize {
        usize::from(voter.0).saturating_sub(1)
    }

    /// Writes a line into the trace.
    pub fn note(&mut self, machine: Option<usize>, text: impl FnOnce() -> String) {
        if self.trace.on() {
            let who = machine.and_then(|position| self.machines.get(position)).map(|machine| machine.id.0);
            self.trace.line(self.now, &self.machines, who, &text());
        }
    }

    /// Asks the checker whether two machines serve one group.
    pub fn check_serving(&mut self) {
        self.checker.serving(&self.machines, &self.group_ids, self.now);
    }

    /// A machine boots: a new clock, new maps.
    pub fn boot(&mut self, position: usize) {
        let voters: Vec<VoterId> = self.voters.iter().map(|(voter, _)| *voter).collect();
        let at_boot = self.random.range(1_000_000_000, 100_000_000_000);
        let (groups, lease, mutation, now) = (self.groups.len(), self.timing.lease_ns, self.mutation, self.now);
        let Some(machine) = self.machines.get_mut(position) else {
            return;
        };
        if machine.powered {
            return;
        }
        machine.powered = true;
        machine.boot += 1;
        machine.clock = Clock::new(machine.rate_ppm, now, at_boot);
        machine.kernel = Some(Kernel::new(machine.id, &voters, groups, lease, mutation));
        self.note(Some(position), || "~ boots".to_owned());
        self.start_agent(position);
    }

    /// The agent starts: it counts its incarnation, closes what gates an earlier run left open, and begins.
    pub fn start_agent(&mut self, position: usize) {
        let (timing, mutation) = (self.timing, self.mutation);
        let voters: Vec<VoterId> = self.voters.iter().map(|(voter, _)| *voter).collect();
        let jitter = self.random.below(timing.interval_ns);
        let Some(machine) = self.machines.get_mut(position) else {
            return;
        };
        if machine.kernel.is_none() || machine.agent.is_some() {
            return;
        }
        let adopted = self.adopt(position);
        let Some(machine) = self.machines.get_mut(position) else {
            return;
        };
        let now = machine.local(self.now);
        let Some(kernel) = machine.kernel.as_mut() else {
            return;
        };
        machine.disk.incarnation += 1;
        machine.generation += 1;
        kernel.control.applied = 0;
        let adopting = adopted.is_some();
        if !adopting {
            kernel.control.incarnation = machine.disk.incarnation;
            for gate in &mut kernel.gates {
                gate.1 = GateRole::Closed;
            }
        }
        let (adopted, running) = adopted.unwrap_or_default();
        let settings = Settings {
            me: machine.id,
            role: machine.role,
            voters: self.voters.clone(),
            groups: self.groups.clone(),
            rooms: BTreeMap::new(),
            timing,
            incarnation: machine.disk.incarnation,
            adopted,
            mutations: mutation.map(Mutation::switches).unwrap_or_default(),
        };
        let mut agent = Agent {
            core: Core::new(settings, now),
            raft: Raft::new(machine.id, &voters, self.raft_lease_ns, &machine.disk.durable),
            inbox: VecDeque::new(),
            stage: Stage::Due,
            called: None,
            proposals: Vec::new(),
            running,
            beat: 0,
            pulse_due: now + jitter,
            stopping: false,
            restarting: false,
            adopting,
            idle_wakes: 0,
        };
        let (generation, incarnation) = (machine.generation, machine.disk.incarnation);
        machine.paused = false;
        machine.wedged = false;
        machine.agent_gone = false;
        let how = if adopting { ", adopts the gates" } else { "" };
        self.note(Some(position), || format!("~ agent starts, incarnation {incarnation}{how}"));
        self.raft_outputs(position, &mut agent);
        if let Some(machine) = self.machines.get_mut(position) {
            machine.agent = Some(agent);
        }
        self.queue.push(self.now + jitter, Event::Pulse(position, generation));
        self.queue.push(self.now + self.random.below(timing.interval_ns), Event::RaftTick(position, generation));
        self.call(position, self.now);
    }

    /// The agent is gone, from one instant to the next; the kernel side stays.
    pub fn crash_agent(&mut self, position: usize) {
        let Some(machine) = self.machines.get_mut(position) else {
            return;
        };
        if machine.agent.take().is_some() {
            machine.generation += 1;
            machine.disk.crash(&mut self.random);
            machine.raft_letter = ' ';
        }
        machine.agent_gone = true;
    }

    /// The machine is gone: maps, clock and all; the disk stays.
    pub fn crash_machine(&mut self, position: usize) {
        self.crash_agent(position);
        let Some(machine) = self.machines.get_mut(position) else {
            return;
        };
        machine.powered = false;
        machine.stalled = false;
        machine.kernel = None;
        machine.keeper = None;
        machine.left.clear();
        machine.backlog.clear();
    }

    /// What was kept while the machine or its agent stood still happens now, in any order.
    pub fn resume(&mut self, position: usize) {
        let Some(machine) = self.machines.get_mut(position) else {
            return;
        };
        for event in std::mem::take(&mut machine.backlog) {
            self.queue.push(self.now + self.random.below(50_000), event);
        }
    }

    /// One event.
    pub fn happen(&mut self, event: Event) {
        match event {
            Event::Egress(to, ..) | Event::Beat(to, ..) | Event::BeatSecond(to, ..) | Event::Acknowledged(to, _) => {
                let Some(machine) = self.machines.get_mut(to) else {
                    return;
                };
                if machine.stalled {
                    machine.keep(event);
                } else {
                    self.kernel_event(event);
                }
            }
            Event::Pulse(to, life)
            | Event::Written(to, life, _)
            | Event::RaftTick(to, life)
            | Event::Drive(to, life, _)
            | Event::Executed(to, life, ..) => {
                let Some(machine) = self.machines.get_mut(to) else {
                    return;
                };
                if machine.generation == life {
                    self.agent_event(to, event);
                }
            }
            Event::Channel(to, ..) | Event::Tell(to, _) => self.agent_event(to, event),
            Event::Boot(to) => self.boot(to),
            Event::Start(to) => self.start_agent(to),
            Event::Keep(to, life) => match self.machines.get_mut(to) {
                Some(machine) if machine.stalled || machine.paused => machine.keep(event),
                _ => self.keep(to, life),
            },
            Event::Upgrade => self.upgrade(),
            Event::Switch => self.flip(),
            Event::Fault => self.fault(),
            Event::Ends(ends) => self.fault_ends(ends),
            Event::Calm => self.calm_down(),
            Event::Look => self.look(),
        }
    }

    fn kernel_event(&mut self, event: Event) {
        match event {
            Event::Egress(at, life, link, to, mut beat) => {
                let Some(machine) = self.machines.get(at) else {
                    return;
                };
                if machine.boot == life && machine.powered {
                    beat.stamp = machine.local(self.now);
                    self.send_beat(link, to, beat);
                }
            }
            Event::Beat(at, link, beat) => {
                let Some(machine) = self.machines.get_mut(at) else {
                    return;
                };
                let (now, life) = (machine.local(self.now), machine.boot);
                let Some(kernel) = machine.kernel.as_mut() else {
                    return;
                };
                if let Some(in_flight) = kernel.beat_first(link, beat, now) {
                    if self.random.per_mille(self.racy) {
                        let delay = self.random.spread(1_000, 2 * self.timing.lease_ns);
                        self.queue.push(self.now + delay, Event::BeatSecond(at, life, link, in_flight));
                    } else {
                        self.beat_second(at, link, in_flight);
                    }
                }
            }
            Event::BeatSecond(at, life, link, in_flight) if self.machines.get(at).is_some_and(|m| m.boot == life) => {
                self.beat_second(at, link, in_flight);
            }
            Event::Acknowledged(at, acknowledgement) => {
                let Some(machine) = self.machines.get_mut(at) else {
                    return;
                };
                let now = machine.local(self.now);
                let Some(kernel) = machine.kernel.as_mut() else {
                    return;
                };
                if kernel.acknowledged(acknowledgement, now)
                    && kernel.gates.iter().any(|gate| gate.1 != GateRole::Closed)
                {
                    self.check_serving();
                }
            }
            _ => {}
        }
    }

    fn beat_second(&mut self, at: usize, link: usize, in_flight: InFlight) {
        let Some(kernel) = self.machines.get_mut(at).and_then(|machine| machine.kernel.as_mut()) else {
            return;
        };
        let Some(acknowledgement) = kernel.beat_second(in_flight) else {
            return;
        };
        let to = in_flight.from();
        for arrival in self.network.datagram(self.now, acknowledgement.from.0, to.0, link).into_iter().flatten() {
            self.queue.push(arrival, Event::Acknowledged(Self::position(to), acknowledgement));
        }
    }

    /// A stamped beat leaves on a link.
    pub fn send_beat(&mut self, link: usize, to: VoterId, beat: Beat) {
        for arrival in self.network.datagram(self.now, beat.from.0, to.0, link).into_iter().flatten() {
            self.queue.push(arrival, Event::Beat(Self::position(to), link, beat));
        }
    }

    fn agent_event(&mut self, to: usize, event: Event) {
        let Some(machine) = self.machines.get_mut(to) else {
            return;
        };
        if machine.agent.is_none() {
            return;
        }
        let pulse = matches!(event, Event::Pulse(..));
        if machine.stalled || machine.paused || (machine.wedged && !pulse) {
            machine.keep(event);
            return;
        }
        match event {
            Event::Pulse(..) => self.pulse(to),
            Event::Drive(_, _, at) => self.drive(to, at),
            other => self.input(to, other),
        }
    }

    /// The pulse thread: beats to everybody on every link, and a word to the driver.
    fn pulse(&mut self, position: usize) {
        let interval = self.timing.interval_ns;
        let Some(machine) = self.machines.get_mut(position) else {
            return;
        };
        let now = machine.local(self.now);
        let generation = machine.generation;
        let (Some(kernel), Some(agent)) = (machine.kernel.as_mut(), machine.agent.as_mut()) else {
            return;
        };
        if now > agent.pulse_due + interval / 2 {
            kernel.control.punctual_since = now;
        }
        // Missed beats are not made up for.
        agent.pulse_due = (agent.pulse_due + interval).max(now + interval / 2);
        let next = machine.clock.instant(agent.pulse_due);
        self.send_beats(position);
        self.queue.push(next, Event::Pulse(position, generation));
        self.call(position, self.now);
    }

    /// Beats of a machine whose pulse can run, to everybody on every link.
    pub fn send_beats(&mut self, position: usize) {
        let Some(machine) = self.machines.get_mut(position).filter(|machine| !machine.stalled && !machine.paused)
        else {
            return;
        };
        let (me, life, now) = (machine.id, machine.boot, machine.local(self.now));
        let (Some(kernel), Some(agent)) = (machine.kernel.as_mut(), machine.agent.as_mut()) else {
            return;
        };
        if agent.adopting {
            return;
        }
        agent.beat += 1;
        let beat = kernel.beat(agent.beat, now);
        let peers: Vec<VoterId> = self.voters.iter().map(|(voter, _)| *voter).filter(|&voter| voter != me).collect();
        for peer in peers {
            for link in 0..self.network.links() {
                if self.random.per_mille(self.racy) {
                    let delay = self.random.spread(1_000, self.timing.lease_ns);
                    self.queue.push(self.now + delay, Event::Egress(position, life, link, peer, beat));
                } else {
                    self.send_beat(link, peer, beat);
                }
            }
        }
    }

    /// What a machine's executor has running, for the checks.
    pub fn running(&self, position: usize, slot: usize) -> Option<Running> {
        self.machines.get(position)?.agent.as_ref()?.running.get(&slot).copied()
    }
}
