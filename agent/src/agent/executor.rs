//! The executor: a thread that starts and stops the resources of this node's groups, announces and repairs them, and reports.
//!
//! The core never waits for it. Jobs of one group are carried out in the order in which they were sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::mpsc::UnboundedSender;
use tracing::{error, warn};

use super::{
    inputs::Input,
    mail::{Board, FLOWS_MAX, Mail},
};
use crate::{
    clock,
    cluster::{
        entry::DrainSummary,
        ids::{Epoch, GroupId, Index, MILLISECOND, Nanos, VoterId},
    },
    kernel::{Flow, KernelError},
    netlink::{announce::Schedule, watch::Event},
    realtime,
    resources::{Context, Health, Operation, Readiness, Resource, ResourceError, Work},
    telemetry::{mark::Mark, recorder::Recorder},
};

#[cfg(test)]
mod tests;

/// Network events that may wait; what comes beyond is dropped, and everything is looked at once instead. Orders of the core are
/// never dropped, since it would wait for their report for ever: it has at most a start or a stop of each group under way.
const EVENTS_MAX: usize = 4096;
/// After how long a stop that failed is tried again.
const STOP_AGAIN: Nanos = 1_000 * MILLISECOND;
/// How long a start waits for the flows that the old owner goes on serving: it only delays the announcement.
const FLOWS_WITHIN: Duration = Duration::from_millis(250);
/// How long a target waits for what the owner's resources know; without it they start with what they have.
const KNOWLEDGE_WITHIN: Duration = Duration::from_millis(1_000);
/// How long a resource may take to say whether its group could be taken over here.
const READINESS_WITHIN: Duration = Duration::from_millis(250);
/// How often it is asked whether the groups could be taken over here.
const READINESS_EVERY: Nanos = 2_000 * MILLISECOND;
/// The longest that the thread sleeps.
const IDLE: Duration = Duration::from_secs(1);

/// What the executor is asked to do.
#[derive(Debug)]
pub enum Job {
    /// Start a group; its gate is open. `after_flows`: once the old owner has told which flows it goes on serving.
    Start {
        /// The group.
        group: GroupId,
        /// The epoch.
        epoch: Epoch,
        /// Whether the old owner tells of flows.
        after_flows: bool,
    },
    /// Make a group able to take what its owner forwards, for a planned move.
    Receive(GroupId, Index),
    /// Tell the target of a planned move what the resources here know.
    Export(GroupId, Index, VoterId),
    /// Tell the new owner which flows without connections this node goes on serving.
    TellFlows {
        /// The group.
        group: GroupId,
        /// Its row in the gate.
        slot: u32,
        /// The epoch whose flows drain.
        epoch: Epoch,
        /// The new owner.
        to: VoterId,
    },
    /// The group went to another node: serve what is open alone.
    Drain(GroupId, Epoch),
    /// Stop a group; its gate is closed.
    Stop(GroupId, Epoch),
    /// Announce a group's addresses again, and repeat it on the schedule.
    Announce(GroupId),
    /// Look again whether the groups could be taken over here.
    Look,
    /// Something changed in the network.
    Network(Event),
    /// End the thread.
    End,
}

/// What the executor has done.
#[derive(Debug)]
pub enum Report {
    /// The group runs.
    Started(GroupId, Epoch),
    /// Nothing of the group runs here any more.
    Stopped(GroupId, Epoch),
    /// The group can receive, for a planned move.
    Received(GroupId, Index),
    /// It cannot; what was begun of it is stopped by the core.
    ReceiveFailed(GroupId, Index, String),
    /// The flows that drained here have ended.
    Drained(GroupId, Epoch, DrainSummary),
    /// A letter for another agent.
    Mail(VoterId, Mail),
    /// Whether a group could be taken over here; the text says why not.
    Readiness(GroupId, Option<String>),
    /// The group could not be started; what was started of it has been stopped.
    StartFailed(GroupId, Epoch, String),
}

/// What one group consists of.
pub struct Stack {
    /// Its resources, in the order in which they start.
    pub resources: Vec<Box<dyn Resource>>,
    /// How many addresses they carry, for the flight recorder.
    pub addresses: usize,
    /// Whether a resource needs to know what the owner's knows before a planned move.
    pub knowledge: bool,
}

/// Reads the flows without connections of a row of the gate.
pub type FlowSource = Box<dyn Fn(u32) -> Result<Vec<Flow>, KernelError> + Send>;

