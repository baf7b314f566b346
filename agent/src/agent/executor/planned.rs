//! What a planned move asks of a group: to receive, to tell what it knows, to drain.

use std::{collections::BTreeMap, time::Duration};

use tracing::{error, warn};

use super::{
    Report,
    group::Group,
    inbox::ends_start,
    settle::{each, settle},
    watching::unready,
};
use crate::{
    agent::mail::{FLOWS_MAX, Mail},
    clock,
    cluster::ids::{Epoch, Index, VoterId},
    kernel::Flow,
    resources::Operation,
    telemetry::mark::Mark,
};

/// How long a target waits for what the owner's resources know; without it they start with what they have.
const KNOWLEDGE_WITHIN: Duration = Duration::from_millis(1_000);

impl Group {
    /// Makes the group able to receive: what the owner's resources know first.
    pub(super) async fn receive(&mut self, movement: Index) {
        let report = match self.try_receive(movement).await {
            Ok(()) => Report::Received(self.id.clone(), movement),
            Err(reason) => {
                // The next look at its readiness takes this back.
                self.unready = Some(reason.clone());
                Report::ReceiveFailed(self.id.clone(), movement, reason)
            }
        };
        self.report(report);
    }

    async fn try_receive(&mut self, movement: Index) -> Result<(), String> {
        let context = self.context(0);
        let mut known = BTreeMap::new();
        if self.stack.knowledge {
            let Self { inbox, shared, id, .. } = self;
            let told = shared.board.take_knowledge(id, movement, KNOWLEDGE_WITHIN);
            match inbox.unless(ends_start, told).await.flatten() {
                Some(resources) => known = resources,
                None => {
                    warn!(group = %self.id, "the owner has not told what its resources know: they go on with what they have")
                }
            }
        }
        for slot in &mut self.stack.slots {
            let resource = slot.resource.as_mut();
            let within = resource.timeouts().of(Operation::Readiness);
            if let Some(why) = unready(resource, within).await {
                return Err(why);
            }
            // What must not run twice is not touched before its owner has stopped it.
            if self.stack.stops_first {
                continue;
            }
            if let Some(text) = known.get(resource.name()) {
                settle(resource, Operation::Import, |r| r.import(text.as_bytes()))
                    .await
                    .map_err(|error| error.to_string())?;
            }
            let resource = slot.resource.as_mut();
            settle(resource, Operation::Receive, |r| r.receive(&context)).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Tells the target of a planned move what the resources here know.
    pub(super) async fn export(&mut self, movement: Index, to: VoterId) {
        if !self.stack.knowledge {
            return;
        }
        let mut resources = BTreeMap::new();
        for slot in &mut self.stack.slots {
            let name = slot.resource.name().to_owned();
            let known = settle(slot.resource.as_mut(), Operation::Export, |r| r.export()).await;
            match known.map(String::from_utf8) {
                Ok(Ok(text)) if text.is_empty() => {}
                Ok(Ok(text)) => drop(resources.insert(name, text)),
                Ok(Err(error)) => warn!(group = %self.id, resource = name, %error, "what it knows is no text"),
                Err(error) => warn!(group = %self.id, %error, "the target starts without what the resource here knows"),
            }
        }
        self.report(Report::Mail(to, Mail::Knowledge { group: self.id.clone(), movement, resources }));
    }

    /// Tells the new owner which flows without connections this node goes on serving. It accepts none any more, so these are all.
    pub(super) fn tell_flows(&mut self, slot: u32, epoch: Epoch, to: VoterId) {
        let flows = (self.shared.flows)(slot).unwrap_or_else(|error| {
            warn!(group = %self.id, %error, "flows without connections cannot be read: they move to the new owner");
            Vec::new()
        });
        let mut letters: Vec<Vec<Flow>> = flows.chunks(FLOWS_MAX).map(<[Flow]>::to_vec).collect();
        let last = letters.pop().unwrap_or_default();
        for flows in letters {
            self.report(Report::Mail(to, Mail::Flows { group: self.id.clone(), epoch, flows, last: false }));
        }
        self.report(Report::Mail(to, Mail::Flows { group: self.id.clone(), epoch, flows: last, last: true }));
    }

    /// The group went to another node: what is open goes on, and nobody is told of the addresses any more.
    pub(super) async fn drain(&mut self, epoch: Epoch) {
        self.running = None;
        self.schedule = None;
        let context = self.context(epoch);
        for error in each(self.stack.slots.iter_mut().rev(), Operation::Drain, |r| r.drain(&context)).await {
            error!(group = %self.id, %error, "open connections may break");
        }
        self.shared.recorder.mark(clock::now(), Mark::Draining { group: self.id.clone(), epoch });
    }
}
