//! What a planned move asks of the resources: at the target to be ready, at the owner to hand over what it knows, and to drain.

use std::{collections::BTreeMap, time::Duration};

use tokio::runtime::Runtime;
use tracing::{error, warn};

use super::{
    Loop, Report,
    settle::{each, settle},
};
use crate::{
    agent::mail::{FLOWS_MAX, Mail},
    clock,
    cluster::ids::{Epoch, GroupId, Index, MILLISECOND, Nanos, VoterId},
    kernel::Flow,
    resources::{Context, Operation, Readiness, Resource},
    telemetry::mark::Mark,
};

/// How long a target waits for what the owner's resources know; without it they start with what they have.
const KNOWLEDGE_WITHIN: Duration = Duration::from_millis(1_000);
/// How long a resource may take to say whether its group could be taken over here.
const READINESS_WITHIN: Duration = Duration::from_millis(250);
/// How often it is asked whether the groups could be taken over here.
const READINESS_EVERY: Nanos = 2_000 * MILLISECOND;

impl Loop {
    /// Makes a group able to receive: what the owner's resources know first.
    pub(super) fn receive(&mut self, id: &GroupId, movement: Index) {
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
        for resource in group.stack.top_down() {
            let within = resource.timeouts().of(Operation::Readiness);
            if let Some(why) = unready(&self.runtime, resource, within) {
                return Err(why);
            }
            if let Some(text) = known.get(resource.name()) {
                settle(&self.runtime, resource, Operation::Import, |r| r.import(text.as_bytes()))
                    .map_err(|error| error.to_string())?;
            }
            settle(&self.runtime, resource, Operation::Receive, |r| r.receive(&context))
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Tells the target of a planned move what the resources here know.
    pub(super) fn export(&mut self, id: GroupId, movement: Index, to: VoterId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if !group.stack.knowledge {
            return;
        }
        let mut resources = BTreeMap::new();
        for resource in group.stack.top_down() {
            let name = resource.name().to_owned();
            match settle(&self.runtime, resource, Operation::Export, |r| r.export()).map(String::from_utf8) {
                Ok(Ok(text)) if text.is_empty() => {}
                Ok(Ok(text)) => drop(resources.insert(name, text)),
                Ok(Err(error)) => warn!(group = %id, resource = name, %error, "what it knows is no text"),
                Err(error) => warn!(group = %id, %error, "the target starts without what the resource here knows"),
            }
        }
        self.report(Report::Mail(to, Mail::Knowledge { group: id, movement, resources }));
    }

    /// Tells the new owner which flows without connections this node goes on serving. It accepts none any more, so these are all.
    pub(super) fn tell_flows(&mut self, group: &GroupId, slot: u32, epoch: Epoch, to: VoterId) {
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
    pub(super) fn drain(&mut self, id: &GroupId, epoch: Epoch) {
        let Some(group) = self.groups.get_mut(id) else { return };
        group.running = None;
        group.schedule = None;
        let context = Context { group: id.clone(), epoch };
        for error in each(&self.runtime, group.stack.bottom_up(), Operation::Drain, |r| r.drain(&context)) {
            error!(group = %id, %error, "open connections may break");
        }
        self.recorder.mark(clock::now(), Mark::Draining { group: id.clone(), epoch });
    }

    /// Reports which groups could be taken over here, whenever that changes.
    pub(super) fn look_for_readiness(&mut self) {
        let now = clock::now();
        if now < self.readiness_due {
            return;
        }
        self.readiness_due = now + READINESS_EVERY;
        let mut news = Vec::new();
        for (id, group) in &mut self.groups {
            // A resource that hangs must not hold up a takeover.
            let unready = group.stack.top_down().find_map(|r| unready(&self.runtime, r, READINESS_WITHIN));
            if group.unready != unready {
                group.unready = unready.clone();
                news.push(Report::Readiness(id.clone(), unready));
            }
        }
        news.into_iter().for_each(|report| self.report(report));
    }
}

/// Why a resource is not ready to be taken over here, in words.
fn unready(runtime: &Runtime, resource: &mut dyn Resource, within: Duration) -> Option<String> {
    let name = resource.name().to_owned();
    let asked = resource.readiness().within(within, &name, Operation::Readiness);
    match runtime.block_on(asked) {
        Ok(Readiness::Ready) => None,
        Ok(Readiness::NotReady(why)) => Some(format!("{name}: {why}")),
        Err(error) => Some(error.to_string()),
    }
}
