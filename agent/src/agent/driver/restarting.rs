//! The driver's part of a planned restart (docs/safety.md, rule 10): whether it may be, and how a start takes over from a keeper.

use std::sync::atomic::Ordering::Release;

use tracing::{info, warn};

use super::Driver;
use crate::{
    clock,
    cluster::{
        ids::{MILLISECOND, Nanos},
        state::Movement,
    },
};

impl Driver {
    /// Whether this agent may be restarted now without a gap.
    pub(super) fn may_restart(&self) -> Result<(), String> {
        let mine = |m: &Movement| m.from == self.me || m.to == self.me;
        let moving = self.core.state().groups.iter().find(|(_, g)| g.movement.as_ref().is_some_and(mine));
        if !self.kernel.enforced() {
            Err("without BPF nothing answers heartbeats while the agent restarts; stop it and start it again"
                .to_owned())
        } else if self.stopping.is_some() || self.leaving.is_some() {
            Err("the agent is about to end already".to_owned())
        } else if self.held.is_some() || !self.core.is_started() {
            Err("the agent has just been started, and its start is not in the log yet; try again in a moment"
                .to_owned())
        } else if let Some((group, _)) = moving {
            Err(format!("group {group} is being moved from or to this node; try again when that is over"))
        } else {
            Ok(())
        }
    }

    /// After a start with a keeper: the gates reflect the own barrier now, so this agent beats itself (rule 10).
    pub(super) fn take_over(&mut self) {
        let Some(held) = self.held.take() else { return };
        self.kernel.publish(self.facts.incarnation);
        self.pulse.quiet.store(false, Release);
        held.end();
        info!(
            after_ms = (clock::now() - self.facts.started) / MILLISECOND,
            "the gates went on, and follow this agent now"
        );
    }

    /// The keeper ended before that: nothing is kept, and the start goes on in the ordinary way.
    pub(super) fn begin_anew(&mut self, now: Nanos) {
        if self.held.take().is_none() {
            return;
        }
        warn!("the keeper has ended before this agent's start was in the log: the gates close until it is");
        self.core.forget_adopted(now);
        self.kernel.begin_anew(self.facts.incarnation);
        self.pulse.quiet.store(false, Release);
    }
}
