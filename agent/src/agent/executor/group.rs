//! The task of one group: it takes the group's jobs one after the other, and looks after what runs in between.

use std::{collections::BTreeSet, rc::Rc, sync::Arc, time::Duration};

use tokio::sync::{Semaphore, mpsc::UnboundedSender};
use tracing::{error, warn};

use super::{
    FlowSource, Report,
    failures::Failures,
    inbox::{Inbox, ends_start, ends_stop},
    jobs::Job,
    settle::{Direction, each, ordered, settle, stop},
    stack::{Condition, Policy, Stack},
    switched::Mode,
};
use crate::{
    agent::{inputs::Input, mail::Board},
    clock,
    cluster::ids::{Epoch, GroupId, MILLISECOND, Nanos},
    netlink::{announce::Schedule, watch::Event},
    resources::{Context, Health, Operation},
    telemetry::{mark::Mark, recorder::Recorder, run::GroupRun},
};

/// After how long a stop that failed is tried again.
const STOP_AGAIN: Nanos = 1_000 * MILLISECOND;
/// How long a start waits for the flows that the old owner goes on serving: it only delays the announcement.
const FLOWS_WITHIN: Duration = Duration::from_millis(250);
/// The longest that the task sleeps.
const IDLE: Duration = Duration::from_secs(1);

/// What the tasks of all groups share.
pub(super) struct Shared {
    pub reports: UnboundedSender<Input>,
    pub recorder: Recorder,
    pub board: Arc<Board>,
    pub flows: FlowSource,
    /// How many groups that must not run twice may be starting at once.
    pub starts: Semaphore,
}

/// The task's state.
pub(super) struct Group {
    pub id: GroupId,
    pub stack: Stack,
    pub inbox: Inbox,
    pub shared: Rc<Shared>,
    /// The epoch in which it runs, whatever is restarted of it.
    pub running: Option<Epoch>,
    /// A stop that has failed so far, and when it is tried again: the core waits for its report.
    pub stopping: Option<(Epoch, Nanos)>,
    /// What operators have switched.
    pub mode: Mode,
    /// How the resources run, as was last reported.
    pub told: Option<GroupRun>,
    /// What could not be stopped.
    pub blocked: Option<String>,
    pub schedule: Option<Schedule>,
    /// Why it could not be taken over here, as was last reported.
    pub unready: Option<String>,
    pub failures: Failures,
    /// When each slot is looked at next.
    pub looks: Vec<Nanos>,
    /// How often looks were cut short, one after the other.
    pub cut_short: u32,
    pub readiness_due: Nanos,
}

impl Group {
    pub fn new(id: GroupId, stack: Stack, inbox: Inbox, shared: Rc<Shared>) -> Self {
        let now = clock::now();
        let looks = vec![now; stack.slots.len()];
        Self {
            id,
            stack,
            inbox,
            shared,
            running: None,
            stopping: None,
            mode: Mode::default(),
            told: None,
            blocked: None,
            schedule: None,
            unready: None,
            failures: Failures::default(),
            looks,
            cut_short: 0,
            readiness_due: now,
        }
    }

    /// Works until there are no more jobs. What an earlier agent left is stopped first, unless it is adopted as it is.
    pub async fn run(mut self, adopted: bool) {
        if !adopted {
            self.clear().await;
        }
        self.attend().await;
        loop {
            let job = match tokio::time::timeout(self.patience(), self.inbox.next()).await {
                Ok(None | Some(Job::End)) => return,
                Ok(Some(job)) => Some(job),
                Err(_) => None,
            };
            if let Some(job) = job {
                self.work(job).await;
            }
            self.stop_again().await;
            self.repeat_announcement().await;
            self.look().await;
            self.look_for_readiness().await;
            self.tell_run();
        }
    }

    /// Until something is due.
    fn patience(&self) -> Duration {
        let now = clock::now();
        let looks =
            self.stack.slots.iter().zip(&self.looks).filter(|(slot, _)| self.is_looked_at(slot)).map(|(_, due)| *due);
        let announcement = self.schedule.as_ref().and_then(Schedule::due);
        let due = looks.chain(announcement).chain(self.stopping.map(|(_, at)| at)).chain([self.readiness_due]).min();
        Duration::from_nanos(due.unwrap_or(now).saturating_sub(now)).min(IDLE)
    }

