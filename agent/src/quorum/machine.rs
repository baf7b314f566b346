//! raft's state machine: it wraps the cluster's replicated state and hands each applied entry on to the core's driver.

use std::{
    io::Cursor,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageIOError, storage::RaftStateMachine};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;

use super::{
    snapshot::{SnapshotError, Snapshots},
    types::{Applied, LogEntry, LogId, Snapshot, SnapshotMeta, StorageError, StoredMembership, TypeConfig},
};
use crate::cluster::{
    entry::Entry,
    ids::{Incarnation, Index, VoterId},
    state::State,
};

/// A state that every replica computes alike from the entries.
pub trait Replicated: Default + Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Applies an entry; an error is a refusal, which changes nothing and is the same everywhere.
    fn apply(&mut self, index: Index, entry: &Entry) -> Result<(), String>;
    /// Takes note of an entry of raft's own, which says nothing to the state.
    fn skip(&mut self, index: Index);
    /// The newest incarnation of a voter on record; 0 when there is none.
    fn incarnation(&self, voter: VoterId) -> Incarnation;
}

impl Replicated for State {
    fn apply(&mut self, index: Index, entry: &Entry) -> Result<(), String> {
        // The effects are for the core, which applies the same entry to its own copy.
        State::apply(self, index, entry).map(drop).map_err(|refusal| refusal.to_string())
    }

    fn skip(&mut self, index: Index) {
        State::skip(self, index);
    }

    fn incarnation(&self, voter: VoterId) -> Incarnation {
        State::incarnation(self, voter).unwrap_or(0)
    }
}

/// What happened to the replicated state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppliedEvent<M> {
    /// An entry was applied.
    Entry {
        /// Its index.
        index: Index,
        /// The entry; `None` for raft's own blank and membership entries.
        entry: Option<Entry>,
        /// What its compare-and-set said.
        outcome: Result<(), String>,
    },
    /// The state was replaced by a snapshot.
    Restored {
        /// The last entry that it covers.
        index: Index,
        /// The state.
        state: M,
    },
}

/// The events for the driver, in order. Not bounded, because raft cannot wait for the driver; accounted by [`Self::depth`].
pub struct AppliedEvents<M> {
    receiver: mpsc::UnboundedReceiver<AppliedEvent<M>>,
    depth: Arc<AtomicUsize>,
}

impl<M> AppliedEvents<M> {
    /// The next event; `None` once raft has stopped.
    pub async fn recv(&mut self) -> Option<AppliedEvent<M>> {
        let event = self.receiver.recv().await;
        self.taken(event)
    }

    /// The next event, if one waits.
    pub fn try_recv(&mut self) -> Option<AppliedEvent<M>> {
        let event = self.receiver.try_recv().ok();
        self.taken(event)
    }

    /// How many events wait.
    pub fn depth(&self) -> usize {
        self.depth.load(Relaxed)
    }

    fn taken(&self, event: Option<AppliedEvent<M>>) -> Option<AppliedEvent<M>> {
        if event.is_some() {
            self.depth.fetch_sub(1, Relaxed);
        }
        event
    }
}

/// The state as others may look at it.
pub(super) type Shared<M> = Arc<Mutex<View<M>>>;

/// The replicated state and the entry that it reflects.
#[derive(Clone, Default)]
pub(super) struct View<M> {
    pub state: M,
    pub applied: Option<LogId>,
    pub membership: StoredMembership,
}

/// The state machine.
pub struct Machine<M> {
    view: Shared<M>,
    snapshots: Snapshots,
    events: mpsc::UnboundedSender<AppliedEvent<M>>,
    depth: Arc<AtomicUsize>,
}

impl<M: Replicated> Machine<M> {
    /// The machine as the snapshot in `folder` says, or empty; with the events for the driver.
    pub fn open(folder: &Path) -> Result<(Self, AppliedEvents<M>), SnapshotError> {
        let snapshots = Snapshots::open(folder)?;
        let (events, receiver) = mpsc::unbounded_channel();
        let depth = Arc::new(AtomicUsize::new(0));
        let machine = Self { view: Shared::default(), snapshots, events, depth: Arc::clone(&depth) };
        if let Some(snapshot) = machine.snapshots.current() {
            machine
                .restore(&snapshot.meta, snapshot.snapshot.get_ref())
                .map_err(|source| SnapshotError::Unreadable { path: folder.to_owned(), source })?;
        }
        Ok((machine, AppliedEvents { receiver, depth }))
    }

