//! The core of one machine: events and views go in, commands come out (docs/safety.md has the rules by number).
//!
//! Level-triggered: [`Core::step`] derives everything anew from the state, the view and the reports, so a missed event only
//! delays. The shell steps it after each message, applied entry, order and report of the executor, at
//! [`Core::next_deadline`], and when the beats change: a peer's lease bit, incarnation, leader or log index, the own
//! punctuality, or raft's own leader or term.

use std::collections::BTreeMap;

use super::{
    command::{Command, Fact},
    detector::Detector,
    election::Election,
    entry::{DrainSummary, Entry},
    handover::Handover,
    ids::{Epoch, GroupId, Index, MILLISECOND, Nanos, VoterId},
    message::{Message, Order, Report},
    notices::Notices,
    orders::Orders,
    out::{Out, Proposals},
    placement::{self, Explanation},
    promises::Promises,
    reporting::{self, Reporter},
    rounds::Rounds,
    sight::Sight,
    state::{Effect, State},
    steward::{self, Steward},
    transition::Transitions,
    view::{RaftView, View},
};

pub use super::{
    mutations::Mutations,
    settings::{FAILURE_EXPIRES, GroupSettings, OrderRefused, Settings},
};

mod requests;
#[cfg(test)]
mod tests;

/// Facts and messages that wait for the next step; more are dropped, the core finds its way from the level.
const OUTBOX_MAX: usize = 1024;
/// How long a leader that is stopped tries to hand the leadership over.
const LEAVING_PATIENCE: Nanos = 1_000 * MILLISECOND;

/// The core.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    state: State,
    view: View,
    reports: BTreeMap<VoterId, Report>,
    detector: Detector,
    promises: Promises,
    rounds: Rounds,
    transitions: Transitions,
    steward: Steward,
    orders: Orders,
    election: Election,
    handover: Handover,
    proposals: Proposals,
    /// What the events between two steps want to say.
    outbox: Vec<Command>,
    reporter: Reporter,
    notices: Notices,
    raft: RaftView,
    leaving_since: Option<Nanos>,
    /// Whether it comes back at once: the groups are kept then.
    restarting: bool,
    halted: bool,
    now: Nanos,
    wake: Option<Nanos>,
}

impl Core {
    /// A core that has just started. All gates are closed but those of [`Settings::adopted`], and all floors infinite or as the
    /// pinned maps have them.
    pub fn new(settings: Settings, now: Nanos) -> Self {
        let proposals = Proposals::new(&settings.timing);
        let transitions = Transitions::new(settings.adopted.clone());
        Self {
            settings,
            state: State::default(),
            view: View::default(),
            reports: BTreeMap::new(),
            detector: Detector::new(now),
            promises: Promises::default(),
            rounds: Rounds::default(),
            transitions,
            steward: Steward::default(),
            orders: Orders::default(),
            election: Election::default(),
            handover: Handover::default(),
            proposals,
            outbox: Vec::new(),
            reporter: Reporter::default(),
            notices: Notices::default(),
            raft: RaftView::default(),
            leaving_since: None,
            restarting: false,
            halted: false,
            now,
            wake: Some(now),
        }
    }

    /// What the log says, as far as it is applied here.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What this core knows from its configuration.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What another voter last reported, if it has.
    pub fn report_of(&self, voter: VoterId) -> Option<&Report> {
        self.reports.get(&voter)
    }

    /// Whether this machine's barrier is applied: only then does it promise and own (rule 5).
    pub fn is_started(&self) -> bool {
        self.sight(self.now).started()
    }

    /// The voters that this machine finds silent, as [`VoterId::bit`]s, at the last step.
    pub fn silent(&self) -> u16 {
        self.sight(self.now).silent_mask()
    }

    /// Replaces the state by a snapshot, unless the snapshot is older.
    pub fn restore(&mut self, now: Nanos, state: State) {
        if state.applied < self.state.applied {
            return;
        }
        for (&id, voter) in &state.voters {
            if self.state.concluded(id).unwrap_or(0) != voter.concluded {
                self.detector.concluded(now, id);
            }
        }
        self.state = state;
        self.note_barrier(now);
        self.wake = Some(now);
    }

