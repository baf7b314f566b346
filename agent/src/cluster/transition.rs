//! This node's own groups: gate, start, stop, release, planned moves (docs/safety.md, rules 5 to 8).
//!
//! ```text
//!   Unknown ─Stop(0)─► Stopping ─stopped─► Stopped ─owner: gate opens, Start─► Starting ─started─► Running
//!                         ▲                                                       │                   │
//!                         └───── no longer owner at this epoch: gate closes, Stop ┴───────────────────┘
//! ```

use std::collections::BTreeMap;

use super::{
    command::Command,
    entry::{Cause, Entry},
    ids::{Epoch, GroupId, Index, MILLISECOND, Nanos},
    out::Out,
    sight::Sight,
    state::{GroupState, Movement},
};

#[cfg(test)]
mod tests;

/// How long a node refuses a group that failed there.
pub(super) const FAILURE_EXPIRES: Nanos = 30_000 * MILLISECOND;

/// This node's groups.
#[derive(Debug, Default)]
pub(super) struct Transitions {
    groups: BTreeMap<GroupId, Local>,
    /// The gate index last published.
    published: Index,
}

#[derive(Debug, Default)]
struct Local {
    stage: Stage,
    /// The epoch at which the gate is open.
    gate: Option<Epoch>,
    /// The epoch given up: never opened again by this incarnation (rule 6), and why it was.
    surrendered: Option<(Epoch, Cause)>,
    /// The movement for which the gate was closed (rule 7).
    diverting: Option<Index>,
    /// Until when this node refuses the group.
    refused_until: Nanos,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// What an earlier incarnation left behind is not known.
    #[default]
    Unknown,
    Stopped,
    Starting(Epoch),
    Running(Epoch),
    Stopping(Epoch),
}

/// What a step decided about the groups, in the order in which it must be carried out.
#[derive(Default)]
struct Plan {
    closes: Vec<Command>,
    opens: Vec<Command>,
    proposals: Vec<Entry>,
    starts: Vec<Command>,
    stops: Vec<Command>,
}

impl Transitions {
    /// Brings gates and resources in line with the state: gates first, then the gate index, then everything else.
    pub(super) fn step(&mut self, sight: &Sight<'_>, shutting_down: bool, out: &mut Out<'_>) {
        let acts = sight.started() || sight.settings.mutations.skip_owner_barrier;
        if !acts || !sight.agrees() {
            return;
        }
        for id in sight.state.groups.keys().filter(|id| sight.settings.may_run(id)) {
            self.groups.entry(id.clone()).or_default();
        }
        self.groups.retain(|id, local| local.stage != Stage::Stopped || sight.state.groups.contains_key(id));
        let mut plan = Plan::default();
        for (id, local) in &mut self.groups {
            local.step(sight, id, shutting_down, &mut plan, out);
        }
        self.release_strangers(sight, &mut plan);
        let Plan { closes, opens, proposals, starts, stops } = plan;
        closes.into_iter().chain(opens).for_each(|c| out.push(c));
        if sight.state.applied > self.published {
            self.published = sight.state.applied;
            out.push(Command::SetGateIndex(self.published));
        }
        for entry in proposals {
            out.propose(entry);
        }
        starts.into_iter().chain(stops).for_each(|c| out.push(c));
    }

    /// A group that this node owns by the log but may not run by its configuration is given up; its gate was never open.
    fn release_strangers(&self, sight: &Sight<'_>, plan: &mut Plan) {
        for (id, group) in &sight.state.groups {
            if group.owner == Some(sight.me()) && !self.groups.contains_key(id) {
                plan.proposals.push(release(sight, id, group.epoch, Cause::Resource));
            }
        }
    }

    /// The resources of the group run now. Returns whether the report was about what this node does now.
    pub(super) fn started(&mut self, id: &GroupId, epoch: Epoch) -> bool {
        self.advance(id, Stage::Starting(epoch), Stage::Running(epoch))
    }

    /// The resources of the group are stopped.
    pub(super) fn stopped(&mut self, id: &GroupId, epoch: Epoch) -> bool {
        self.advance(id, Stage::Stopping(epoch), Stage::Stopped)
    }

    fn advance(&mut self, id: &GroupId, from: Stage, to: Stage) -> bool {
        let local = self.groups.get_mut(id).filter(|l| l.stage == from);
        local.map(|l| l.stage = to).is_some()
    }

    /// The group could not be started, or failed while it ran: give it up, and refuse it for a while.
    pub(super) fn failed(&mut self, now: Nanos, id: &GroupId, epoch: Epoch) -> bool {
        let ours = |l: &&mut Local| l.stage == Stage::Starting(epoch) || l.stage == Stage::Running(epoch);
        let Some(local) = self.groups.get_mut(id).filter(ours) else {
            return false;
        };
        local.refused_until = now.saturating_add(FAILURE_EXPIRES);
        if local.surrendered.is_none_or(|(e, _)| e != epoch) {
            local.surrendered = Some((epoch, Cause::Resource));
        }
        true
    }

    /// Groups that this node refuses to take for now.
    pub(super) fn unfit(&self, sight: &Sight<'_>) -> Vec<GroupId> {
        let refused = |id: &&GroupId| self.groups.get(*id).is_none_or(|l| l.refuses(sight.now));
        sight.state.groups.keys().filter(refused).cloned().collect()
    }

    /// Groups whose resources run here at the epoch of the log.
    pub(super) fn running(&self) -> impl Iterator<Item = &GroupId> {
        self.groups.iter().filter(|(_, l)| matches!(l.stage, Stage::Running(e) if l.gate == Some(e))).map(|(id, _)| id)
    }