    async fn work(&mut self, job: Job) {
        match job {
            Job::Start { epoch, after_flows, .. } => {
                let (id, board) = (self.id.clone(), Arc::clone(&self.shared.board));
                let flows =
                    async { !after_flows || board.wait_for_flows(&id, epoch.saturating_sub(1), FLOWS_WITHIN).await };
                if !self.inbox.unless(ends_start, flows).await.unwrap_or(true) {
                    warn!(group = %id, epoch, "the old owner has not told which flows it serves: some without connections may move");
                }
                self.start(epoch).await;
            }
            Job::Receive(_, movement) => self.receive(movement).await,
            Job::Export(_, movement, to) => self.export(movement, to).await,
            Job::TellFlows { slot, epoch, to, .. } => self.tell_flows(slot, epoch, to),
            Job::Drain(_, epoch) => self.drain(epoch).await,
            Job::Stop(_, epoch) => self.stop(epoch).await,
            Job::Announce(_) if self.running.is_some() => self.schedule = Some(Schedule::from(clock::now())),
            Job::Mode { maintenance, unmanaged, .. } => self.mode = Mode { maintenance, unmanaged },
            Job::Restart(_, resource) => self.restart(&resource).await,
            Job::Cleanup(_, resource) => self.clean_up(resource.as_deref()),
            Job::Died(_, resource, status) => self.died(&resource, &status).await,
            Job::Network(event) => {
                let missed = self.inbox.events.taken();
                self.network(&event).await;
                if missed {
                    warn!(group = %self.id, "more changes of the network than could wait: everything is looked at");
                    self.network(&Event::Resynced).await;
                }
            }
            Job::Look => self.readiness_due = clock::now(),
            Job::Announce(_) | Job::End => {}
        }
    }

    /// Stops what an agent before this one may have left: the gates are closed, so nobody is served by it.
    async fn clear(&mut self) {
        let context = self.context(0);
        let mut left = BTreeSet::new();
        for (at, slot) in self.stack.slots.iter_mut().enumerate() {
            let found = settle(slot.resource.as_mut(), Operation::Probe, |r| r.probe()).await;
            if found.is_ok_and(|health| health != Health::Stopped) {
                left.insert(at);
            }
        }
        // What stands on something that is to be stopped is stopped before it.
        let left = self.stack.dependents(&left);
        let begin = |slot| stop(slot, context.clone());
        for (_, error) in ordered(&mut self.stack, &left, Direction::Down, begin).await {
            error!(group = %self.id, %error, "what an earlier agent left could not be stopped");
        }
    }

    /// Brings up what runs on a standby too.
    async fn attend(&mut self) {
        for error in each(self.stack.slots.iter_mut(), Operation::Attend, |r| r.attend()).await {
            error!(group = %self.id, %error, "a resource is not ready here; it is tried again");
        }
    }

    async fn stop(&mut self, epoch: Epoch) {
        self.running = None;
        self.schedule = None;
        let managed = self.managed();
        for at in &managed {
            self.stack.slots[*at].condition = Condition::Stopping;
        }
        self.tell_progress();
        let Some(mut failures) = self.stop_slots(&managed, epoch, ends_stop).await else { return };
        if failures.is_empty() {
            failures.extend(self.unmanaged_that_runs().await);
        }
        if failures.is_empty() {
            self.stopping = None;
            self.blocked = None;
            self.tell_run();
            self.shared.recorder.mark(clock::now(), Mark::Stopped { group: self.id.clone(), epoch });
            return self.report(Report::Stopped(self.id.clone(), epoch));
        }
        self.stopping = Some((epoch, clock::now() + STOP_AGAIN));
        self.blocked = Some(failures.join("; "));
    }

    /// Stops some slots. Returns what failed: something of it may still run. `None`: a job ended it.
    pub(super) async fn stop_slots(
        &mut self,
        slots: &BTreeSet<usize>,
        epoch: Epoch,
        ends: fn(&Job) -> bool,
    ) -> Option<Vec<String>> {
        let context = self.context(epoch);
        let Self { stack, inbox, .. } = self;
        let work = ordered(stack, slots, Direction::Down, |slot| stop(slot, context.clone()));
        let failed = inbox.unless(ends, work).await?;
        Some(failed.into_iter().map(|(_, error)| error.to_string()).collect())
    }

    /// Tries again what could not be stopped.
    async fn stop_again(&mut self) {
        if let Some((epoch, at)) = self.stopping
            && clock::now() >= at
        {
            self.stop(epoch).await;
        }
    }

    async fn network(&mut self, event: &Event) {
        for error in each(self.stack.slots.iter_mut(), Operation::Monitor, |r| r.on_network(event)).await {
            warn!(group = %self.id, %error, "the group could not follow a change of the network");
        }
    }

    async fn repeat_announcement(&mut self) {
        let Some(schedule) = &mut self.schedule else { return };
        if !schedule.claim(clock::now()) {
            return;
        }
        if schedule.due().is_none() {
            self.schedule = None;
        }
        for error in each(self.stack.slots.iter_mut(), Operation::Announce, |r| r.announce()).await {
            warn!(group = %self.id, %error, "the group could not be announced");
        }
    }

    /// A resource's own news of its death. Those that see to themselves have told the driver already.
    async fn died(&mut self, resource: &str, status: &str) {
        let named = |slot: &super::stack::Slot| slot.name == resource || slot.resource.name() == resource;
        let Some(at) = self.stack.slots.iter().position(named) else { return };
        let slot = &self.stack.slots[at];
        if self.running.is_some() && slot.policy != Policy::Own && slot.condition == Condition::Running {
            self.failed(at, status.to_owned()).await;
        }
    }

    pub(super) fn context(&self, epoch: Epoch) -> Context {
        Context { group: self.id.clone(), epoch }
    }

    pub(super) fn report(&self, report: Report) {
        // The driver ends first only at a stop.
        drop(self.shared.reports.send(Input::Executor(report)));
    }
}
