//! The failover records of this machine: the newest in memory, more in a bounded file, new ones to whoever follows.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    io::{self, BufRead as _, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use tokio::sync::broadcast;

use super::{
    log2::Log2,
    record::{PhaseName, Record},
    recorder::STACK_BYTES,
};
use crate::cluster::entry::Cause;

/// Records in memory.
const KEPT_MAX: usize = 256;
/// Records that a slow follower may be behind.
const BEHIND_MAX: usize = 64;
/// Records that wait for a slow disk; more are not written, and counted.
const UNWRITTEN_MAX: usize = 64;
/// The file is put aside (one generation) when it is larger than this.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The file in the data directory.
const FILE: &str = "failovers.jsonl";

/// A handle to the history; clones share it.
#[derive(Clone, Debug)]
pub struct History(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    news: broadcast::Sender<Arc<Record>>,
    journal: Option<SyncSender<Arc<Record>>>,
    dropped: Arc<AtomicU64>,
    unwritten: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    last_seq: u64,
    kept: VecDeque<Arc<Record>>,
    stats: Stats,
}

/// Numbers over all records since the agent's start, for the metrics.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Changes of owner by cause.
    pub failovers: BTreeMap<Cause, u64>,
    /// Rounds that moved nothing.
    pub fruitless_rounds: u64,
    /// How long each phase took, from the phase before it.
    pub phases: BTreeMap<PhaseName, Log2>,
    /// How long all of it took.
    pub total: Log2,
    /// Facts and marks that found the recorder's queue full.
    pub dropped: u64,
    /// Records that could not be written to the file.
    pub unwritten: u64,
}

impl History {
    /// A history without a file.
    pub fn in_memory() -> Self {
        Self::with(State::default(), None)
    }

    /// The history in a data directory: reads what is there, and writes on from a thread of its own.
    ///
    /// Call it from a thread of ordinary priority: a thread inherits the priority of the one that starts it.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(FILE);
        let mut state = State::default();
        for file in [aside(&path), path.clone()] {
            read_records(&file, &mut state)?;
        }
        let (journal, waiting) = sync_channel(UNWRITTEN_MAX);
        let history = Self::with(state, Some(journal));
        let unwritten = Arc::downgrade(&history.0);
        let count = move || {
            if let Some(inner) = unwritten.upgrade() {
                inner.unwritten.fetch_add(1, Ordering::Relaxed);
            }
        };
        thread::Builder::new()
            .name("baton-journal".into())
            .stack_size(STACK_BYTES)
            .spawn(move || write_records(&path, &waiting, count))?;
        Ok(history)
    }

    fn with(state: State, journal: Option<SyncSender<Arc<Record>>>) -> Self {
        let (news, _) = broadcast::channel(BEHIND_MAX);
        Self(Arc::new(Inner {
            state: Mutex::new(state),
            news,
            journal,
            dropped: Arc::default(),
            unwritten: AtomicU64::new(0),
        }))
    }

    /// Numbers a record and keeps it; never waits for a disk or a reader.
    pub fn add(&self, mut record: Record) {
        let record = {
            let mut state = self.state();
            state.last_seq += 1;
            record.seq = state.last_seq;
            state.stats.count(&record);
            let record = Arc::new(record);
            state.keep(record.clone());
            record
        };
        if let Some(journal) = &self.0.journal
            && journal.try_send(record.clone()).is_err()
        {
            self.0.unwritten.fetch_add(1, Ordering::Relaxed);
        }
        // An error means that nobody follows.
        drop(self.0.news.send(record));
    }

    /// The records in memory with a larger number than `since`, oldest first.
    pub fn since(&self, since: u64) -> Vec<Arc<Record>> {
        self.state().kept.iter().filter(|r| r.seq > since).cloned().collect()
    }

    /// New records from now on. Subscribe first, then read [`Self::since`], and skip what came twice.
    pub fn follow(&self) -> broadcast::Receiver<Arc<Record>> {
        self.0.news.subscribe()
    }

    /// The numbers for the metrics.
    pub fn stats(&self) -> Stats {
        let mut stats = self.state().stats.clone();
        stats.dropped = self.0.dropped.load(Ordering::Relaxed);
        stats.unwritten = self.0.unwritten.load(Ordering::Relaxed);
        stats
    }

    /// The counter of facts and marks that were dropped.
    pub(super) fn dropped_inputs(&self) -> Arc<AtomicU64> {
        self.0.dropped.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic elsewhere leaves at worst one record uncounted; the history goes on.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn keep(&mut self, record: Arc<Record>) {
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(record);
    }
}

impl Stats {
    fn count(&mut self, record: &Record) {
        if record.group.is_none() {
            self.fruitless_rounds += 1;
            return;
        }
        *self.failovers.entry(record.cause).or_default() += 1;
        self.total.add(record.total_ns);
        for phase in record.phases.iter().skip(1) {
            self.phases.entry(phase.phase).or_default().add(phase.took_ns);
        }
    }
}

/// The name of the older file.
fn aside(path: &Path) -> PathBuf {
    path.with_extension("jsonl.1")
}

/// Reads a file's records; a line that is no record (a crash cut it, say) is passed over.
fn read_records(path: &Path, state: &mut State) -> io::Result<()> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    // Twice the bound: the last record written may have gone over it.
    for line in io::BufReader::new(file.take(2 * FILE_BYTES_MAX)).split(b'\n') {
        if let Ok(record) = serde_json::from_slice::<Record>(&line?) {
            state.last_seq = state.last_seq.max(record.seq);
            state.keep(Arc::new(record));
        }
    }
    Ok(())
}

fn write_records(path: &Path, waiting: &Receiver<Arc<Record>>, failed: impl Fn()) {
    while let Ok(record) = waiting.recv() {
        if let Err(e) = append(path, &record) {
            failed();
            tracing::warn!(error = %e, path = %path.display(), "a failover record was not written");
        }
    }
}

fn append(path: &Path, record: &Record) -> io::Result<()> {
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    // A leading newline ends a line that a crash cut short; empty lines are passed over.
    line.insert(0, b'\n');
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(&line)?;
    if file.metadata()?.len() > FILE_BYTES_MAX {
        fs::rename(path, aside(path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_put_aside_before_it_grows_too_large() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let mut record = Record {
            seq: 0,
            recorded_by: "lb1".into(),
            group: Some("web".into()),
            epoch: 1,
            cause: Cause::Silent,
            from: None,
            to: Some("x".repeat(1_000)),
            wall_ns: 0,
            total_ns: 0,
            phases: Vec::new(),
        };
        for seq in 1..=2_500 {
            record.seq = seq;
            append(&path, &record).unwrap();
        }
        for file in [path.clone(), aside(&path)] {
            assert!((1..=FILE_BYTES_MAX + 2_000).contains(&fs::metadata(&file).unwrap().len()), "{}", file.display());
        }
        let mut state = State::default();
        read_records(&aside(&path), &mut state).unwrap();
        read_records(&path, &mut state).unwrap();
        assert_eq!((state.last_seq, state.kept.len()), (2_500, KEPT_MAX));
    }
}
