//! What operators ask of a group and its resources: hands off, a restart, a fresh start for what failed. And what they are told.

use std::collections::BTreeSet;

use tracing::info;

use super::{
    Report,
    group::Group,
    settle::settle,
    stack::{Condition, Slot},
};
use crate::{
    clock,
    resources::{Health, Operation},
    telemetry::run::{GroupRun, ResourceState, RunState},
};

/// What operators have switched of a group.
#[derive(Debug, Default)]
pub(super) struct Mode {
    /// Failures are only reported.
    pub maintenance: bool,
    /// Resources that are neither started, stopped nor restarted.
    pub unmanaged: BTreeSet<String>,
}

impl Group {
    /// The slots that may be touched.
    pub(super) fn managed(&self) -> BTreeSet<usize> {
        let managed = |slot: &Slot| !self.mode.unmanaged.contains(&slot.name);
        self.stack.slots.iter().enumerate().filter(|(_, slot)| managed(slot)).map(|(at, _)| at).collect()
    }

    /// Stops a resource and what requires it, and starts them again.
    pub(super) async fn restart(&mut self, name: &str) {
        let (Some(epoch), Some(at)) = (self.running, self.stack.slots.iter().position(|slot| slot.name == name)) else {
            return;
        };
        info!(group = %self.id, resource = name, "restarted by order");
        self.again(at, epoch).await;
    }

    /// Forgets what failed, and tries again at once what could not be stopped.
    pub(super) fn clean_up(&mut self, resource: Option<&str>) {
        let concerned = |slot: &Slot| resource.is_none_or(|name| slot.name == name);
        for (at, slot) in self.stack.slots.iter_mut().enumerate().filter(|(_, slot)| concerned(slot)) {
            self.failures.forget(at);
            slot.last_error = None;
        }
        if let Some((_, at)) = &mut self.stopping {
            *at = clock::now();
        }
    }

    /// What is unmanaged and may run, so that nobody can say that the group is stopped.
    pub(super) async fn unmanaged_that_runs(&mut self) -> Option<String> {
        for slot in self.stack.slots.iter_mut().filter(|slot| self.mode.unmanaged.contains(&slot.name)) {
            let found = settle(slot.resource.as_mut(), Operation::Probe, |r| r.probe()).await;
            if !matches!(found, Ok(Health::Stopped)) {
                let (group, name) = (&self.id, &slot.name);
                return Some(format!(
                    "{name} is unmanaged and may run: stop it, or `baton resource manage {group} {name}`"
                ));
            }
        }
        None
    }

    /// As [`Self::tell_run`], while something begins. Addresses alone are there at once: nothing is told ahead of them on the way
    /// of a takeover.
    pub(super) fn tell_progress(&mut self) {
        if self.stack.slots.len() > 1 {
            self.tell_run();
        }
    }

    /// Reports how the resources run, whenever that changes.
    pub(super) fn tell_run(&mut self) {
        let now = clock::now();
        let resources = self.stack.slots.iter().enumerate().map(|(at, slot)| {
            let state = match &slot.condition {
                _ if self.mode.unmanaged.contains(&slot.name) => RunState::Unmanaged,
                Condition::Stopped => RunState::Stopped,
                Condition::Starting => RunState::Starting,
                Condition::Running => RunState::Running,
                Condition::Failed(_) => RunState::Failed,
                Condition::Stopping => RunState::Stopping,
                Condition::Stuck(_) => RunState::Blocked,
            };
            let before = self.told.as_ref().and_then(|run| run.resources.get(at)).filter(|r| r.state == state);
            ResourceState {
                name: slot.name.clone(),
                kind: slot.kind.to_owned(),
                state,
                since: before.map_or(now, |r| r.since),
                failures: self.failures.count(at, now, self.stack.failure_timeout),
                last_error: slot.last_error.clone(),
            }
        });
        let run = GroupRun { blocked: self.blocked.clone(), resources: resources.collect() };
        if self.told.as_ref() != Some(&run) {
            self.told = Some(run.clone());
            self.report(Report::Run(self.id.clone(), run));
        }
    }
}