    /// A committed entry; `None` for raft's own (blank and membership) entries. Entries come in order; older ones are left out.
    pub fn on_applied(&mut self, now: Nanos, index: Index, entry: Option<&Entry>) {
        self.wake = Some(now);
        if index <= self.state.applied {
            return;
        }
        let Some(entry) = entry else {
            return self.state.skip(index);
        };
        match self.state.apply_with(index, entry, &self.settings.mutations) {
            Ok(effects) => {
                self.proposals.settled(entry);
                self.steward.applied(now, entry);
                self.orders.applied(entry);
                effects.into_iter().for_each(|e| self.on_effect(now, e));
            }
            Err(refusal) => {
                self.proposals.refused(now, entry);
                self.say(Command::Record(Fact::Refused(refusal.name())));
            }
        }
        self.note_barrier(now);
    }

    fn on_effect(&mut self, now: Nanos, effect: Effect) {
        match effect {
            Effect::Concluded { node, .. } => {
                self.detector.concluded(now, node);
                self.say(Command::Record(Fact::Concluded(node)));
            }
            // Before the own barrier the log is replayed: what it moved then is long known.
            Effect::Owner { .. } if !self.is_started() => {}
            Effect::Owner { group, epoch, from, to, cause } => {
                self.say(Command::Record(Fact::OwnerChanged { group, epoch, from, to, cause }));
            }
            Effect::Moving(..) | Effect::Abandoned(..) | Effect::Drained(..) if !self.is_started() => {}
            Effect::Moving(group) => {
                if let Some((epoch, m)) = self.state.groups.get(&group).and_then(|g| Some((g.epoch, g.movement?))) {
                    self.say(Command::Record(Fact::Moving {
                        group,
                        epoch,
                        to: m.to,
                        ready: m.ready,
                        steers: m.steers,
                    }));
                }
            }
            Effect::Abandoned(group, to) => {
                let epoch = self.state.groups.get(&group).map_or(0, |g| g.epoch);
                self.say(Command::Record(Fact::Abandoned { group, epoch, to }));
            }
            Effect::Drained(group, node, summary) => {
                let epoch = self.state.groups.get(&group).map_or(0, |g| g.epoch);
                self.say(Command::Record(Fact::Drained { group, epoch, node, summary }));
            }
            Effect::Switched(..) if !self.is_started() => {}
            Effect::Switched(what, on) => self.say(Command::Record(Fact::Switched(what, on))),
            Effect::Formed | Effect::Created(_) | Effect::Removed(_) | Effect::Started(..) | Effect::Standby(..) => {}
        }
    }

    fn note_barrier(&mut self, now: Nanos) {
        let on_record = self.state.incarnation(self.settings.me);
        if on_record == Some(self.settings.incarnation) && self.detector.barrier_at.is_none() {
            self.detector.barrier_at = Some(now);
        }
    }

    /// A message of another voter's core; the channel vouches for the sender.
    pub fn on_message(&mut self, now: Nanos, from: VoterId, message: Message) {
        self.wake = Some(now);
        if from == self.settings.me || !self.settings.voters.iter().any(|(v, _)| *v == from) {
            return;
        }
        match message {
            Message::Report(report) => reporting::keep(&mut self.reports, from, report),
            Message::AskPromise { node, last } => self.promises.ask(from, node, last),
            Message::Promise { node, last, incarnation } => {
                let Self { settings, state, view, reports, detector, rounds, .. } = self;
                let sight = Sight { now, settings, state, view, reports, detector };
                if let Some(fact) = rounds.promise(&sight, from, node, last, incarnation) {
                    self.say(Command::Record(fact));
                }
            }
            Message::TakeLeadership { term } => self.handover.take(from, term),
            Message::Order(order) => {
                // Never passed on once more: two voters that each think the other leads would play ball.
                let leads = self.sight(now).leads();
                let accepted = match leads {
                    true => steward::check(&self.sight(now), &order).and_then(|()| self.steward.order(now, order)),
                    false => Err(OrderRefused::NoLeader),
                };
                if let Err(refused) = accepted {
                    self.say(Command::Record(Fact::OrderRefused(refused.to_string())));
                }
            }
        }
    }

    /// An operator's order, on any voter. Checked here; carried out by the leader.
    pub fn on_order(&mut self, now: Nanos, order: Order) -> Result<(), OrderRefused> {
        self.wake = Some(now);
        steward::check(&self.sight(now), &order)?;
        self.view.raft.leader.ok_or(OrderRefused::NoLeader)?;
        self.orders.take(now, order)
    }