/// What the thread needs of the rest of the agent.
pub struct Surroundings {
    /// Where its reports go.
    pub reports: UnboundedSender<Input>,
    /// The flight recorder.
    pub recorder: Recorder,
    /// What arrives from other agents.
    pub board: Arc<Board>,
    /// The flows that are known here.
    pub flows: FlowSource,
    /// Groups that are adopted as they are: what runs of them is not stopped.
    pub adopted: BTreeSet<GroupId>,
    /// Whether the thread gets a realtime priority.
    pub realtime: bool,
}

/// The handle of the executor's thread.
#[derive(Debug)]
pub struct Executor {
    jobs: mpsc::Sender<Job>,
    events: Arc<Events>,
    thread: Option<JoinHandle<()>>,
}

/// The network events in the queue.
#[derive(Debug, Default)]
struct Events {
    waiting: AtomicUsize,
    /// Some were dropped since everything was last looked at.
    missed: AtomicBool,
}

impl Events {
    /// Whether one more may wait.
    fn admit(&self) -> bool {
        if self.waiting.fetch_add(1, SeqCst) < EVENTS_MAX {
            return true;
        }
        // Before the place is given back: whoever takes the last event out sees it.
        self.missed.store(true, SeqCst);
        self.waiting.fetch_sub(1, SeqCst);
        false
    }

    /// One was taken out; whether some were dropped meanwhile.
    fn taken(&self) -> bool {
        self.waiting.fetch_sub(1, SeqCst);
        self.missed.swap(false, SeqCst)
    }
}

