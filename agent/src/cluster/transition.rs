//! This node's own groups: gate, start, stop, release, planned moves (docs/safety.md, rules 5 to 8).
//!
//! ```text
//!   Unknown ─Stop(0)─► Stopping ─stopped─► Stopped ─owner: gate opens, Start─► Starting ─started─► Running
//!                         ▲                 │                                     ▲ │                 │
//!                         │                 └─planned move to here─► Receiving ───┘ │                 │
//!                         │                            ▲ └─given up─► Stop          │                 │
//!                         │  a move back, or owner again └───────── Draining ◄──────┴─planned move away
//!                         ├──────────── the flows have ended: gate closes ─┘        │                 │
//!                         └───── no longer owner at this epoch: gate closes, Stop ──┴─────────────────┘
//! ```

use std::collections::BTreeMap;

use super::{
    command::{Command, GateRole},
    entry::{Cause, DrainSummary, Entry},
    ids::{Epoch, GroupId, Index, MILLISECOND, Nanos, VoterId},
    out::Out,
    placement,
    sight::Sight,
    state::{GroupState, Movement},
};

#[cfg(test)]
mod tests;

/// How long a node refuses a group whose resources were not ready for a planned move.
const RECEIVE_EXPIRES: Nanos = 2_000 * MILLISECOND;

/// A group whose constraints leave it no place is given up after this long: what it must be with may be on its way.
const NOWHERE_PATIENCE: Nanos = 5_000 * MILLISECOND;

/// This node's groups.
#[derive(Debug, Default)]
pub(super) struct Transitions {
    groups: BTreeMap<GroupId, Local>,
    /// What the gates do since before this start, until the first step after the own barrier (rule 10).
    adopted: BTreeMap<GroupId, (Epoch, GateRole)>,
    /// The gate index last published.
    published: Index,
}

#[derive(Debug, Default)]
struct Local {
    stage: Stage,
    /// The epoch and role of the gate; none while it is closed.
    gate: Option<(Epoch, GateRole)>,
    /// The epoch given up: never opened again by this incarnation (rule 6), and why it was.
    surrendered: Option<(Epoch, Cause)>,
    /// The movement for which the gate takes no new flows (rule 7), and whether it forwards them.
    diverting: Option<(Index, bool)>,
    /// The movement for which the resources' knowledge was handed over.
    exported: Option<Index>,
    /// Why the resources are not ready to be taken over here.
    unready: Option<String>,
    /// Until when this node refuses the group.
    refused_until: Nanos,
    /// Since when its constraints have left it no place, although this node owns it.
    nowhere_since: Option<Nanos>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// What an earlier incarnation left behind is not known.
    #[default]
    Unknown,
    Stopped,
    Starting(Epoch),
    Running(Epoch),
    /// The target of a movement; `draining` is the epoch whose flows are here as well.
    Receiving {
        movement: Index,
        ready: bool,
        draining: Option<Epoch>,
    },
    /// The flows of this epoch go on here, although another node owns the group. `over` once they have ended.
    Draining {
        epoch: Epoch,
        over: Option<DrainSummary>,
    },
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
    /// The groups of a start that found these gates set, and keeps them.
    pub(super) fn new(adopted: BTreeMap<GroupId, (Epoch, GateRole)>) -> Self {
        Self { adopted, ..Self::default() }
    }