    /// Whether an order could be carried out now, as far as this machine sees; changes nothing.
    pub fn check_order(&self, now: Nanos, order: &Order) -> Result<(), OrderRefused> {
        steward::check(&self.sight(now), order)
    }

    /// Whether open flows of a group would go on when it moved to `to`: both ends can steer to each other, as they reported.
    pub fn would_steer(&self, group: &GroupId, to: VoterId) -> bool {
        let Some(owner) = self.state.groups.get(group).and_then(|g| g.owner) else {
            return false;
        };
        let steers = |node: VoterId, peer: VoterId| self.reports.get(&node).is_some_and(|r| r.steers & peer.bit() != 0);
        steers(owner, to) && steers(to, owner)
    }

    /// A release that goes into the log on this machine, or an entry of another kind: if this machine leads and can name the next
    /// owner now, the release names it (rule 6). Else it is as it was, and an assignment follows once it is applied.
    pub fn complete(&mut self, now: Nanos, entry: Entry) -> Entry {
        let Self { settings, state, view, reports, detector, steward, .. } = self;
        steward.complete(&Sight { now, settings, state, view, reports, detector }, entry)
    }

    /// A proposal found no leader, or its leader was deposed: its fate is unknown. The core proposes again from the level.
    pub fn on_proposal_failed(&mut self, now: Nanos, entry: &Entry) {
        self.wake = Some(now);
        self.proposals.failed(now, entry);
    }

    /// The executor has started all resources of the group.
    pub fn on_started(&mut self, now: Nanos, group: &GroupId, epoch: Epoch) {
        self.wake = Some(now);
        self.transitions.started(group, epoch);
    }

    /// The executor has made the group's resources able to receive, for a planned move.
    pub fn on_received(&mut self, now: Nanos, group: &GroupId, movement: Index) {
        self.wake = Some(now);
        self.transitions.received(group, movement);
    }

    /// The group's resources cannot receive: this node refuses the planned move, for this reason.
    pub fn on_receive_failed(&mut self, now: Nanos, group: &GroupId, movement: Index, reason: String) {
        self.wake = Some(now);
        self.transitions.receive_failed(now, group, movement, reason);
    }

    /// The flows that drained here have ended, or their time is over.
    pub fn on_drained(&mut self, now: Nanos, group: &GroupId, epoch: Epoch, summary: DrainSummary) {
        self.wake = Some(now);
        self.transitions.drained(group, epoch, summary);
    }

    /// Whether the group's resources could be taken over here; `Some` says why not.
    pub fn on_readiness(&mut self, now: Nanos, group: &GroupId, unready: Option<String>) {
        self.wake = Some(now);
        self.transitions.readiness(group, unready);
    }

    /// The executor has stopped all resources of the group; it goes on trying until it can say so.
    pub fn on_stopped(&mut self, now: Nanos, group: &GroupId, epoch: Epoch) {
        self.wake = Some(now);
        self.transitions.stopped(group, epoch);
    }

    /// The group could not be started, or failed later beyond what a restart in place mends.
    pub fn on_start_failed(&mut self, now: Nanos, group: &GroupId, epoch: Epoch) {
        self.wake = Some(now);
        let refused_for = self.settings.group(group).map_or(FAILURE_EXPIRES, |g| g.refused_for);
        self.transitions.failed(now, group, epoch, refused_for);
    }

    /// The agent is to stop in an orderly way: give up every group and the leadership. Cannot be taken back.
    pub fn begin_shutdown(&mut self, now: Nanos) {
        self.wake = Some(now);
        self.restarting = false;
        self.leaving_since.get_or_insert(now);
    }

    /// The agent is to be started again at once: give up the leadership alone (rule 10). Cannot be taken back.
    pub fn begin_restart(&mut self, now: Nanos) {
        let first = self.leaving_since.is_none();
        self.begin_shutdown(now);
        self.restarting = first;
    }

    /// Whether, after [`Core::begin_restart`], the leadership is handed over, if anybody could take it within a second.
    pub fn may_restart(&self) -> bool {
        self.leaving_since.is_some_and(|since| !self.hands_over(since))
    }

    /// Whether this machine still leads, and somebody may take that over.
    fn hands_over(&self, since: Nanos) -> bool {
        let sight = self.sight(self.now);
        sight.leads() && sight.heard_voters() > 1 && self.now < since + LEAVING_PATIENCE
    }

