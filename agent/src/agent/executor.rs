//! The executor: a thread that starts and stops the resources of this node's groups, announces and repairs them, and reports.
//!
//! The core never waits for it. Jobs of one group are carried out in the order in which they were sent. What a planned move asks for
//! is in `planned`.

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

use super::{inputs::Input, mail::Board};
use crate::{
    clock,
    cluster::ids::{Epoch, GroupId, MILLISECOND, Nanos},
    kernel::{Flow, KernelError},
    netlink::{announce::Schedule, watch::Event},
    realtime,
    resources::{Context, Health, Operation, Resource},
    telemetry::{mark::Mark, recorder::Recorder},
};

mod jobs;
mod planned;
mod settle;
mod switched;
#[cfg(test)]
mod tests;

pub use jobs::{Job, Report};
use settle::{each, settle};

/// Network events that may wait; what comes beyond is dropped, and everything is looked at once instead. Orders of the core are
/// never dropped, since it would wait for their report for ever: it has at most a start or a stop of each group under way.
const EVENTS_MAX: usize = 4096;
/// After how long a stop that failed is tried again.
const STOP_AGAIN: Nanos = 1_000 * MILLISECOND;
/// How long a start waits for the flows that the old owner goes on serving: it only delays the announcement.
const FLOWS_WITHIN: Duration = Duration::from_millis(250);
/// The longest that the thread sleeps.
const IDLE: Duration = Duration::from_secs(1);

/// What one group consists of.
pub struct Stack {
    /// Its resources, in the order in which they start.
    pub resources: Vec<Box<dyn Resource>>,
    /// How many addresses they carry, for the flight recorder.
    pub addresses: usize,
    /// Whether a resource needs to know what the owner's knows before a planned move.
    pub knowledge: bool,
}

impl Stack {
    /// The resources in the order in which they start.
    fn top_down(&mut self) -> impl Iterator<Item = &mut dyn Resource> {
        self.resources.iter_mut().map(|resource| &mut **resource as _)
    }

    /// The resources in the order in which they stop.
    fn bottom_up(&mut self) -> impl Iterator<Item = &mut dyn Resource> {
        self.resources.iter_mut().rev().map(|resource| &mut **resource as _)
    }
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
            .map(|(id, stack)| {
                (
                    id,
                    Group {
                        stack,
                        running: None,
                        stopping: None,
                        schedule: None,
                        unready: None,
                        unmanaged: BTreeSet::new(),
                        maintenance: false,
                    },
                )
            })
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
    /// Resources that are neither started nor stopped, by an operator's order.
    unmanaged: BTreeSet<String>,
    /// Whether an operator works on it: what fails is only reported.
    maintenance: bool,
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
            for resource in group.stack.bottom_up() {
                let left = matches!(settle(&self.runtime, resource, Operation::Probe, |r| r.probe()), Ok(h) if h != Health::Stopped);
                if left && let Err(error) = settle(&self.runtime, resource, Operation::Stop, |r| r.stop(&context)) {
                    error!(group = %id, %error, "what an earlier agent left could not be stopped");
                }
            }
        }
    }

    /// Brings up what runs on a standby too.
    fn attend(&mut self) {
        for (id, group) in &mut self.groups {
            for error in each(&self.runtime, group.stack.top_down(), Operation::Attend, |r| r.attend()) {
                error!(group = %id, %error, "a resource is not ready here; it is tried again");
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
            Job::Mode { group, maintenance, unmanaged } => self.set_mode(&group, maintenance, unmanaged),
            Job::Restart(id, resource) => self.restart(&id, &resource),
            Job::Cleanup(id, resource) => self.clean_up(&id, resource.as_deref()),
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
        let managed = |r: &dyn Resource| !group.unmanaged.contains(switched::name_in(id, r));
        for resource in group.stack.resources.iter_mut().filter(|r| managed(r.as_ref())) {
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

    /// Stops a group from the bottom up; false when something of it may still run.
    fn stop_stack(&mut self, id: &GroupId, epoch: Epoch) -> bool {
        let Some(group) = self.groups.get_mut(id) else { return true };
        group.running = None;
        group.schedule = None;
        let context = Context { group: id.clone(), epoch };
        let unmanaged = &group.unmanaged;
        let managed =
            group.stack.resources.iter_mut().rev().filter(|r| !unmanaged.contains(switched::name_in(id, r.as_ref())));
        let managed = managed.map(|resource| &mut **resource as _);
        let failures = each(&self.runtime, managed, Operation::Stop, |r| r.stop(&context));
        for error in &failures {
            error!(group = %id, %error, "a resource could not be stopped; the gate stays closed, and it is tried again");
        }
        failures.is_empty() && !self.runs_unmanaged(id)
    }

    fn network(&mut self, event: &Event) {
        for (id, group) in &mut self.groups {
            for error in each(&self.runtime, group.stack.top_down(), Operation::Monitor, |r| r.on_network(event)) {
                warn!(group = %id, %error, "the group could not follow a change of the network");
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
            for error in each(&self.runtime, group.stack.top_down(), Operation::Announce, |r| r.announce()) {
                warn!(group = %id, %error, "the group could not be announced");
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
                    Ok(health) => {
                        let maintenance = group.maintenance;
                        warn!(group = %id, resource = resource.name(), ?health, maintenance, "a resource is ill");
                    }
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
