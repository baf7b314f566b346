//! The kernel side of a machine: the maps, the program that acknowledges beats, the program that takes acknowledgements,
//! and the gate. It survives a crash of the agent and goes on while the agent is paused, never a crash of the machine.
//!
//! The arithmetic is that of crate `baton_ebpf`. A program is not atomic: between its first look at the floor and the
//! rest of it other processors run, so a beat is taken in two steps ([`Kernel::beat_first`], [`Kernel::beat_second`])
//! with any length of time between them. An acknowledgement is taken in one step: all it does are maxima.

use std::collections::BTreeMap;

use super::{mutation::Mutation, network::LINKS_MAX};
use crate::cluster::{
    command::GateRole,
    ids::{Epoch, Incarnation, Index, Nanos, VoterId},
    timing::majority,
    view::PeerView,
};

/// The order of a beat: incarnation, then the number of the beat.
pub const fn order(incarnation: Incarnation, number: u64) -> u64 {
    (incarnation << 40) | number
}

/// A heartbeat on the wire.
#[derive(Clone, Copy, Debug)]
pub struct Beat {
    /// The sender.
    pub from: VoterId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Grows with every beat of a link.
    pub order: u64,
    /// The departure stamp of this copy, on the sender's clock.
    pub stamp: Nanos,
    /// The newest entry whose effect is in the sender's gate.
    pub gate_index: Index,
    /// Whether the sender holds a lease.
    pub holds_lease: bool,
    /// The sender's token of progress.
    pub token: u64,
    /// The leader that the sender knows (0: none).
    pub leader: u8,
    /// The term that the sender knows.
    pub term: u64,
    /// The last log index of the sender.
    pub log_index: Index,
}

/// An acknowledgement on the wire.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledgement {
    /// The voter that acknowledges.
    pub from: VoterId,
    /// The incarnation of the beat.
    pub incarnation: Incarnation,
    /// The stamp of the very copy that arrived.
    pub stamp: Nanos,
}

/// A beat between the two halves of the program.
#[derive(Clone, Copy, Debug)]
pub struct InFlight {
    beat: Beat,
    /// The clock, as the program read it at its start.
    at: Nanos,
}

impl InFlight {
    /// Whose beat it is.
    pub const fn from(&self) -> VoterId {
        self.beat.from
    }
}

/// The row of one peer.
#[derive(Clone, Copy, Debug)]
struct Peer {
    floor: Index,
    acknowledged: Nanos,
    seen: Nanos,
    /// Per link, the order of the newest beat.
    orders: [u64; LINKS_MAX],
    newest: Option<Beat>,
    token_since: Nanos,
    /// The newest stamp of this machine that the peer acknowledged.
    stamp: Nanos,
}

/// What the agent tells the pulse, through the control map.
#[derive(Clone, Copy, Debug, Default)]
pub struct Control {
    /// The agent's incarnation.
    pub incarnation: Incarnation,
    /// The gate index.
    pub gate_index: Index,
    /// The token of progress.
    pub token: u64,
    /// The raft leader known (0: none).
    pub leader: u8,
    /// The term known.
    pub term: u64,
    /// The last log index.
    pub log_index: Index,
    /// The newest entry that the core has applied (no part of the protocol; a mutation beats this instead of the gate index).
    pub applied: Index,
    /// Since when the pulse has been punctual.
    pub punctual_since: Nanos,
    /// The instant until which this machine holds its lease.
    pub lease_end: Nanos,
}

/// The maps and programs of one boot of one machine.
pub struct Kernel {
    me: VoterId,
    voters: usize,
    lease_ns: Nanos,
    mutation: Option<Mutation>,
    peers: BTreeMap<VoterId, Peer>,
    /// The control map.
    pub control: Control,
    /// Group slot → epoch and role.
    pub gates: Vec<(Epoch, GateRole)>,
}

impl Kernel {
    /// Freshly loaded programs: every floor is infinite, every gate closed, before the first packet can arrive.
    pub fn new(me: VoterId, voters: &[VoterId], groups: usize, lease_ns: Nanos, mutation: Option<Mutation>) -> Self {
        let floor = if mutation == Some(Mutation::Core("floor_zero_after_restart")) { 0 } else { Index::MAX };
        let row =
            Peer { floor, acknowledged: 0, seen: 0, orders: [0; LINKS_MAX], newest: None, token_since: 0, stamp: 0 };
        Self {
            me,
            voters: voters.len(),
            lease_ns,
            mutation,
            peers: voters.iter().filter(|&&voter| voter != me).map(|&voter| (voter, row)).collect(),
            control: Control::default(),
            gates: vec![(0, GateRole::Closed); groups],
        }
    }

