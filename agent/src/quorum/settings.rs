//! openraft's settings, and why they are what they are.
//!
//! **0.9.25, not 0.10.** 0.10 has leader transfer and pre-vote but is an alpha whose storage interfaces still move. Both
//! can be had in 0.9: a leader that steps aside stops its heartbeats and another voter is elected; and
//! [`super::Quorum::elect`] asks the voters before it spends a term.
//!
//! **Elections** are called by the cluster core alone (`enable_elect = false`), which sees the heartbeats of the kernel;
//! raft's own heartbeats detect nothing. They are rare, and only repair: an append that failed is tried again at once
//! anyway, so what a heartbeat brings is the committed position when the request that carried it was lost, and the news
//! of a newer term to a leader that was cut off.
//!
//! **Commit.** A new committed position is sent to each follower at once (openraft's `ReplicateCommitted` turns into an
//! append without entries when nothing else is on its way), not with the next heartbeat.
//!
//! **The leader lease** (`election_timeout_max`): a voter refuses to vote for this long after it heard of the leader. A
//! candidate stands only after the hold (1.25 L + 0.5 ms), so with a lease of L it is never in the way of a takeover; it
//! only delays a planned hand-over by up to L. `election_timeout_min` must be smaller and does nothing else here: the
//! deadlines of requests are our own (see [`super::types::Runtime`]).
//!
//! **The tick** is one and a half heartbeats and wakes the thread about ten times a second.

use openraft::{Config, SnapshotPolicy};

use crate::cluster::ids::{MILLISECOND, Nanos};

/// Between two heartbeats of raft, in milliseconds.
const HEARTBEAT_MS: u64 = 70;
/// Entries after which a snapshot is taken.
const SNAPSHOT_ENTRIES: u64 = 1024;
/// Entries kept behind a snapshot, so that a voter that was away briefly needs no snapshot.
const KEPT_ENTRIES: u64 = 512;
/// Entries in one append.
const APPEND_ENTRIES_MAX: u64 = 128;

/// The settings for a cluster with this lease.
pub(super) fn raft(cluster: &str, lease_ns: Nanos, snapshot_entries: Option<u64>) -> Config {
    let lease_ms = (lease_ns / MILLISECOND).max(2);
    let snapshot_entries = snapshot_entries.unwrap_or(SNAPSHOT_ENTRIES);
    Config {
        cluster_name: cluster.to_owned(),
        election_timeout_min: lease_ms - 1,
        election_timeout_max: lease_ms,
        heartbeat_interval: HEARTBEAT_MS,
        max_payload_entries: APPEND_ENTRIES_MAX,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_entries),
        // A follower this far behind gets a snapshot; more than the entries that are always kept.
        replication_lag_threshold: 2 * snapshot_entries,
        max_in_snapshot_log_to_keep: KEPT_ENTRIES.min(snapshot_entries / 2),
        purge_batch_size: 64.min(snapshot_entries),
        enable_elect: false,
        ..Config::default()
    }
}
