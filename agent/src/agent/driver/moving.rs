//! The driver's part of planned moves: what an order would do, the letters of other agents, and what follows from the gate's role.

use tracing::{info, warn};

use super::Driver;
use crate::{
    agent::{drains::Drain, executor::Job, inputs::Plan, mail::Mail},
    clock,
    cluster::{
        command::GateRole,
        core::OrderRefused,
        ids::{Epoch, GroupId, Nanos, VoterId},
        message::Order,
    },
    telemetry::mark::Mark,
};

impl Driver {
    /// What an order would do.
    pub(super) fn plan(&self, now: Nanos, order: &Order) -> Result<Plan, OrderRefused> {
        self.core.check_order(now, order)?;
        let Order::Move { group, to, .. } = order else { return Ok(Plan::default()) };
        let owner = self.core.state().groups.get(group).and_then(|g| g.owner);
        let peer = if owner == Some(self.me) { Some(*to) } else { owner };
        let breaks = (!self.core.would_steer(group, *to)).then(|| {
            let why = peer.and_then(|peer| self.steering.obstacle(peer, self.kernel.enforced()));
            why.unwrap_or_else(|| {
                "one of the two nodes cannot steer packets to the other (its log says why)".to_owned()
            })
        });
        let vips = self.facts.config.shared.groups.get(group).map(|g| g.vips.iter().map(|vip| vip.address).collect());
        Ok(Plan { breaks, here: vips.filter(|_| owner == Some(self.me)) })
    }

    pub(super) fn receive_mail(&mut self, now: Nanos, from: VoterId, mail: Mail) {
        match mail {
            Mail::Core(message) => self.core.on_message(now, from, message),
            Mail::Flows { group, epoch, flows, last } => {
                let Some(slot) = self.slots.of(&group) else { return };
                if let Err(error) = self.kernel.learn_flows(slot, &flows) {
                    warn!(%group, %error, "the flows that the old owner serves could not be noted: they move");
                }
                if last {
                    self.board.flows_have_come(group, epoch);
                }
            }
            Mail::Mend { number, mend } => {
                let answer = self.mend(now, &mend);
                self.send(from, &Mail::Mended { number, answer });
            }
            Mail::Mended { number, answer } => self.mended(now, from, number, answer),
            Mail::Knowledge { group, movement, resources } => {
                self.board.knowledge_has_come(group, movement, resources);
            }
        }
    }

    /// A group's gate was set: the flight recorder hears of it, and the new owner of flows that it cannot know.
    pub(super) fn gate_is_set(&mut self, group: GroupId, epoch: Epoch, role: GateRole, slot: u32) {
        let now = clock::now();
        match role {
            GateRole::Owner { .. } => self.recorder.mark(now, Mark::GateOpen { group, epoch }),
            GateRole::Closed => self.recorder.mark(now, Mark::GateClosed { group, epoch }),
            GateRole::Receive { .. } => {}
            GateRole::Drain { to } => {
                self.recorder.mark(now, Mark::Diverted { group: group.clone(), epoch });
                self.executor.send(Job::TellFlows { group, slot, epoch, to });
            }
        }
    }

    /// Serves the flows of a group that went to another node.
    pub(super) fn drain(&mut self, group: GroupId, epoch: Epoch) {
        let (Some(slot), Some(configured)) = (self.slots.of(&group), self.facts.config.shared.groups.get(&group))
        else {
            return;
        };
        info!(%group, epoch, "draining");
        let vips = configured.vips.iter().map(|vip| vip.address).collect();
        self.drains.begin(Drain { group: group.clone(), epoch, slot, vips, timeout: configured.drain_timeout_ns });
        self.executor.send(Job::Drain(group, epoch));
    }
}
