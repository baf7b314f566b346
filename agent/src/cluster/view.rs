//! What the core sees of the world at one step: a snapshot of the heartbeat maps and of the host. Level, never edge.

use std::collections::BTreeMap;

use super::ids::{Incarnation, Index, Nanos, VoterId};

/// The snapshot. All instants are this machine's CLOCK_BOOTTIME.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The other voters, as the heartbeats show them.
    pub peers: BTreeMap<VoterId, PeerView>,
    /// When this machine's own lease ends (0: never had one).
    pub lease_end: Nanos,
    /// Since when this machine's own pulse has been punctual; a late pulse starts all holds afresh (rule 2).
    pub punctual_since: Nanos,
    /// Whether all front links of this node are up.
    pub front_up: bool,
    /// The peers to which packets can be steered over the backplane now: bits as of [`VoterId::bit`].
    pub steers: u16,
    /// Whether this machine's configuration digest differs from that of a majority of the voters that are heard.
    pub configuration_differs: bool,
    /// What raft says of itself.
    pub raft: RaftView,
}

/// A peer as its heartbeats show it.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerView {
    /// R: when this machine last acknowledged the peer's lease (0: never). Read after the floor was set.
    pub last_acknowledged: Nanos,
    /// The floor now in force here for the peer; [`u64::MAX`] is infinity.
    pub floor: Index,
    /// When any valid heartbeat of the peer last arrived, on any link (0: never).
    pub last_seen: Nanos,
    /// The incarnation that the newest beat named.
    pub incarnation: Incarnation,
    /// Whether the newest beat said that its sender holds a lease.
    pub holds_lease: bool,
    /// The gate index that the newest beat carried.
    pub gate_index: Index,
    /// The last log index that the newest beat carried.
    pub log_index: Index,
    /// Since when the token of progress has stood still.
    pub token_since: Nanos,
    /// The raft leader that the peer knows, and the term.
    pub leader: Option<VoterId>,
    /// The term that the peer knows.
    pub term: u64,
}

/// Raft's own view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RaftView {
    /// The leader that this machine knows.
    pub leader: Option<VoterId>,
    /// The current term.
    pub term: u64,
    /// The last log index here.
    pub log_index: Index,
}