impl Executor {
    /// Starts the thread with the stacks of all groups that may run here. What still runs of an earlier agent, and is not
    /// adopted, is stopped first.
    pub fn start(groups: BTreeMap<GroupId, Stack>, surroundings: Surroundings) -> io::Result<Self> {
        let Surroundings { reports, recorder, board, flows, adopted, realtime } = surroundings;
        let (jobs, queue) = mpsc::channel();
        let events = Arc::new(Events::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let groups = groups
            .into_iter()
            .map(|(id, stack)| (id, Group { stack, running: None, stopping: None, schedule: None, unready: None }))
            .collect();
        let mut work = Loop {
            groups,
            reports,
            recorder,
            board,
            flows,
            runtime,
            events: Arc::clone(&events),
            monitor_due: clock::now(),
            readiness_due: clock::now(),
        };
        let thread = std::thread::Builder::new().name("executor".into()).spawn(move || {
            if realtime && let Err(error) = realtime::become_fifo(realtime::WORKER_PRIORITY) {
                warn!(%error, "the executor runs without realtime priority");
            }
            work.run(&queue, &adopted);
        })?;
        Ok(Self { jobs, events, thread: Some(thread) })
    }

    /// Hands a job over; never waits.
    pub fn send(&self, job: Job) {
        if matches!(job, Job::Network(_)) && !self.events.admit() {
            return;
        }
        if let Err(mpsc::SendError(job)) = self.jobs.send(job) {
            error!(?job, "the executor has ended");
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // What waits is worked off first; a thread that has ended needs no job.
        drop(self.jobs.send(Job::End));
        if let Some(thread) = self.thread.take() {
            // An error is a panic of the thread, which was printed already.
            drop(thread.join());
        }
    }
}

struct Group {
    stack: Stack,
    running: Option<Epoch>,
    /// A stop that has failed so far, and when it is tried again: the core waits for its report.
    stopping: Option<(Epoch, Nanos)>,
    schedule: Option<Schedule>,
    /// Why it could not be taken over here, as was last reported.
    unready: Option<String>,
}

struct Loop {
    groups: BTreeMap<GroupId, Group>,
    reports: UnboundedSender<Input>,
    recorder: Recorder,
    board: Arc<Board>,
    flows: FlowSource,
    runtime: tokio::runtime::Runtime,
    events: Arc<Events>,
    monitor_due: Nanos,
    readiness_due: Nanos,
}

impl Loop {
    fn run(&mut self, queue: &Receiver<Job>, adopted: &BTreeSet<GroupId>) {
        self.clear(adopted);
        self.attend();
        loop {
            match queue.recv_timeout(self.patience()) {
                Ok(Job::End) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(job) => self.work(job),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.stop_again();
            self.repeat_announcements();
            self.monitor();
            self.look_for_readiness();
        }
    }

    /// Until the next repeated announcement or monitor.
    fn patience(&self) -> Duration {
        let now = clock::now();
        let due = self.groups.values().filter_map(|g| g.schedule.as_ref()?.due());
        let again = self.groups.values().filter_map(|g| g.stopping.map(|(_, at)| at));
        let wait =
            due.chain(again).chain([self.monitor_due, self.readiness_due]).min().unwrap_or(now).saturating_sub(now);
        Duration::from_nanos(wait).min(IDLE)
    }

    /// Stops what an agent before this one may have left, but what is adopted: the gates are closed, so nobody is served by it.
    fn clear(&mut self, adopted: &BTreeSet<GroupId>) {
        for (id, group) in self.groups.iter_mut().filter(|(id, _)| !adopted.contains(*id)) {
            let context = Context { group: id.clone(), epoch: 0 };
            for resource in group.stack.resources.iter_mut().rev() {
                let left = matches!(settle(&self.runtime, resource.as_mut(), Operation::Probe, |r| r.probe()), Ok(h) if h != Health::Stopped);
                if left
                    && let Err(error) = settle(&self.runtime, resource.as_mut(), Operation::Stop, |r| r.stop(&context))
                {
                    error!(group = %id, %error, "what an earlier agent left could not be stopped");
                }
            }
        }
    }

    /// Brings up what runs on a standby too.
    fn attend(&mut self) {
        for (id, group) in &mut self.groups {
            for resource in &mut group.stack.resources {
                if let Err(error) = settle(&self.runtime, resource.as_mut(), Operation::Attend, |r| r.attend()) {
                    error!(group = %id, %error, "a resource is not ready here; it is tried again");
                }
            }
        }
    }

    fn work(&mut self, job: Job) {
        match job {
            Job::Start { group, epoch, after_flows } => {
                if after_flows && !self.board.wait_for_flows(&group, epoch.saturating_sub(1), FLOWS_WITHIN) {
                    warn!(%group, epoch, "the old owner has not told which flows it serves: some without connections may move");
                }
                self.start(&group, epoch);
            }
            Job::Receive(id, movement) => self.receive(&id, movement),
            Job::Export(id, movement, to) => self.export(id, movement, to),
            Job::TellFlows { group, slot, epoch, to } => self.tell_flows(&group, slot, epoch, to),
            Job::Drain(id, epoch) => self.drain(&id, epoch),
            Job::Stop(id, epoch) => self.stop(&id, epoch),
            Job::Announce(id) => {
                if let Some(group) = self.groups.get_mut(&id)
                    && group.running.is_some()
                {
                    group.schedule = Some(Schedule::from(clock::now()));
                }
            }
            Job::Network(event) => {
                let missed = self.events.taken();
                self.network(&event);
                if missed {
                    warn!("more changes of the network than could wait: everything is looked at");
                    self.network(&Event::Resynced);
                }
            }
            Job::Look => self.readiness_due = clock::now(),
            Job::End => {}
        }
    }

    fn start(&mut self, id: &GroupId, epoch: Epoch) {
        let Some(group) = self.groups.get_mut(id) else {
            let reason = "the configuration here does not name the group".to_owned();
            return self.report(Report::StartFailed(id.clone(), epoch, reason));
        };
        let context = Context { group: id.clone(), epoch };
        let mut failure = None;
        let addresses = group.stack.addresses;
        for resource in &mut group.stack.resources {
            match settle(&self.runtime, resource.as_mut(), Operation::Start, |r| r.start(&context)) {
                Ok(()) => {
                    let name = resource.name().to_owned();
                    for milestone in resource.milestones().iter().filter(|m| m.at != 0) {
                        let mark = match milestone.phase {
                            "address" => Mark::AddressesAdded { group: id.clone(), epoch, count: addresses },
                            "announce" => Mark::Announced { group: id.clone(), epoch },
                            _ => continue,
                        };
                        self.recorder.mark(milestone.at, mark);
                    }
                    self.recorder
                        .mark(clock::now(), Mark::ResourceStarted { group: id.clone(), epoch, resource: name });
                }
                Err(error) => {
                    failure = Some(error.to_string());
                    break;
                }
            }
        }
        if let Some(reason) = failure {
            self.recorder.mark(clock::now(), Mark::StartFailed { group: id.clone(), epoch, reason: reason.clone() });
            self.stop_stack(id, epoch);
            return self.report(Report::StartFailed(id.clone(), epoch, reason));
        }
        group.running = Some(epoch);
        let mut schedule = Schedule::from(clock::now());
        // The start has announced already.
        schedule.claim(clock::now());
        group.schedule = Some(schedule);
        self.recorder.mark(clock::now(), Mark::Started { group: id.clone(), epoch });
        self.report(Report::Started(id.clone(), epoch));
    }

    fn stop(&mut self, id: &GroupId, epoch: Epoch) {
        let stopped = self.stop_stack(id, epoch);
        if let Some(group) = self.groups.get_mut(id) {
            group.stopping = (!stopped).then(|| (epoch, clock::now() + STOP_AGAIN));
        }
        if stopped {
            self.recorder.mark(clock::now(), Mark::Stopped { group: id.clone(), epoch });
            self.report(Report::Stopped(id.clone(), epoch));
        }
    }

    /// Tries again what could not be stopped.
    fn stop_again(&mut self) {
        let now = clock::now();
        let due: Vec<_> = self
            .groups
            .iter()
            .filter_map(|(id, group)| group.stopping.filter(|(_, at)| *at <= now).map(|(epoch, _)| (id.clone(), epoch)))
            .collect();
        for (id, epoch) in due {
            self.stop(&id, epoch);
        }
    }

    /// Makes a group able to receive: what the owner's resources know first.
    fn receive(&mut self, id: &GroupId, movement: Index) {
        let outcome = self.try_receive(id, movement);
        let report = match outcome {
            Ok(()) => Report::Received(id.clone(), movement),
            Err(reason) => {
                // The next look at its readiness takes this back.
                if let Some(group) = self.groups.get_mut(id) {
                    group.unready = Some(reason.clone());
                }
                Report::ReceiveFailed(id.clone(), movement, reason)
            }
        };
        self.report(report);
    }

    fn try_receive(&mut self, id: &GroupId, movement: Index) -> Result<(), String> {
        let Some(group) = self.groups.get_mut(id) else {
            return Err("the configuration here does not name the group".to_owned());
        };
        let context = Context { group: id.clone(), epoch: 0 };
        let mut known = BTreeMap::new();
        if group.stack.knowledge {
            match self.board.take_knowledge(id, movement, KNOWLEDGE_WITHIN) {
                Some(resources) => known = resources,
                None => {
                    warn!(group = %id, "the owner has not told what its resources know: they go on with what they have")
                }
            }
        }
        for resource in &mut group.stack.resources {
            let ready = settle(&self.runtime, resource.as_mut(), Operation::Readiness, |r| r.readiness());
            if let Readiness::NotReady(why) = ready.map_err(|error| error.to_string())? {
                return Err(format!("{}: {why}", resource.name()));
            }
            if let Some(text) = known.get(resource.name()) {
                settle(&self.runtime, resource.as_mut(), Operation::Import, |r| r.import(text.as_bytes()))
                    .map_err(|error| error.to_string())?;
            }
            settle(&self.runtime, resource.as_mut(), Operation::Receive, |r| r.receive(&context))
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Tells the target of a planned move what the resources here know.
    fn export(&mut self, id: GroupId, movement: Index, to: VoterId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if !group.stack.knowledge {
            return;
        }
        let mut resources = BTreeMap::new();
        for resource in &mut group.stack.resources {
            let name = resource.name().to_owned();
            match settle(&self.runtime, resource.as_mut(), Operation::Export, |r| r.export()).map(String::from_utf8) {
                Ok(Ok(text)) if text.is_empty() => {}
                Ok(Ok(text)) => drop(resources.insert(name, text)),
                Ok(Err(error)) => warn!(group = %id, resource = name, %error, "what it knows is no text"),
                Err(error) => warn!(group = %id, %error, "the target starts without what the resource here knows"),
            }
        }
        self.report(Report::Mail(to, Mail::Knowledge { group: id, movement, resources }));
    }

    /// Tells the new owner which flows without connections this node goes on serving. It accepts none any more, so these are all.
    fn tell_flows(&mut self, group: &GroupId, slot: u32, epoch: Epoch, to: VoterId) {
        let flows = (self.flows)(slot).unwrap_or_else(|error| {
            warn!(%group, %error, "flows without connections cannot be read: they move to the new owner");
            Vec::new()
        });
        let mut letters: Vec<Vec<Flow>> = flows.chunks(FLOWS_MAX).map(<[Flow]>::to_vec).collect();
        let last = letters.pop().unwrap_or_default();
        for flows in letters {
            self.report(Report::Mail(to, Mail::Flows { group: group.clone(), epoch, flows, last: false }));
        }
        self.report(Report::Mail(to, Mail::Flows { group: group.clone(), epoch, flows: last, last: true }));
    }

    /// The group went to another node: what is open goes on, and nobody is told of the addresses any more.
    fn drain(&mut self, id: &GroupId, epoch: Epoch) {
        let Some(group) = self.groups.get_mut(id) else { return };
        group.running = None;
        group.schedule = None;
        let context = Context { group: id.clone(), epoch };
        for resource in group.stack.resources.iter_mut().rev() {
            if let Err(error) = settle(&self.runtime, resource.as_mut(), Operation::Drain, |r| r.drain(&context)) {
                error!(group = %id, %error, "open connections may break");
            }
        }
        self.recorder.mark(clock::now(), Mark::Draining { group: id.clone(), epoch });
    }

    /// Reports which groups could be taken over here, whenever that changes.
    fn look_for_readiness(&mut self) {
        let now = clock::now();
        if now < self.readiness_due {
            return;
        }
        self.readiness_due = now + READINESS_EVERY;
        let mut news = Vec::new();
        for (id, group) in &mut self.groups {
            let mut unready = None;
            for resource in &mut group.stack.resources {
                let name = resource.name().to_owned();
                // A resource that hangs must not hold up a takeover.
                let asked = resource.readiness().within(READINESS_WITHIN, &name, Operation::Readiness);
                unready = match self.runtime.block_on(asked) {
                    Ok(Readiness::Ready) => continue,
                    Ok(Readiness::NotReady(why)) => Some(format!("{}: {why}", resource.name())),
                    Err(error) => Some(error.to_string()),
                };
                break;
            }
            if group.unready != unready {
                group.unready = unready.clone();
                news.push(Report::Readiness(id.clone(), unready));
            }
        }
        news.into_iter().for_each(|report| self.report(report));
    }

    /// Stops a group from the bottom up; false when something of it may still run.
    fn stop_stack(&mut self, id: &GroupId, epoch: Epoch) -> bool {
        let Some(group) = self.groups.get_mut(id) else { return true };
        group.running = None;
        group.schedule = None;
        let context = Context { group: id.clone(), epoch };
        let mut stopped = true;
        for resource in group.stack.resources.iter_mut().rev() {
            if let Err(error) = settle(&self.runtime, resource.as_mut(), Operation::Stop, |r| r.stop(&context)) {
                error!(group = %id, %error, "a resource could not be stopped; the gate stays closed, and it is tried again");
                stopped = false;
            }
        }
        stopped
    }

    fn network(&mut self, event: &Event) {
        for (id, group) in &mut self.groups {
            for resource in &mut group.stack.resources {
                if let Err(error) =
                    settle(&self.runtime, resource.as_mut(), Operation::Monitor, |r| r.on_network(event))
                {
                    warn!(group = %id, %error, "the group could not follow a change of the network");
                }
            }
        }
    }

    fn repeat_announcements(&mut self) {
        let now = clock::now();
        for (id, group) in &mut self.groups {
            let Some(schedule) = &mut group.schedule else { continue };
            if !schedule.claim(now) {
                continue;
            }
            if schedule.due().is_none() {
                group.schedule = None;
            }
            for resource in &mut group.stack.resources {
                if let Err(error) = settle(&self.runtime, resource.as_mut(), Operation::Announce, |r| r.announce()) {
                    warn!(group = %id, %error, "the group could not be announced");
                }
            }
        }
    }

    fn monitor(&mut self) {
        let now = clock::now();
        if now < self.monitor_due {
            return;
        }
        let mut next = Duration::from_secs(60);
        for (id, group) in self.groups.iter_mut().filter(|(_, g)| g.running.is_some()) {
            for resource in &mut group.stack.resources {
                next = next.min(resource.monitor_interval().unwrap_or(next));
                match settle(&self.runtime, resource.as_mut(), Operation::Monitor, |r| r.monitor()) {
                    Ok(Health::Running) => {}
                    Ok(health) => warn!(group = %id, resource = resource.name(), ?health, "a resource is ill"),
                    Err(error) => warn!(group = %id, %error, "a resource could not be monitored"),
                }
            }
        }
        self.monitor_due = now + u64::try_from(next.as_nanos()).unwrap_or(Nanos::MAX / 2);
    }

    fn report(&self, report: Report) {
        // The driver ends first only at a stop.
        drop(self.reports.send(Input::Executor(report)));
    }
}

/// Takes the result of an operation, waiting for it within the resource's limit if it is not there at once.
fn settle<T>(
    runtime: &tokio::runtime::Runtime,
    resource: &mut dyn Resource,
    operation: Operation,
    work: impl for<'a> FnOnce(&'a mut dyn Resource) -> Work<'a, T>,
) -> Result<T, ResourceError> {
    let name = resource.name().to_owned();
    let limit = resource.timeouts().of(operation);
    match work(resource) {
        Work::Done(result) => result,
        pending => runtime.block_on(pending.within(limit, &name, operation)),
    }
}