    /// The gates that were found set have been closed.
    pub(super) fn forget_adopted(&mut self) {
        self.adopted.clear();
    }

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
        for (id, (epoch, role)) in std::mem::take(&mut self.adopted) {
            self.groups.entry(id.clone()).or_default().adopt(sight, &id, epoch, role, &mut plan);
        }
        let nowhere = placement::belong_nowhere(sight);
        for (id, local) in &mut self.groups {
            local.nowhere_since = nowhere.contains(id).then(|| local.nowhere_since.unwrap_or(sight.now));
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

    /// The resources can receive for a planned move.
    pub(super) fn received(&mut self, id: &GroupId, movement: Index) {
        if let Some(Stage::Receiving { movement: m, ready, .. }) = self.groups.get_mut(id).map(|l| &mut l.stage) {
            *ready |= *m == movement;
        }
    }

    /// The resources cannot receive: the group is refused for a while, and the leader gives the move up. Everybody hears why, until
    /// the executor finds that it is ready again.
    pub(super) fn receive_failed(&mut self, now: Nanos, id: &GroupId, movement: Index, reason: String) {
        if let Some(local) = self.groups.get_mut(id)
            && matches!(local.stage, Stage::Receiving { movement: m, .. } if m == movement)
        {
            local.refused_until = now.saturating_add(RECEIVE_EXPIRES);
            local.unready = Some(reason);
        }
    }

    /// The flows that drained here have ended.
    pub(super) fn drained(&mut self, id: &GroupId, epoch: Epoch, summary: DrainSummary) {
        if let Some(Stage::Draining { epoch: e, over }) = self.groups.get_mut(id).map(|l| &mut l.stage)
            && *e == epoch
        {
            *over = Some(summary);
        }
    }

    /// Whether the resources could be taken over here.
    pub(super) fn readiness(&mut self, id: &GroupId, unready: Option<String>) {
        self.groups.entry(id.clone()).or_default().unready = unready;
    }

    /// The groups that could not be taken over here, and why.
    pub(super) fn unready(&self) -> Vec<(GroupId, String)> {
        self.groups.iter().filter_map(|(id, l)| Some((id.clone(), l.unready.clone()?))).collect()
    }

    fn advance(&mut self, id: &GroupId, from: Stage, to: Stage) -> bool {
        let local = self.groups.get_mut(id).filter(|l| l.stage == from);
        local.map(|l| l.stage = to).is_some()
    }

    /// The group could not be started, or failed while it ran: give it up, and refuse it for a while.
    pub(super) fn failed(&mut self, now: Nanos, id: &GroupId, epoch: Epoch, refused_for: Nanos) -> bool {
        let ours = |l: &&mut Local| l.stage == Stage::Starting(epoch) || l.stage == Stage::Running(epoch);
        let Some(local) = self.groups.get_mut(id).filter(ours) else {
            return false;
        };
        local.refused_until = now.saturating_add(refused_for);
        if local.surrendered.is_none_or(|(e, _)| e != epoch) {
            local.surrendered = Some((epoch, Cause::Resource));
        }
        true
    }

    /// What failed of the group here is forgotten. Returns whether this node refused the group for it.
    pub(super) fn cleanup(&mut self, now: Nanos, id: &GroupId) -> bool {
        let refused = self.groups.get_mut(id).filter(|local| local.refused_until > now);
        refused.map(|local| local.refused_until = now).is_some()
    }

    /// Groups that this node refuses to take for now.
    pub(super) fn unfit(&self, sight: &Sight<'_>) -> Vec<GroupId> {
        let refused = |id: &&GroupId| self.groups.get(*id).is_none_or(|l| l.refuses(sight.now));
        sight.state.groups.keys().filter(refused).cloned().collect()
    }

    /// Groups whose resources run here at the epoch of the log.
    pub(super) fn running(&self) -> impl Iterator<Item = &GroupId> {
        self.groups.iter().filter(|(_, l)| matches!(l.stage, Stage::Running(e) if l.serves(e))).map(|(id, _)| id)
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
    /// Whether the gate is the owner's at an epoch.
    fn serves(&self, epoch: Epoch) -> bool {
        matches!(self.gate, Some((e, GateRole::Owner { .. })) if e == epoch)
    }

    /// Goes on with what the gate has done since before this start, as far as the log still says so; all else is stopped.
    fn adopt(&mut self, sight: &Sight<'_>, id: &GroupId, epoch: Epoch, role: GateRole, plan: &mut Plan) {
        if role == GateRole::Closed || self.stage != Stage::Unknown {
            return;
        }
        self.gate = Some((epoch, role));
        let Some(group) = sight.state.groups.get(id).filter(|_| !matches!(role, GateRole::Receive { .. })) else {
            return;
        };
        if group.owner == Some(sight.me()) && group.epoch == epoch {
            // It runs already: starting it again adopts its resources, and announces them.
            self.stage = Stage::Starting(epoch);
            plan.starts.push(Command::Start { group: id.clone(), epoch, cause: group.cause });
        } else if group.drain == Some(sight.me()) {
            self.drain(id, epoch, plan);
        }
    }

    fn refuses(&self, now: Nanos) -> bool {
        now < self.refused_until || matches!(self.stage, Stage::Unknown | Stage::Stopping(_))
    }

    fn step(&mut self, sight: &Sight<'_>, id: &GroupId, shutting_down: bool, plan: &mut Plan, out: &mut Out<'_>) {
        out.wake_at(self.refused_until);
        let m = &sight.settings.mutations;
        let group = sight.state.groups.get(id);
        let owned = group.filter(|g| g.owner == Some(sight.me()));
        if let Some(since) = self.nowhere_since {
            out.wake_at(since + NOWHERE_PATIENCE);
        }
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
        let stops_first = sight.settings.stops_first(id).is_some();
        self.divert(sight, want, movement, !stops_first);

        if let Stage::Draining { over, .. } = &mut self.stage
            && (shutting_down || sight.state.stopped(id))
        {
            over.get_or_insert_default();
        }
        self.advance_stage(sight, id, group, want, plan);
        // A second instance of what must not run twice waits for this (rule 6): until it is stopped, the group stays.
        let given_up = !stops_first || self.stage == Stage::Stopped || m.release_running;
        let left_open = m.skip_release_close && surrendered.is_some();
        let gate = if left_open { self.gate } else { self.role(sight, group, want, !stops_first) };
        self.set_gate(id, gate, plan);

        if let (Some(g), Some((_, reason))) = (owned, surrendered)
            && given_up
        {
            plan.proposals.push(release(sight, id, g.epoch, reason));
        }
        if let (Some(g), Some((movement, steers))) = (want, self.diverting)
            && given_up
        {
            let (group, epoch, from_incarnation) = (id.clone(), g.epoch, sight.incarnation());
            plan.proposals.push(Entry::Diverted { group, epoch, movement, from_incarnation, steers });
        }
        if let (Some(g), Some(m)) = (group, movement.filter(|m| !m.ready))
            && matches!(self.stage, Stage::Receiving { movement, ready: true, .. } if movement == m.id)
            && reason.is_none()
            && !self.refuses(sight.now)
        {
            let (group, epoch, to_incarnation) = (id.clone(), g.epoch, sight.incarnation());
            let steers = !stops_first && steers_to(sight, m.from);
            plan.proposals.push(Entry::Ready { group, epoch, movement: m.id, to_incarnation, steers });
        }
        if let Some(m) = movement.filter(|m| want.is_some() && m.from == sight.me() && self.exported != Some(m.id)) {
            self.exported = Some(m.id);
            plan.starts.push(Command::Export { group: id.clone(), movement: m.id, to: m.to });
        }
        // Also of an agent that has started again since, and knows nothing of the flows.
        if let Some(g) = group.filter(|g| g.drain == Some(sight.me()))
            && let Stage::Stopped | Stage::Draining { over: Some(_), .. } = self.stage
        {
            let summary = if let Stage::Draining { over, .. } = self.stage { over } else { None };
            plan.proposals.push(Entry::Drained { group: id.clone(), epoch: g.epoch, node: sight.me(), summary });
        }
    }

    /// What the gate shall do.
    fn role(
        &self,
        sight: &Sight<'_>,
        group: Option<&GroupState>,
        want: Option<&GroupState>,
        may_steer: bool,
    ) -> Option<(Epoch, GateRole)> {
        let group = group?;
        match self.stage {
            Stage::Starting(e) | Stage::Running(e) => {
                let g = want.filter(|g| g.epoch == e)?;
                let role = match (self.diverting.filter(|_| !sight.settings.mutations.skip_divert), g.movement) {
                    (None, _) => GateRole::Owner { steer: g.drain },
                    (Some((_, true)), Some(m)) => GateRole::Drain { to: m.to },
                    (Some(_), _) => return None,
                };
                Some((e, role))
            }
            // Nobody forwards anything before the target said that it is ready.
            Stage::Receiving { draining, .. } => {
                let from = group.movement.filter(|m| m.to == sight.me())?.from;
                let held = draining.is_some() && group.drain == Some(sight.me());
                (held || (may_steer && steers_to(sight, from))).then_some((group.epoch, GateRole::Receive { from }))
            }
            Stage::Draining { epoch, .. } if group.drain == Some(sight.me()) => {
                // Until the group has an owner again, what is new goes nowhere.
                Some((epoch, GateRole::Drain { to: group.owner.unwrap_or(sight.me()) }))
            }
            Stage::Unknown | Stage::Stopped | Stage::Stopping(_) | Stage::Draining { .. } => None,
        }
    }

    fn reason_to_release(&self, sight: &Sight<'_>, id: &GroupId, shutting_down: bool) -> Option<Cause> {
        if shutting_down {
            Some(Cause::Shutdown)
        } else if sight.state.stopped(id) {
            Some(Cause::Order)
        } else if !sight.view.front_up && sight.state.maintenance(id).is_none() {
            // In maintenance somebody may be working at that very link: the group waits for it.
            Some(Cause::FrontDown)
        } else if !sight.settings.may_run(id) || self.nowhere_since.is_some_and(|s| sight.now >= s + NOWHERE_PATIENCE) {
            Some(Cause::Resource)
        } else {
            None
        }
    }

    /// Closes the gate for a movement whose target is ready, and keeps it closed until the log ends the movement.
    fn divert(&mut self, sight: &Sight<'_>, want: Option<&GroupState>, movement: Option<Movement>, may_steer: bool) {
        let mine = |m: &Movement| m.ready && m.from == sight.me() && m.from_incarnation == sight.incarnation();
        let due = movement.filter(|m| want.is_some() && mine(m));
        self.diverting = due.and_then(|m| match self.diverting {
            Some((id, steers)) if id == m.id => Some((id, steers)),
            _ => sight.heard(m.to).then(|| (m.id, may_steer && m.steers && steers_to(sight, m.to))),
        });
    }

    fn advance_stage(
        &mut self,
        sight: &Sight<'_>,
        id: &GroupId,
        group: Option<&GroupState>,
        want: Option<&GroupState>,
        plan: &mut Plan,
    ) {
        let me = sight.me();
        let wanted = want.map(|g| g.epoch);
        let drains = group.is_some_and(|g| g.drain == Some(me));
        let target = |m: &Movement| m.to == me && m.to_incarnation == sight.incarnation();
        let movement = group.and_then(|g| g.movement).filter(target).filter(|_| !self.refuses(sight.now));
        match self.stage {
            // Whatever an earlier incarnation left is stopped before anything starts (rule 8). Epoch 0 says so.
            Stage::Unknown => self.stop(id, 0, plan),
            // It moves when it is stopped.
            Stage::Starting(e) | Stage::Running(e)
                if self.diverting.is_some() && sight.settings.stops_first(id).is_some() =>
            {
                self.stop(id, e, plan);
            }
            Stage::Starting(e) | Stage::Running(e) if wanted == Some(e) => {}
            // Its planned move away was diverted: its flows go on.
            Stage::Starting(e) | Stage::Running(e) if drains && want.is_none() => self.drain(id, e, plan),
            // The node runs another epoch than it owns: it lost the group and regained it (rule 8).
            Stage::Starting(e) | Stage::Running(e) => self.stop(id, e, plan),
            Stage::Stopped | Stage::Receiving { .. } | Stage::Draining { .. } if let Some(g) = want => {
                if self.diverting.is_none() {
                    self.stage = Stage::Starting(g.epoch);
                    plan.starts.push(Command::Start { group: id.clone(), epoch: g.epoch, cause: g.cause });
                }
            }
            Stage::Receiving { movement: m, .. } if movement.is_some_and(|now| now.id == m) => {}
            Stage::Receiving { draining: Some(e), .. } if drains => self.drain(id, e, plan),
            Stage::Receiving { draining, .. } => self.stop(id, draining.unwrap_or(0), plan),
            Stage::Draining { epoch, .. } if !drains => self.stop(id, epoch, plan),
            Stage::Stopped | Stage::Draining { .. } => {
                if let Some(m) = movement {
                    let draining = if let Stage::Draining { epoch, .. } = self.stage { Some(epoch) } else { None };
                    self.stage = Stage::Receiving { movement: m.id, ready: false, draining };
                    plan.starts.push(Command::Receive { group: id.clone(), movement: m.id });
                }
            }
            Stage::Stopping(_) => {}
        }
    }

    fn drain(&mut self, id: &GroupId, epoch: Epoch, plan: &mut Plan) {
        self.stage = Stage::Draining { epoch, over: None };
        plan.starts.push(Command::Drain { group: id.clone(), epoch });
    }

    fn stop(&mut self, id: &GroupId, epoch: Epoch, plan: &mut Plan) {
        self.stage = Stage::Stopping(epoch);
        plan.stops.push(Command::Stop { group: id.clone(), epoch });
    }

    fn set_gate(&mut self, id: &GroupId, gate: Option<(Epoch, GateRole)>, plan: &mut Plan) {
        if self.gate == gate {
            return;
        }
        let set = |epoch, role| Command::SetGate { group: id.clone(), epoch, role };
        match (self.gate, gate) {
            (_, Some((epoch, role @ (GateRole::Owner { .. } | GateRole::Receive { .. })))) => {
                plan.opens.push(set(epoch, role));
            }
            // From here on nothing new is accepted.
            (_, Some((epoch, role))) => plan.closes.push(set(epoch, role)),
            (Some((epoch, _)), None) => plan.closes.push(set(epoch, GateRole::Closed)),
            (None, None) => {}
        }
        self.gate = gate;
    }
}

/// Whether packets can be steered to a peer now.
fn steers_to(sight: &Sight<'_>, peer: VoterId) -> bool {
    sight.view.steers & peer.bit() != 0
}

fn release(sight: &Sight<'_>, id: &GroupId, epoch: Epoch, reason: Cause) -> Entry {
    let (node, incarnation) = (sight.me(), sight.incarnation());
    Entry::Release { group: id.clone(), epoch, node, incarnation, reason }
}
