//! Everything that a decision may look at, in one place: the state, the view, the reports, and what follows from them.

use std::collections::BTreeMap;

use super::{
    detector::{Detector, heard, promised_about},
    ids::{Incarnation, Index, Nanos, Role, VoterId},
    lease,
    message::Report,
    settings::Settings,
    state::State,
    view::{PeerView, View},
};

/// The world as one step of the core sees it.
#[derive(Clone, Copy)]
pub(super) struct Sight<'a> {
    pub(super) now: Nanos,
    pub(super) settings: &'a Settings,
    pub(super) state: &'a State,
    pub(super) view: &'a View,
    pub(super) reports: &'a BTreeMap<VoterId, Report>,
    pub(super) detector: &'a Detector,
}

impl<'a> Sight<'a> {
    pub(super) fn me(&self) -> VoterId {
        self.settings.me
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        self.settings.incarnation
    }

    /// Whether the own barrier is applied (rule 5).
    pub(super) fn started(&self) -> bool {
        let on_record = self.state.incarnation(self.me());
        on_record == Some(self.incarnation()) || (self.settings.mutations.skip_barrier && on_record.is_some())
    }

    /// Whether the log names the voters, roles and lease that this machine counts with. Without that its lease means nothing.
    pub(super) fn agrees(&self) -> bool {
        let voters = &self.settings.voters;
        let alike = |(v, role): &(VoterId, Role)| self.state.voters.get(v).is_some_and(|s| s.role == *role);
        self.state.lease_ns == self.settings.timing.lease_ns
            && self.state.voters.len() == voters.len()
            && voters.iter().all(alike)
    }

    pub(super) fn leads(&self) -> bool {
        self.view.raft.leader == Some(self.me())
    }

    pub(super) fn hold_ns(&self) -> Nanos {
        lease::hold_ns(&self.settings.timing, self.state.lease_ns)
    }

    pub(super) fn interval_ns(&self) -> Nanos {
        self.settings.timing.interval_ns
    }

    pub(super) fn peer(&self, id: VoterId) -> Option<&'a PeerView> {
        self.view.peers.get(&id)
    }

    /// All other voters.
    pub(super) fn others(&self) -> impl Iterator<Item = VoterId> {
        let me = self.me();
        self.settings.voters.iter().map(|(v, _)| *v).filter(move |v| *v != me)
    }

    /// Whether beats of `id` arrive; always true of this machine itself.
    pub(super) fn heard(&self, id: VoterId) -> bool {
        id == self.me() || self.peer(id).is_some_and(|p| heard(self.now, p, self.hold_ns()))
    }

    /// When this machine's hold on `id` ends, unless an acknowledgement comes first.
    pub(super) fn silent_at(&self, id: VoterId) -> Nanos {
        let unseen = PeerView::default();
        let peer = self.peer(id).unwrap_or(&unseen);
        let m = &self.settings.mutations;
        let mut hold = self.detector.hold(id, peer, self.view);
        if peer.floor == Index::MAX {
            // Nothing is acknowledged under an infinite floor; that alone is no sign of silence.
            hold.last_acknowledged = hold.last_acknowledged.max(peer.last_seen);
        }
        hold.end(self.hold_ns(), m)
    }

    /// Whether this machine's hold on `id` is over.
    pub(super) fn silent(&self, id: VoterId) -> bool {
        id != self.me() && self.now >= self.silent_at(id)
    }

    /// When `id`'s token of progress will have stood still for too long.
    pub(super) fn wedged_at(&self, id: VoterId) -> Option<Nanos> {
        let peer = self.peer(id)?;
        let since = peer.token_since.max(self.view.punctual_since).max(self.detector.start);
        Some(since.saturating_add(self.settings.timing.wedge_ns))
    }

    /// Whether `id` beats on although its agent makes no progress.
    pub(super) fn wedged(&self, id: VoterId) -> bool {
        self.heard(id) && self.wedged_at(id).is_some_and(|at| self.now >= at)
    }

    /// The newest report of `id` in the incarnation that the log knows.
    pub(super) fn report(&self, id: VoterId) -> Option<&'a Report> {
        self.reports.get(&id).filter(|r| Some(r.incarnation) == self.state.incarnation(id))
    }

    /// Whether `id` holds a lease: this machine by its own map, a peer by its newest beat.
    pub(super) fn holds_lease(&self, id: VoterId) -> bool {
        if id == self.me() { self.view.lease_end > self.now } else { self.peer(id).is_some_and(|p| p.holds_lease) }
    }

    /// How many voters, this machine included, are heard here and say that `id` is silent.
    pub(super) fn silent_votes(&self, id: VoterId) -> usize {
        self.votes(id, |r| r.silent & id.bit() != 0)
    }

    /// How many voters other than `id` are heard here: only they can promise.
    pub(super) fn reachable(&self, id: VoterId) -> usize {
        self.votes(id, |_| true)
    }

    fn votes(&self, id: VoterId, says: impl Fn(&Report) -> bool) -> usize {
        let voters = self.state.voters.keys().filter(|v| **v != id && self.heard(**v));
        voters.filter(|v| self.report(**v).is_some_and(&says)).count()
    }

    /// Whether somebody promises about `id` in the present round.
    pub(super) fn promised_about(&self, id: VoterId) -> bool {
        self.state.concluded(id).is_some_and(|c| promised_about(id, c, self.reports))
    }

    /// When `id` will not have been heard for a hold: the measure for a leader, whose beats need not be acknowledged.
    pub(super) fn unheard_at(&self, id: VoterId) -> Nanos {
        let seen = self.peer(id).map_or(0, |p| p.last_seen);
        seen.max(self.view.punctual_since).max(self.detector.start).saturating_add(self.hold_ns())
    }

    /// How many voters of the configuration are heard, this machine included.
    pub(super) fn heard_voters(&self) -> usize {
        1 + self.others().filter(|v| self.heard(*v)).count()
    }

    /// The voters whose hold here is over.
    pub(super) fn silent_mask(&self) -> u16 {
        self.others().filter(|v| self.silent(*v)).fold(0, |mask, v| mask | v.bit())
    }

    /// What in the log contradicts what this machine was started with, in a way that no waiting mends.
    pub(super) fn contradiction(&self) -> Option<String> {
        let me = self.me();
        if self.state.incarnation(me).is_some_and(|i| i > self.incarnation()) {
            return Some(format!(
                "the log knows a later start of voter {me} than this one: another machine uses its number, or its state \
                 directory is an old copy; give each machine its own number and directory"
            ));
        }
        if !self.state.voters.is_empty() && !self.agrees() {
            return Some(
                "the cluster was formed with other voters, roles or another lease than this machine is configured with; a \
                 lease counted from these would not be safe; correct the configuration"
                    .to_owned(),
            );
        }
        None
    }
}