    /// The gates of [`Settings::adopted`] could not be kept up to the own barrier, and are closed now.
    pub fn forget_adopted(&mut self, now: Nanos) {
        self.wake = Some(now);
        self.transitions.forget_adopted();
    }

    /// Whether, after [`Core::begin_shutdown`], nothing is owned or runs here, and the leadership is handed over if anybody
    /// could take it within a second. The shell bounds the wait: without a leader no release is ever applied.
    pub fn is_drained(&self) -> bool {
        let Some(since) = self.leaving_since else {
            return false;
        };
        let sight = self.sight(self.now);
        if !sight.started() {
            return true;
        }
        !self.state.owns_any(self.settings.me) && self.transitions.idle() && !self.hands_over(since)
    }

    /// When to step next at the latest, on the clock of the last `now`; `None` if nothing is awaited but events.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.wake
    }

    /// Why the group is where it is, or nowhere, as this machine sees it; `None` for an unknown group.
    pub fn explain(&self, group: &GroupId) -> Option<Explanation> {
        placement::explain(&self.sight(self.now), group)
    }

    /// One step. Call it again, each time with a fresh view, until it returns nothing; a handful of steps settle any event.
    ///
    /// The commands are to be carried out in order. After a [`Command::SetFloor`] comes a full fence before the next view.
    pub fn step(&mut self, now: Nanos, view: &View) -> Vec<Command> {
        self.now = now;
        self.view.clone_from(view);
        let hold_ns = self.sight(now).hold_ns();
        self.detector.observe(now, view, &self.state, &self.reports, hold_ns);
        let mut commands = std::mem::take(&mut self.outbox);
        if let Some(why) = self.sight(now).contradiction() {
            self.wake = None;
            if !std::mem::replace(&mut self.halted, true) {
                commands.extend(self.transitions.close_all());
                commands.push(Command::Halt(why));
            }
            return commands;
        }
        let (was, is) = (std::mem::replace(&mut self.raft, view.raft), view.raft);
        if (was.leader, was.term) != (is.leader, is.term) {
            // What went to another leader may be lost with it; what was not lost is refused the second time.
            self.proposals.forget();
        }
        let leaving = self.leaving_since.is_some();

        let Self { settings, state, view, reports, detector, proposals, .. } = self;
        let mut out = Out::new(now, commands, proposals, view.raft.leader.is_some());
        let sight = Sight { now, settings, state, view, reports, detector };
        self.transitions.step(&sight, leaving && !self.restarting, &mut out);
        let own_promises = self.promises.step(&sight, &mut out);
        for peer in sight.others().filter(|v| !sight.silent(*v)) {
            out.wake_at(sight.silent_at(peer));
        }
        self.notices.step(&sight, &self.transitions, &mut out);
        let report = reporting::own(&sight, &self.promises, &self.transitions, leaving);
        let report = self.reporter.step(&sight, report, &mut out);
        reports.insert(settings.me, report);

        let sight = Sight { now, settings, state, view, reports, detector };
        if let Some(me) = state.voters.get(&settings.me)
            && me.incarnation < settings.incarnation
        {
            out.propose(Entry::Barrier { voter: settings.me, incarnation: settings.incarnation });
        }
        for (node, last) in own_promises {
            if let Some(fact) = self.rounds.promise(&sight, settings.me, node, last, settings.incarnation) {
                out.record(fact);
            }
        }
        self.rounds.step(&sight, &mut self.promises, &mut out);
        self.orders.step(&sight, &mut self.steward, &mut out);
        self.steward.step(&sight, self.rounds.any(), &mut out);
        let moving = state.groups.values().any(|g| g.movement.is_some());
        let busy = self.rounds.any() || moving;
        self.handover.step(&sight, busy, leaving, &mut out);
        self.election.step(&sight, leaving, &mut out);
        self.wake = out.wake;
        self.steward.complete_all(&sight, out.commands)
    }

    pub(super) fn sight(&self, now: Nanos) -> Sight<'_> {
        let Self { settings, state, view, reports, detector, .. } = self;
        Sight { now, settings, state, view, reports, detector }
    }

    fn say(&mut self, command: Command) {
        if self.outbox.len() < OUTBOX_MAX {
            self.outbox.push(command);
        }
    }
}