    /// The first half of the program at a beat's arrival. `None`: nothing more to do with it.
    pub fn beat_first(&mut self, link: usize, beat: Beat, now: Nanos) -> Option<InFlight> {
        let peer = self.peers.get_mut(&beat.from)?;
        if beat.order <= peer.orders[link] {
            return None;
        }
        peer.orders[link] = beat.order;
        peer.seen = peer.seen.max(now);
        if peer.newest.is_none_or(|known| known.order < beat.order) {
            if peer.newest.is_none_or(|known| known.incarnation != beat.incarnation || known.token != beat.token) {
                peer.token_since = now;
            }
            peer.newest = Some(beat);
        }
        (beat.gate_index >= peer.floor).then_some(InFlight { beat, at: now })
    }

    /// The second half: exchange R, look at the floor again, answer.
    ///
    /// R takes the larger of two programs that run at once on two links: a plain exchange could set it back.
    pub fn beat_second(&mut self, in_flight: InFlight) -> Option<Acknowledgement> {
        let InFlight { beat, at } = in_flight;
        let peer = self.peers.get_mut(&beat.from)?;
        peer.acknowledged = if self.mutation == Some(Mutation::PlainExchange) { at } else { peer.acknowledged.max(at) };
        if beat.gate_index < peer.floor && self.mutation != Some(Mutation::SkipSecondFloorCheck) {
            return None;
        }
        Some(Acknowledgement { from: self.me, incarnation: beat.incarnation, stamp: beat.stamp })
    }

    /// An acknowledgement arrived. Returns whether the lease grew.
    pub fn acknowledged(&mut self, acknowledgement: Acknowledgement, now: Nanos) -> bool {
        if acknowledgement.incarnation != self.control.incarnation || acknowledgement.stamp > now {
            return false;
        }
        let Some(peer) = self.peers.get_mut(&acknowledgement.from) else {
            return false;
        };
        if acknowledgement.stamp <= peer.stamp {
            return false;
        }
        peer.stamp = acknowledgement.stamp;
        // This machine counts in the majority, so the others have to bring one less.
        let mut stamps: Vec<Nanos> = self.peers.values().map(|peer| peer.stamp).collect();
        stamps.sort_unstable_by(|a, b| b.cmp(a));
        let others = majority(self.voters).saturating_sub(1);
        let newest = stamps.get(others.saturating_sub(1)).copied().unwrap_or(0);
        if newest == 0 || newest + self.lease_ns <= self.control.lease_end {
            return false;
        }
        self.control.lease_end = newest + self.lease_ns;
        true
    }

    /// The beat that leaves now.
    pub fn beat(&self, number: u64, now: Nanos) -> Beat {
        let control = &self.control;
        let late = self.mutation == Some(Mutation::BeatClaimsApplied);
        Beat {
            from: self.me,
            incarnation: control.incarnation,
            order: order(control.incarnation, number),
            stamp: now,
            gate_index: if late { control.applied } else { control.gate_index },
            holds_lease: now < control.lease_end,
            token: control.token,
            leader: control.leader,
            term: control.term,
            log_index: control.log_index,
        }
    }

    /// Sets a floor.
    pub fn set_floor(&mut self, peer: VoterId, floor: Index) {
        if let Some(row) = self.peers.get_mut(&peer) {
            row.floor = floor;
        }
    }

    /// The floor in force for a peer.
    pub fn floor(&self, peer: VoterId) -> Index {
        self.peers.get(&peer).map_or(Index::MAX, |row| row.floor)
    }

    /// What the core sees of the peers.
    pub fn view(&self) -> BTreeMap<VoterId, PeerView> {
        self.peers
            .iter()
            .map(|(&voter, row)| {
                let view = row.newest.map_or_else(PeerView::default, |beat| PeerView {
                    incarnation: beat.incarnation,
                    holds_lease: beat.holds_lease,
                    gate_index: beat.gate_index,
                    log_index: beat.log_index,
                    leader: (beat.leader != 0).then_some(VoterId(beat.leader)),
                    term: beat.term,
                    ..PeerView::default()
                });
                let row_view = PeerView {
                    last_acknowledged: row.acknowledged,
                    floor: row.floor,
                    last_seen: row.seen,
                    token_since: row.token_since,
                    ..view
                };
                (voter, row_view)
            })
            .collect()
    }
}
