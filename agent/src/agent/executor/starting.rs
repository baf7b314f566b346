//! Starting a group: its resources as the order allows, again in place where that is the policy, until it runs or is given up.

use std::{collections::BTreeSet, time::Duration};

use futures::future::BoxFuture;
use tracing::{error, info};

use super::{
    Report,
    failures::pause,
    group::Group,
    inbox::ends_start,
    settle::{Direction, ordered, settle},
    stack::{Condition, Policy, Slot},
};
use crate::{
    clock,
    cluster::ids::Epoch,
    netlink::announce::Schedule,
    resources::{Context, Operation, ResourceError},
    telemetry::{mark::Mark, recorder::Recorder},
};

/// How bringing a group up ended.
#[derive(Debug, PartialEq, Eq)]
enum Brought {
    /// All runs that shall.
    Up,
    /// A job that waits ended it.
    Interrupted,
    /// It cannot be, and why not.
    GivenUp(String),
}

impl Group {
    /// Starts the group and reports what came of it; a stop that arrives meanwhile ends it without a report.
    pub(super) async fn start(&mut self, epoch: Epoch) {
        let stops_first = self.stack.stops_first;
        let shared = std::rc::Rc::clone(&self.shared);
        // Many groups that load disks and processors at once would all be late.
        let permit = if stops_first { self.inbox.unless(ends_start, shared.starts.acquire()).await } else { None };
        if stops_first && permit.is_none() {
            return;
        }
        // Whatever runs already, from a drain or of an earlier agent, is taken over by being started again.
        for slot in &mut self.stack.slots {
            slot.condition = Condition::Stopped;
        }
        match self.bring_up(epoch).await {
            Brought::Interrupted => {}
            Brought::GivenUp(reason) => {
                let mark = Mark::StartFailed { group: self.id.clone(), epoch, reason: reason.clone() };
                self.shared.recorder.mark(clock::now(), mark);
                self.report(Report::StartFailed(self.id.clone(), epoch, reason));
            }
            Brought::Up => {
                self.running = Some(epoch);
                let now = clock::now();
                let mut schedule = Schedule::from(now);
                // The start has announced already.
                schedule.claim(now);
                self.schedule = Some(schedule);
                self.look_later();
                self.shared.recorder.mark(now, Mark::Started { group: self.id.clone(), epoch });
                self.report(Report::Started(self.id.clone(), epoch));
            }
        }
    }

    /// A resource of the running group has failed: what stands on it is stopped, and all is started again, or the group is given up.
    pub(super) async fn failed(&mut self, at: usize, reason: String) {
        let Some(epoch) = self.running else { return };
        let policy = self.stack.slots[at].policy;
        error!(group = %self.id, resource = self.stack.slots[at].name, reason, "a resource has failed");
        self.stack.slots[at].condition = Condition::Failed(reason.clone());
        self.stack.slots[at].last_error = Some(reason.clone());
        if policy == Policy::Ignore || self.mode.maintenance {
            self.failures.note(at, clock::now(), self.stack.failure_timeout);
            return;
        }
        if let Err(reason) = self.may_restart(at, &reason) {
            return self.give_up(epoch, reason);
        }
        self.again(at, epoch).await;
    }

    /// Stops a slot and what requires it, and starts them again.
    pub(super) async fn again(&mut self, at: usize, epoch: Epoch) {
        let affected = self.stack.dependents(&BTreeSet::from([at]));
        let affected = affected.intersection(&self.managed()).copied().collect();
        let brought = match self.stop_some(&affected, epoch).await {
            None => return,
            Some(Err(reason)) => Brought::GivenUp(reason),
            Some(Ok(())) => match self.wait_before_restart(at).await {
                false => return,
                true => self.bring_up(epoch).await,
            },
        };
        match brought {
            Brought::Interrupted => {}
            Brought::GivenUp(reason) => self.give_up(epoch, reason),
            Brought::Up => {
                info!(group = %self.id, resource = self.stack.slots[at].name, "it runs again");
                self.look_later();
            }
        }
    }

    fn give_up(&mut self, epoch: Epoch, reason: String) {
        self.running = None;
        self.shared
            .recorder
            .mark(clock::now(), Mark::ResourceFailed { group: self.id.clone(), epoch, reason: reason.clone() });
        self.report(Report::Failed(self.id.clone(), epoch, reason));
    }