    /// Whether there is a snapshot.
    pub(super) fn has_snapshot(&self) -> bool {
        self.snapshots.current().is_some()
    }

    pub(super) fn view(&self) -> Shared<M> {
        Arc::clone(&self.view)
    }

    fn restore(&self, meta: &SnapshotMeta, data: &[u8]) -> Result<(), serde_json::Error> {
        let state: M = serde_json::from_slice(data)?;
        let index = meta.last_log_id.map_or(0, |id| id.index);
        let view = View { state: state.clone(), applied: meta.last_log_id, membership: meta.last_membership.clone() };
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
        self.tell(AppliedEvent::Restored { index, state });
        Ok(())
    }

    fn tell(&self, event: AppliedEvent<M>) {
        self.depth.fetch_add(1, Relaxed);
        if self.events.send(event).is_err() {
            // The driver is gone: the agent is stopping.
            self.depth.fetch_sub(1, Relaxed);
        }
    }
}

impl<M: Replicated> RaftStateMachine<TypeConfig> for Machine<M> {
    type SnapshotBuilder = Builder<M>;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((view.applied, view.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Applied>, StorageError>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Vec::new();
        for LogEntry { log_id, payload } in entries {
            let index = log_id.index;
            let (entry, outcome) = match payload {
                EntryPayload::Blank => {
                    view.state.skip(index);
                    (None, Ok(()))
                }
                EntryPayload::Membership(membership) => {
                    view.state.skip(index);
                    view.membership = StoredMembership::new(Some(log_id), membership);
                    (None, Ok(()))
                }
                EntryPayload::Normal(entry) => {
                    let outcome = view.state.apply(index, &entry);
                    (Some(entry), outcome)
                }
            };
            view.applied = Some(log_id);
            self.tell(AppliedEvent::Entry { index, entry, outcome: outcome.clone() });
            all.push(Applied { index, outcome });
        }
        Ok(all)
    }

    async fn get_snapshot_builder(&mut self) -> Builder<M> {
        let view = self.view.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Builder { view, snapshots: self.snapshots.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let data = snapshot.into_inner();
        // Read it first: what cannot be read must not become the snapshot on disk.
        let _: M = serde_json::from_slice(&data).map_err(|error| StorageIOError::read_snapshot(None, &error))?;
        store(&self.snapshots, meta.clone(), data.clone()).await?;
        self.restore(meta, &data).map_err(|error| StorageIOError::read_snapshot(None, &error).into())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        Ok(self.snapshots.current())
    }
}

/// Writes a snapshot off the runtime's thread: the failover path must not wait for it.
async fn store(snapshots: &Snapshots, meta: SnapshotMeta, data: Vec<u8>) -> Result<(), StorageError> {
    let snapshots = snapshots.clone();
    let stored = tokio::task::spawn_blocking(move || snapshots.store(meta, data)).await;
    match stored {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(StorageIOError::write_snapshot(None, &error).into()),
        Err(error) => Err(StorageIOError::write_snapshot(None, &error).into()),
    }
}

/// Builds a snapshot of the state at one moment.
pub struct Builder<M> {
    view: View<M>,
    snapshots: Snapshots,
}

impl<M: Replicated> RaftSnapshotBuilder<TypeConfig> for Builder<M> {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let data =
            serde_json::to_vec(&self.view.state).map_err(|error| StorageIOError::write_snapshot(None, &error))?;
        let last_log_id = self.view.applied;
        let snapshot_id = last_log_id.map_or_else(|| "empty".to_owned(), |id| id.to_string());
        let meta = SnapshotMeta { last_log_id, last_membership: self.view.membership.clone(), snapshot_id };
        store(&self.snapshots, meta.clone(), data.clone()).await?;
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(data)) })
    }
}
