//! A machine: clock, kernel side, disk, and the agent on it while one runs.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::{
    clock::{Clock, Instant},
    disk::Disk,
    kernel::Kernel,
    raft::Raft,
    restarts::Keeper,
    world::{Event, Outcome},
};
use crate::cluster::{
    command::{Command, GateRole},
    core::Core,
    entry::Entry,
    ids::{Epoch, Index, Nanos, Role, VoterId},
    message::{Message, Order},
    state::State,
    view::View,
};

/// Most events that a stalled machine keeps for later (its rings and socket buffers); the rest is dropped.
const BACKLOG_MAX: usize = 256;

/// One machine of the cluster.
pub struct Machine {
    /// Its voter number.
    pub id: VoterId,
    /// Node or arbiter.
    pub role: Role,
    /// How fast its clock runs, in millionths.
    pub rate_ppm: u64,
    /// The clock of this boot.
    pub clock: Clock,
    /// Grows with every boot; events of an earlier boot are void.
    pub boot: u64,
    /// Whether the machine runs at all.
    pub powered: bool,
    /// Everything stands still (but time).
    pub stalled: bool,
    /// User space stands still, the kernel side goes on.
    pub paused: bool,
    /// The async part of the agent stands still, its pulse goes on.
    pub wedged: bool,
    /// The peers to which its kernel can steer.
    pub steers: u16,
    /// The front link.
    pub front_up: bool,
    /// Whether starts of resources fail here now.
    pub starts_fail: bool,
    /// Chances in a thousand that the driver is preempted at a point where it can be.
    pub preempted: u64,
    /// Promises sent before the first instant arrive after the second.
    pub promises_late: (Instant, Instant),
    /// The maps and programs, while the machine runs.
    pub kernel: Option<Kernel>,
    /// The disk.
    pub disk: Disk,
    /// The agent, while it runs.
    pub agent: Option<Agent>,
    /// What beats for an agent that restarts.
    pub keeper: Option<Keeper>,
    /// What runs of the groups of an agent that restarts.
    pub left: BTreeMap<usize, Running>,
    /// Grows with every start and end of the agent; events of an earlier one are void.
    pub generation: u64,
    /// What raft is, for the trace.
    pub raft_letter: char,
    /// Whether no agent runs, for the trace.
    pub agent_gone: bool,
    /// What waits for the machine to go on.
    pub backlog: Vec<Event>,
}

impl Machine {
    /// What its clock shows.
    pub fn local(&self, now: Instant) -> Nanos {
        self.clock.local(now)
    }

    /// What its gate does with a group's packets at an instant: nothing without a lease.
    pub fn role(&self, group: usize, now: Instant) -> GateRole {
        let held = self.kernel.as_ref().filter(|kernel| self.local(now) < kernel.control.lease_end);
        held.and_then(|kernel| kernel.gates.get(group)).map_or(GateRole::Closed, |gate| gate.1)
    }

    /// Keeps an event for later.
    pub fn keep(&mut self, event: Event) {
        if self.backlog.len() < BACKLOG_MAX || !event.is_packet() {
            self.backlog.push(event);
        }
    }
}

/// What the driver hands to the core.
#[derive(Clone, Debug)]
pub enum Item {
    /// An entry to apply.
    Applied(Index, Option<Entry>),
    /// A snapshot to take.
    Restore(Rc<State>),
    /// A message of another core.
    Message(VoterId, Message),
    /// An operator's order.
    Order(Order),
    /// A proposal that came to nothing, as far as is known.
    ProposalFailed(Entry),
    /// The executor has done something with a group, at an epoch or for a movement.
    Executed(usize, u64, Outcome),
    /// The service manager stops the agent.
    Shutdown,
    /// The agent is to restart.
    Restart,
    /// The keeper has ended by itself.
    KeeperGone,
}

/// Where the driver is.
#[derive(Debug)]
pub enum Stage {
    /// It waits for something to do.
    Idle,
    /// It has to step the core again.
    Due,
    /// It has taken a view, and not yet stepped.
    Viewed(Nanos, Box<View>),
    /// It carries out commands.
    Carrying(VecDeque<Command>),
}

/// What the executor has running of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Running {
    /// It is being started.
    Starting(Epoch),
    /// It runs.
    Started(Epoch),
    /// It can receive, or is about to, for this movement.
    Receiving(Index),
    /// Its flows of this epoch go on.
    Draining(Epoch),
    /// It is being stopped.
    Stopping(Epoch),
}

/// One run of the agent.
pub struct Agent {
    /// The real core.
    pub core: Core,
    /// The raft model.
    pub raft: Raft,
    /// What the core has not been told yet.
    pub inbox: VecDeque<Item>,
    /// The driver.
    pub stage: Stage,
    /// When the driver is called next (true time), if it is.
    pub called: Option<Instant>,
    /// Proposals whose fate is open, and until when (local) they are waited for.
    pub proposals: Vec<(Entry, Nanos)>,
    /// What the executor does, per group.
    pub running: BTreeMap<usize, Running>,
    /// The number of the next beat.
    pub beat: u64,
    /// When the pulse is due (local).
    pub pulse_due: Nanos,
    /// Whether the service manager has asked it to stop.
    pub stopping: bool,
    /// Whether it is about to restart.
    pub restarting: bool,
    /// Whether a keeper beats for it, and the gates are those of before its start.
    pub adopting: bool,
    /// Wake-ups by a deadline that led to nothing, in a row at one instant of the clock.
    pub idle_wakes: u32,
}
