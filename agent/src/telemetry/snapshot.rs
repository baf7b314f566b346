//! The numbers of one scrape: plain data, which the shell fills from kernel maps, raft and the core.

use super::{log2::Log2, run::GroupRun};
use crate::cluster::ids::{Epoch, Index, Nanos};

/// All numbers of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The cluster's name.
    pub cluster: String,
    /// This machine's name.
    pub node: String,
    /// Whether a majority is alive and a leader known.
    pub quorum: bool,
    /// The raft leader's name.
    pub leader: Option<String>,
    /// The raft term.
    pub term: u64,
    /// The newest applied entry.
    pub applied: Index,
    /// The newest entry that the gate reflects.
    pub gate_index: Index,
    /// This machine's lease.
    pub lease: LeaseMetrics,
    /// The other voters.
    pub peers: Vec<PeerMetrics>,
    /// All groups.
    pub groups: Vec<GroupMetrics>,
    /// Datagrams on the heartbeat port that were thrown away, by reason ("forged", "malformed", …).
    pub discarded: Vec<(&'static str, u64)>,
    /// RPC connections and control requests that were thrown away, by reason.
    pub rejected: Vec<(&'static str, u64)>,
    /// How late the pulse was, at worst, since the agent's start.
    pub pulse_late_max_ns: Nanos,
    /// Pulses that were late by more than half an interval.
    pub pulses_late: u64,
    /// Entries that the log refused by their compare-and-set.
    pub entries_refused: u64,
    /// What is in maintenance: "cluster", "node" or "group", and the name of the node or group.
    pub maintenance: Vec<(&'static str, String)>,
}

/// This machine's lease.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeaseMetrics {
    /// How long it lasts from now on; negative when it ended so long ago; `None`: it never had one.
    pub margin_ns: Option<i64>,
    /// How often it ended without a promise against it.
    pub lapsed: u64,
    /// Whether the kernel enforces it.
    pub enforced: bool,
}

/// One other voter.
#[derive(Clone, Debug, Default)]
pub struct PeerMetrics {
    /// Its name.
    pub name: String,
    /// Whether its heartbeats arrive.
    pub alive: bool,
    /// Whether it says that it holds a lease.
    pub holds_lease: bool,
    /// How long ago its last heartbeat arrived; `None`: never.
    pub last_seen_ns: Option<Nanos>,
    /// One entry a backplane link, in the configuration's order.
    pub links: Vec<LinkMetrics>,
}

/// One link to one voter, as the kernel counted it.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkMetrics {
    /// Heartbeats that arrived in order.
    pub received: u64,
    /// Heartbeats that never came.
    pub lost: u64,
    /// Heartbeats that came after a later one.
    pub reordered: u64,
    /// Heartbeats that came twice.
    pub replayed: u64,
    /// Acknowledgements sent to it.
    pub acknowledged: u64,
    /// Acknowledgements that came from it.
    pub acknowledgements: u64,
    /// Round trips.
    pub rtt: Log2,
    /// Times between two arrivals.
    pub interarrival: Log2,
}

/// One group.
#[derive(Clone, Debug, Default)]
pub struct GroupMetrics {
    /// Its name.
    pub name: String,
    /// Its owner by the log.
    pub owner: Option<String>,
    /// Its epoch.
    pub epoch: Epoch,
    /// Whether this node passes its packets.
    pub serving: bool,
    /// How many VIPs it has.
    pub vips: usize,
    /// Packets that the gate dropped, by place ("ingress", "egress", …).
    pub gate_drops: Vec<(&'static str, u64)>,
    /// Packets that were steered in planned moves, by what became of them.
    pub steering: Vec<(&'static str, u64)>,
    /// The node that still serves flows from before the last planned move.
    pub draining_on: Option<String>,
    /// Whether an operator stopped it.
    pub stopped: bool,
    /// How its resources run on this node, if the executor has said so.
    pub run: Option<GroupRun>,
}
