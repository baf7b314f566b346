//! Who is silent, who returned, who says that it holds no lease, whose agent stands still: from beats and acknowledgements.
//!
//! Deadlines are lazy: nothing is armed per beat. At the end of a hold the core looks again and sleeps on.

use std::collections::BTreeMap;

use super::{
    ids::{Index, Nanos, VoterId},
    lease::Hold,
    message::Report,
    state::State,
    view::{PeerView, View},
};

/// What this machine remembers about its peers between two steps.
#[derive(Debug)]
pub(super) struct Detector {
    /// When this core started.
    pub(super) start: Nanos,
    /// When the own barrier was applied here.
    pub(super) barrier_at: Option<Nanos>,
    tracks: BTreeMap<VoterId, Track>,
}

/// What is remembered about one peer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Track {
    /// When the last conclusion about it was applied here.
    pub(super) concluded_at: Nanos,
    /// Whether a beat of it has arrived since this core started.
    pub(super) seen: bool,
    /// Whether a beat has ever said that it holds a lease.
    pub(super) held_lease: bool,
    /// Since when it has been able to earn a lease: it reflects the conclusions, and nobody promises about it.
    pub(super) able_since: Option<Nanos>,
    /// Since when its beats say that it holds none, although it could.
    pub(super) no_lease_since: Option<Nanos>,
    /// Since when its beats have named an incarnation that the log does not know.
    pub(super) unknown_since: Option<Nanos>,
}

impl Detector {
    pub(super) fn new(start: Nanos) -> Self {
        Self { start, barrier_at: None, tracks: BTreeMap::new() }
    }

    pub(super) fn track(&self, peer: VoterId) -> Track {
        self.tracks.get(&peer).copied().unwrap_or_default()
    }

    pub(super) fn concluded(&mut self, now: Nanos, peer: VoterId) {
        let track = self.tracks.entry(peer).or_default();
        *track = Track { concluded_at: now, able_since: None, no_lease_since: None, ..*track };
    }

    /// The instants from which the hold for `peer` counts.
    pub(super) fn hold(&self, peer: VoterId, seen: &PeerView, view: &View) -> Hold {
        Hold {
            last_acknowledged: seen.last_acknowledged,
            punctual_since: view.punctual_since,
            started: self.start,
            barrier: self.barrier_at.unwrap_or(0),
            concluded: self.track(peer).concluded_at,
        }
    }

    /// Updates what is remembered about each peer of the view.
    pub(super) fn observe(
        &mut self,
        now: Nanos,
        view: &View,
        state: &State,
        reports: &BTreeMap<VoterId, Report>,
        hold_ns: Nanos,
    ) {
        for (&id, peer) in &view.peers {
            let Some(on_record) = state.voters.get(&id) else {
                continue;
            };
            let heard = heard(now, peer, hold_ns);
            let known = heard && peer.incarnation == on_record.incarnation;
            let able =
                known && peer.gate_index >= on_record.concluded && !promised_about(id, on_record.concluded, reports);
            let track = self.tracks.entry(id).or_default();
            track.seen |= peer.last_seen > self.start;
            track.held_lease |= heard && peer.holds_lease;
            track.able_since = able.then(|| track.able_since.unwrap_or(now));
            track.no_lease_since = (able && !peer.holds_lease).then(|| track.no_lease_since.unwrap_or(now));
            let unknown = heard && peer.incarnation > on_record.incarnation;
            track.unknown_since = unknown.then(|| track.unknown_since.unwrap_or(now));
        }
    }
}

/// Whether a valid beat of the peer arrived within the last hold, whether it was acknowledged or not.
pub(super) fn heard(now: Nanos, peer: &PeerView, hold_ns: Nanos) -> bool {
    peer.last_seen > 0 && now < peer.last_seen.saturating_add(hold_ns)
}

/// Whether a voter says that it promises about `node` in the present round. Older reports speak of a round that is over.
pub(super) fn promised_about(node: VoterId, concluded: Index, reports: &BTreeMap<VoterId, Report>) -> bool {
    reports.values().any(|r| r.promising & node.bit() != 0 && r.applied >= concluded)
}
