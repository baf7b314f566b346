//! Looking at what runs, by interval; and whether the group could be taken over here.

use std::time::Duration;

use futures::future::join_all;
use tracing::warn;

use super::{
    Report,
    group::Group,
    inbox::ends_start,
    jobs::Job,
    settle::settle,
    stack::{Condition, Policy, Slot},
};
use crate::{
    clock,
    cluster::ids::{MILLISECOND, Nanos},
    resources::{Health, Operation, Readiness, Resource},
};

/// How long a resource may take to say whether its group could be taken over here.
pub(super) const READINESS_WITHIN: Duration = Duration::from_millis(250);
/// How often it is asked whether the group could be taken over here.
const READINESS_EVERY: Nanos = 2_000 * MILLISECOND;
/// So often other jobs may cut looks short, one after the other; then only a stop does.
const CUT_SHORT_MAX: u32 = 3;

impl Group {
    /// Whether a slot is looked at now and then.
    pub(super) fn is_looked_at(&self, slot: &Slot) -> bool {
        self.running.is_some()
            && slot.interval_ns() > 0
            && matches!(slot.condition, Condition::Running | Condition::Failed(_))
            && !self.mode.unmanaged.contains(&slot.name)
    }

    /// The next looks are an interval away.
    pub(super) fn look_later(&mut self) {
        let now = clock::now();
        for (slot, due) in self.stack.slots.iter().zip(&mut self.looks) {
            *due = now + slot.interval_ns();
        }
    }

    /// Looks at the resources whose time has come, at all of them at once. What arrives meanwhile goes first.
    pub(super) async fn look(&mut self) {
        let now = clock::now();
        let due = |(at, slot): &(usize, &Slot)| self.is_looked_at(slot) && self.looks[*at] <= now;
        let due: Vec<usize> = self.stack.slots.iter().enumerate().filter(due).map(|(at, _)| at).collect();
        if due.is_empty() {
            return;
        }
        let patient = self.cut_short >= CUT_SHORT_MAX;
        let Self { stack, inbox, .. } = self;
        let looks =
            stack.slots.iter_mut().enumerate().filter(|(at, _)| due.contains(at)).map(|(at, slot)| async move {
                (at, settle(slot.resource.as_mut(), Operation::Monitor, |r| r.monitor()).await)
            });
        let ends = |job: &Job| !patient || ends_start(job);
        let Some(seen) = inbox.unless(ends, join_all(looks)).await else {
            self.cut_short += 1;
            return;
        };
        self.cut_short = 0;
        let now = clock::now();
        let mut failed = None;
        for (at, seen) in seen {
            let slot = &mut self.stack.slots[at];
            self.looks[at] = now + slot.interval_ns();
            let ill = match seen {
                Ok(Health::Running) => {
                    // One whose failures are ignored may come back by itself.
                    slot.condition = Condition::Running;
                    continue;
                }
                Ok(Health::Stopped) => format!("{} has stopped by itself", slot.name),
                Ok(Health::Failed(what)) => format!("{}: {what}", slot.name),
                Err(error) => error.to_string(),
            };
            match slot.policy {
                Policy::Own => warn!(group = %self.id, ill, "a resource is ill"),
                _ if matches!(slot.condition, Condition::Failed(_))
                    && (slot.policy == Policy::Ignore || self.mode.maintenance) => {}
                Policy::Restart | Policy::Move | Policy::Ignore => failed = failed.or(Some((at, ill))),
            }
        }
        if let Some((at, ill)) = failed {
            // Others that have failed as well are looked at again when this is over.
            self.failed(at, ill).await;
        }
    }

    /// Reports whether the group could be taken over here, whenever that changes.
    pub(super) async fn look_for_readiness(&mut self) {
        let now = clock::now();
        if now < self.readiness_due {
            return;
        }
        self.readiness_due = now + READINESS_EVERY;
        let Self { stack, inbox, .. } = self;
        // A resource that hangs must not hold up a takeover.
        let asked = first_unready(&mut stack.slots);
        let Some(unready) = inbox.unless(ends_start, asked).await else { return };
        if self.unready != unready {
            self.unready.clone_from(&unready);
            self.report(Report::Readiness(self.id.clone(), unready));
        }
    }
}

async fn first_unready(slots: &mut [Slot]) -> Option<String> {
    for slot in slots {
        if let Some(why) = unready(slot.resource.as_mut(), READINESS_WITHIN).await {
            return Some(why);
        }
    }
    None
}

/// Why a resource is not ready to be taken over here, in words.
pub(super) async fn unready(resource: &mut dyn Resource, within: Duration) -> Option<String> {
    let name = resource.name().to_owned();
    match resource.readiness().within(within, &name, Operation::Readiness).await {
        Ok(Readiness::Ready) => None,
        Ok(Readiness::NotReady(why)) => Some(format!("{name}: {why}")),
        Err(error) => Some(error.to_string()),
    }
}
