//! Snapshots of the tables in plain numbers, for the core, the metrics and the status page.

use baton_ebpf::{
    histogram::{BUCKETS, Histogram},
    layout::{Counters, Peer, PeerLink},
    wire,
};

use crate::cluster::ids::{Incarnation, Index, Nanos, VoterId};

/// A peer as its heartbeats show it. Instants are this machine's boot clock, 0 is never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerView {
    /// The floor in force.
    pub floor: Index,
    /// R: when this machine last acknowledged the peer.
    pub last_acknowledged: Nanos,
    /// When a valid beat last arrived.
    pub last_seen: Nanos,
    /// When a valid acknowledgement last arrived: the host lives, whatever its agent does.
    pub host_seen: Nanos,
    /// The newest incarnation.
    pub incarnation: Incarnation,
    /// Whether the newest beat said that its sender holds a lease.
    pub holds_lease: bool,
    /// Whether it said that its sender is a node.
    pub is_node: bool,
    /// Its gate index.
    pub gate_index: Index,
    /// Its last log index.
    pub log_index: Index,
    /// Its token of progress.
    pub token: u32,
    /// Since when the token has stood still.
    pub token_since: Nanos,
    /// The leader it knows.
    pub leader: Option<VoterId>,
    /// The term it knows.
    pub term: u64,
    /// Its configuration's digest.
    pub digest: u32,
    /// The voters it finds silent: bit = voter number - 1.
    pub silent: u8,
}

impl PeerView {
    pub(super) fn of(peer: &Peer) -> Self {
        let flags = peer.flags.load() as u8;
        let leader = peer.leader.load() as u8;
        Self {
            floor: peer.floor.load(),
            last_acknowledged: peer.acknowledged.load(),
            last_seen: peer.last_seen.load(),
            host_seen: peer.host_seen.load(),
            incarnation: peer.incarnation.load(),
            holds_lease: flags & wire::FLAG_LEASE != 0,
            is_node: flags & wire::FLAG_NODE != 0,
            gate_index: peer.gate_index.load(),
            log_index: peer.log_index.load(),
            token: peer.token.load() as u32,
            token_since: peer.token_since.load(),
            leader: (leader != 0).then_some(VoterId(leader)),
            term: peer.term.load(),
            digest: peer.digest.load() as u32,
            silent: peer.silent.load() as u8,
        }
    }
}

/// A histogram: bucket b counts values in [2^b, 2^(b+1)) ns, the last one everything above.
pub type Buckets = [u64; BUCKETS];

/// A peer on a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkView {
    /// When a beat last arrived (boot clock, ns).
    pub last_seen: Nanos,
    /// Beats taken.
    pub received: u64,
    /// Beats that never came.
    pub lost: u64,
    /// Beats that came after a later one.
    pub reordered: u64,
    /// Beats that came twice, or from a past incarnation.
    pub replayed: u64,
    /// Acknowledgements sent.
    pub answered: u64,
    /// Acknowledgements taken.
    pub acknowledged: u64,
    /// Acknowledgements that came twice or after a later one.
    pub acknowledged_stale: u64,
    /// The sum of the round trips, ns.
    pub rtt_sum: u64,
    /// The sum of the inter-arrival times, ns.
    pub gap_sum: u64,
    /// Round trips.
    pub rtt: Buckets,
    /// Inter-arrival times.
    pub gap: Buckets,
}

impl LinkView {
    pub(super) fn of(link: &PeerLink) -> Self {
        let reordered = link.reordered.load();
        Self {
            last_seen: link.last_seen.load(),
            received: link.received.load(),
            // A late beat was counted as lost when a later one jumped over it.
            lost: link.lost.load().saturating_sub(reordered),
            reordered,
            replayed: link.replayed.load(),
            answered: link.answered.load(),
            acknowledged: link.ack_received.load(),
            acknowledged_stale: link.ack_stale.load(),
            rtt_sum: link.rtt_sum.load(),
            gap_sum: link.gap_sum.load(),
            rtt: buckets(&link.rtt),
            gap: buckets(&link.gap),
        }
    }
}

fn buckets(histogram: &Histogram) -> Buckets {
    std::array::from_fn(|bucket| histogram.buckets[bucket].load())
}

/// What was counted on a backplane link; see [`Counters`] for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is documented at the layout's field of the same name")]
pub struct CountersView {
    pub forged: u64,
    pub malformed: u64,
    pub other_cluster: u64,
    pub stray: u64,
    pub outdated: u64,
    pub refused: u64,
    pub busy: u64,
    pub answered: u64,
    pub signed: u64,
    pub miswired: u64,
}

impl CountersView {
    pub(super) fn of(counters: &Counters) -> Self {
        Self {
            forged: counters.forged.load(),
            malformed: counters.malformed.load(),
            other_cluster: counters.other_cluster.load(),
            stray: counters.stray.load(),
            outdated: counters.outdated.load(),
            refused: counters.refused.load(),
            busy: counters.busy.load(),
            answered: counters.answered.load(),
            signed: counters.signed.load(),
            miswired: counters.miswired.load(),
        }
    }
}