    /// Closes every gate, for an agent that cannot go on.
    pub(super) fn close_all(&mut self) -> Vec<Command> {
        let mut plan = Plan::default();
        for (id, local) in &mut self.groups {
            local.set_gate(id, None, &mut plan);
        }
        plan.closes
    }

    /// Whether no gate is open and no resource runs here.
    pub(super) fn idle(&self) -> bool {
        self.groups.values().all(|l| l.gate.is_none() && l.stage == Stage::Stopped)
    }
}

impl Local {
    fn refuses(&self, now: Nanos) -> bool {
        now < self.refused_until || matches!(self.stage, Stage::Unknown | Stage::Stopping(_))
    }

    fn step(&mut self, sight: &Sight<'_>, id: &GroupId, shutting_down: bool, plan: &mut Plan, out: &mut Out<'_>) {
        out.wake_at(self.refused_until);
        let m = &sight.settings.mutations;
        let group = sight.state.groups.get(id);
        let owned = group.filter(|g| g.owner == Some(sight.me()));
        let reason = self.reason_to_release(sight, id, shutting_down);
        if let (Some(g), Some(reason)) = (owned, reason)
            && self.surrendered.is_none_or(|(e, _)| e != g.epoch)
        {
            self.surrendered = Some((g.epoch, reason));
        }
        let surrendered = owned.and_then(|g| self.surrendered.filter(|(e, _)| *e == g.epoch));
        let kept = if m.reopen_released { reason.is_none() } else { surrendered.is_none() };
        let want = owned.filter(|_| kept);
        let movement = group.and_then(|g| g.movement);
        self.divert(sight, want, movement);

        self.advance_stage(id, want, plan);
        let serving = matches!((self.stage, want), (Stage::Starting(e) | Stage::Running(e), Some(g)) if g.epoch == e);
        let left_open = m.skip_release_close && surrendered.is_some();
        let gate = match want.filter(|_| serving && self.diverting.is_none()) {
            Some(g) => Some(g.epoch),
            None if left_open => self.gate,
            None => None,
        };
        self.set_gate(id, gate, plan);

        if let (Some(g), Some((_, reason))) = (owned, surrendered) {
            plan.proposals.push(release(sight, id, g.epoch, reason));
        }
        if let (Some(g), Some(movement)) = (want, self.diverting) {
            let from_incarnation = sight.incarnation();
            plan.proposals.push(Entry::Diverted { group: id.clone(), epoch: g.epoch, movement, from_incarnation });
        }
        if let (Some(g), Some(m)) = (group, movement)
            && self.can_receive(sight, &m)
            && reason.is_none()
        {
            let to_incarnation = sight.incarnation();
            plan.proposals.push(Entry::Ready { group: id.clone(), epoch: g.epoch, movement: m.id, to_incarnation });
        }
    }

    fn reason_to_release(&self, sight: &Sight<'_>, id: &GroupId, shutting_down: bool) -> Option<Cause> {
        if shutting_down {
            Some(Cause::Shutdown)
        } else if !sight.view.front_up {
            Some(Cause::FrontDown)
        } else if !sight.settings.may_run(id) {
            Some(Cause::Resource)
        } else {
            None
        }
    }

    /// Closes the gate for a movement whose target is ready, and keeps it closed until the log ends the movement.
    fn divert(&mut self, sight: &Sight<'_>, want: Option<&GroupState>, movement: Option<Movement>) {
        let mine = |m: &Movement| m.ready && m.from == sight.me() && m.from_incarnation == sight.incarnation();
        let due = movement.filter(|m| want.is_some() && mine(m));
        self.diverting = due.filter(|m| self.diverting == Some(m.id) || sight.heard(m.to)).map(|m| m.id);
    }

    fn can_receive(&self, sight: &Sight<'_>, m: &Movement) -> bool {
        let to_me = m.to == sight.me() && m.to_incarnation == sight.incarnation() && !m.ready;
        to_me && self.stage == Stage::Stopped && !self.refuses(sight.now)
    }

    fn advance_stage(&mut self, id: &GroupId, want: Option<&GroupState>, plan: &mut Plan) {
        let wanted = want.map(|g| g.epoch);
        match self.stage {
            // Whatever an earlier incarnation left is stopped before anything starts (rule 8). Epoch 0 says so.
            Stage::Unknown => self.stop(id, 0, plan),
            // The node runs another epoch than it owns: it lost the group and regained it (rule 8).
            Stage::Starting(e) | Stage::Running(e) if wanted != Some(e) => self.stop(id, e, plan),
            Stage::Stopped if self.diverting.is_none() => {
                if let Some(g) = want {
                    self.stage = Stage::Starting(g.epoch);
                    plan.starts.push(Command::Start { group: id.clone(), epoch: g.epoch, cause: g.cause });
                }
            }
            Stage::Stopped | Stage::Starting(_) | Stage::Running(_) | Stage::Stopping(_) => {}
        }
    }

    fn stop(&mut self, id: &GroupId, epoch: Epoch, plan: &mut Plan) {
        self.stage = Stage::Stopping(epoch);
        plan.stops.push(Command::Stop { group: id.clone(), epoch });
    }

    fn set_gate(&mut self, id: &GroupId, gate: Option<Epoch>, plan: &mut Plan) {
        if self.gate == gate {
            return;
        }
        if let Some(epoch) = self.gate {
            plan.closes.push(Command::SetGate { group: id.clone(), epoch, open: false });
        }
        if let Some(epoch) = gate {
            plan.opens.push(Command::SetGate { group: id.clone(), epoch, open: true });
        }
        self.gate = gate;
    }
}

fn release(sight: &Sight<'_>, id: &GroupId, epoch: Epoch, reason: Cause) -> Entry {
    let (node, incarnation) = (sight.me(), sight.incarnation());
    Entry::Release { group: id.clone(), epoch, node, incarnation, reason }
}