    /// Starts what does not run, until all does or the policy says that it is enough.
    async fn bring_up(&mut self, epoch: Epoch) -> Brought {
        loop {
            let down = |slot: &Slot| slot.condition != Condition::Running;
            let managed = self.managed();
            let mut slots = BTreeSet::new();
            for (at, slot) in self.stack.slots.iter_mut().enumerate().filter(|(at, s)| managed.contains(at) && down(s))
            {
                slot.condition = Condition::Starting;
                slots.insert(at);
            }
            self.tell_progress();
            let context = self.context(epoch);
            let addresses = self.stack.addresses;
            let Self { stack, inbox, shared, .. } = self;
            let begin = |slot| start(slot, context.clone(), &shared.recorder, addresses);
            let work = ordered(stack, &slots, Direction::Up, begin);
            let Some(failed) = inbox.unless(ends_start, work).await else { return Brought::Interrupted };
            let Some((at, error)) = failed.into_iter().next() else { return Brought::Up };
            let reason = error.to_string();
            if let Err(reason) = self.may_restart(at, &reason) {
                return Brought::GivenUp(reason);
            }
            error!(group = %self.id, reason, "a resource could not be started; it is tried again");
            match self.stop_some(&BTreeSet::from([at]), epoch).await {
                None => return Brought::Interrupted,
                Some(Err(reason)) => return Brought::GivenUp(reason),
                Some(Ok(())) => {}
            }
            if !self.wait_before_restart(at).await {
                return Brought::Interrupted;
            }
        }
    }

    /// Whether a resource that has failed once more may be started again in place; else why not.
    fn may_restart(&mut self, at: usize, reason: &str) -> Result<(), String> {
        let slot = &self.stack.slots[at];
        if matches!(slot.policy, Policy::Own | Policy::Move) {
            return Err(reason.to_owned());
        }
        let failures = self.failures.note(at, clock::now(), self.stack.failure_timeout);
        if failures < self.stack.threshold {
            return Ok(());
        }
        let within = crate::config::duration::show(self.stack.failure_timeout);
        Err(format!("{} has failed {failures} times within {within}, the last time: {reason}", slot.name))
    }

    /// Stops some slots. `None`: a job ended it. An error: something of them may still run.
    async fn stop_some(&mut self, slots: &BTreeSet<usize>, epoch: Epoch) -> Option<Result<(), String>> {
        let failed = self.stop_slots(slots, epoch, ends_start).await?;
        let failed = failed.into_iter().next();
        Some(failed.map_or(Ok(()), |error| Err(format!("it could not be stopped for a restart: {error}"))))
    }

    /// False: a job ended the wait.
    async fn wait_before_restart(&mut self, at: usize) -> bool {
        let pause = pause(self.failures.count(at, clock::now(), self.stack.failure_timeout));
        self.inbox.unless(ends_start, tokio::time::sleep(Duration::from_nanos(pause))).await.is_some()
    }
}

/// Starts a slot that is marked so, and stamps it. A start that is dropped leaves it `Starting`: it is stopped by all means.
fn start<'s>(
    slot: &'s mut Slot,
    context: Context,
    recorder: &'s Recorder,
    addresses: usize,
) -> BoxFuture<'s, Result<(), ResourceError>> {
    Box::pin(async move {
        let result = settle(slot.resource.as_mut(), Operation::Start, |r| r.start(&context)).await;
        if let Err(error) = result {
            slot.condition = Condition::Failed(error.to_string());
            slot.last_error = Some(error.to_string());
            if slot.policy == Policy::Ignore {
                // What requires it starts all the same.
                error!(group = %context.group, %error, "a resource could not be started; that is ignored");
                return Ok(());
            }
            return Err(error);
        }
        slot.condition = Condition::Running;
        let Context { group, epoch } = context;
        for milestone in slot.resource.milestones().iter().filter(|m| m.at != 0) {
            let mark = match milestone.phase {
                "address" => Mark::AddressesAdded { group: group.clone(), epoch, count: addresses },
                "announce" => Mark::Announced { group: group.clone(), epoch },
                _ => continue,
            };
            recorder.mark(milestone.at, mark);
        }
        let resource = slot.resource.name().to_owned();
        recorder.mark(clock::now(), Mark::ResourceStarted { group, epoch, resource });
        Ok(())
    })
}
