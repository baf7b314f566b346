//! openraft's types, filled in.

use std::{future::Future, io::Cursor, time::Duration};

use openraft::{AsyncRuntime, TokioRuntime};
use serde::{Deserialize, Serialize};

use crate::cluster::{
    entry::Entry,
    ids::{Index, VoterId},
};

openraft::declare_raft_types!(
    /// The types of Baton's raft: cluster entries in, their fate out.
    pub TypeConfig:
        D = Entry,
        R = Applied,
        NodeId = u64,
        Node = (),
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = Runtime,
);

/// An entry's place in the log.
pub type LogId = openraft::LogId<u64>;
/// A term and who leads it.
pub type Vote = openraft::Vote<u64>;
/// An entry of the log: a cluster entry, a membership, or a new leader's blank one.
pub type LogEntry = openraft::Entry<TypeConfig>;
/// Raft's own membership as of an entry.
pub type StoredMembership = openraft::StoredMembership<u64, ()>;
/// What a snapshot says of itself.
pub type SnapshotMeta = openraft::SnapshotMeta<u64, ()>;
/// A snapshot with its data.
pub type Snapshot = openraft::Snapshot<TypeConfig>;
/// An error that stops raft.
pub type StorageError = openraft::StorageError<u64>;
/// The running raft.
pub type Raft = openraft::Raft<TypeConfig>;

/// The fate of an entry: where it stands in the log, and whether the state took it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Its index.
    pub index: Index,
    /// What its compare-and-set said; a refusal is a normal outcome, the text names what no longer matched.
    pub outcome: Result<(), String>,
}

/// raft's number of a voter.
pub fn node_id(voter: VoterId) -> u64 {
    u64::from(voter.0)
}

/// The voter with a raft number; `None` when it is none (a damaged log).
pub fn voter_id(node: u64) -> Option<VoterId> {
    u8::try_from(node).ok().map(VoterId)
}

/// tokio, with one difference: openraft's own time limits are only a backstop.
///
/// openraft 0.9 gives an append the heartbeat interval and a vote request `election_timeout_min`, which must lie below
/// the leader lease. Ours is a few milliseconds, less than a slow disk takes to store a vote. The limits that count are
/// in [`super::network`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Runtime;

/// Longer than every deadline of [`super::network`].
const BACKSTOP: Duration = Duration::from_secs(5);

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: Send + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + Send> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <TokioRuntime as AsyncRuntime>::ThreadLocalRng;
    type OneshotSender<T: Send> = <TokioRuntime as AsyncRuntime>::OneshotSender<T>;
    type OneshotReceiverError = <TokioRuntime as AsyncRuntime>::OneshotReceiverError;
    type OneshotReceiver<T: Send> = <TokioRuntime as AsyncRuntime>::OneshotReceiver<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + Send>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration.max(BACKSTOP), future)
    }

    fn timeout_at<R, F: Future<Output = R> + Send>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        TokioRuntime::thread_rng()
    }

    fn oneshot<T>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>)
    where
        T: Send,
    {
        TokioRuntime::oneshot()
    }
}
