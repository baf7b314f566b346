//! The durable log: entries, vote, committed and purged positions in checksummed, preallocated segment files.
//!
//! One thread writes and calls fdatasync. A *leader's* append is reported to raft at once, before it is on disk, so that
//! its own disk and the followers' work at the same time. That is safe because of four things together:
//! 1. nothing tells anybody of a commit before the entry is durable here: [`Log::durable`] is awaited by `save_committed`
//!    (which raft awaits before it applies) and by the network before it sends a `leader_commit`;
//! 2. a vote found at the start is never taken for a leadership that goes on, so a term's log ids are never given twice;
//! 3. only entries of the term that this voter leads are reported early: nobody else can have promised them;
//! 4. a failed write or sync is final: the thread ends, and every wait fails.
//!
//! A *candidate's* vote for itself is likewise written while the others are asked: (5) it is awaited before this voter
//! takes the leadership, and a candidate that forgot a vote for itself has led nobody in that term.

mod record;
mod recover;
pub(crate) mod segment;
mod storage;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
};

use rustix::fs::{FlockOperation, flock};
use tokio::sync::watch;

use self::{
    record::Record,
    writer::{Done, Job, Progress, Writer},
};
use super::types::{LogEntry, LogId, Vote};
use crate::cluster::ids::VoterId;

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A file could not be read or written.
    #[error("the log at {} could not be read or written", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another process has the folder open.
    #[error("another agent uses {}: stop it first, or give this one a folder of its own", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// Records that this voter once acknowledged are unreadable.
    #[error(
        "the log {} is damaged at byte {offset}: {what}. This voter may have forgotten what it acknowledged, so it must \
         not vote again under its number. To rejoin: stop the agent, move the data folder away, check the disk, and let \
         this machine join under a new voter number", path.display()
    )]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// How to open a log.
pub struct LogConfig {
    /// The folder; made when missing.
    pub folder: PathBuf,
    /// This voter.
    pub me: VoterId,
    /// Bytes of a segment file; also the bound of one record.
    pub segment_bytes: u64,
    /// Runs first on the log's thread, to set its scheduling. A realtime class should come with SCHED_RESET_ON_FORK
    /// (sched(7)): the log's helper thread, which makes and removes files, is started from there.
    pub on_thread: Option<Box<dyn FnOnce() + Send>>,
}

/// The usual [`LogConfig::segment_bytes`].
pub const SEGMENT_BYTES: u64 = 4 << 20;
/// Jobs that may wait for the disk before an append waits too.
const BEHIND_MAX: u64 = 256;

/// The log; clones share it.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    me: u64,
    memory: Mutex<Memory>,
    progress: watch::Receiver<Progress>,
}

/// What the log holds, in memory: it is bounded by the snapshots.
struct Memory {
    /// Each entry with the ticket of the job that writes it.
    entries: BTreeMap<u64, (LogEntry, u64)>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    ticket: u64,
    /// The ticket of this voter's last vote for itself.
    candidacy: u64,
    jobs: mpsc::Sender<Job>,
}

impl Log {
    /// Opens or makes the log in a folder, and starts its thread.
    pub fn open(config: LogConfig) -> Result<Self, LogError> {
        let folder = config.folder;
        let io = |source| LogError::Io { path: folder.clone(), source };
        fs::create_dir_all(&folder).map_err(io)?;
        let lock = lock(&folder)?;
        segment::remove_unfinished(&folder).map_err(io)?;
        let mut recovered = recover::recover(&folder)?;
        if recovered.torn {
            tracing::warn!(folder = %folder.display(), "a write that was never acknowledged is left out of the log");
        }
        segment::create(&folder, recovered.segment, config.segment_bytes).map_err(io)?;
        let file = segment::open(&folder, recovered.segment).map_err(io)?;
        segment::clear(&file, recovered.end).map_err(io)?;
        if recovered.torn {
            // The torn write may have begun the next segment.
            let next = recovered.segment + 1;
            if segment::path(&folder, next).try_exists().map_err(io)? {
                segment::clear(&segment::open(&folder, next).map_err(io)?, 0).map_err(io)?;
            }
        }
        // What was read may still be in the page cache alone: make it durable before anything is built on it.
        file.sync_data().map_err(io)?;
        let me = super::types::node_id(config.me);
        // See point 2 above: this voter led that term, but no longer does.
        if let Some(vote) = recovered.vote.as_mut()
            && vote.leader_id().voted_for() == Some(me)
        {
            vote.committed = false;
        }
        let (progress, watcher) = watch::channel(Progress::default());
        let mut writer = Writer {
            folder: folder.clone(),
            segment_bytes: config.segment_bytes,
            segment: recovered.segment,
            file,
            offset: recovered.end,
            previous_end: recovered.previous_end,
            sealed: recovered.sealed,
            largest: recovered.largest,
            vote: recovered.vote,
            committed: recovered.committed,
            purged: recovered.purged,
            progress,
            lock,
        };
        if recovered.end == 0 {
            writer.begin().map_err(io)?;
        }
        let (jobs, todo) = mpsc::channel();
        let on_thread = config.on_thread;
        let thread = std::thread::Builder::new().name("baton-log".into()).spawn(move || {
            if let Some(hook) = on_thread {
                hook();
            }
            writer.run(&todo);
        });
        thread.map_err(io)?;
        let memory = Memory {
            entries: recovered.entries.into_iter().map(|(index, entry)| (index, (entry, 0))).collect(),
            vote: recovered.vote,
            committed: recovered.committed,
            purged: recovered.purged,
            ticket: 0,
            candidacy: 0,
            jobs,
        };
        let shared = Shared { me, memory: Mutex::new(memory), progress: watcher };
        Ok(Self { shared: Arc::new(shared) })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.shared.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this voter has never voted or taken an entry.
    pub fn is_pristine(&self) -> bool {
        let memory = self.memory();
        memory.vote.is_none() && memory.purged.is_none() && memory.entries.is_empty()
    }

    /// The last entry, or the last that was purged.
    pub fn last(&self) -> Option<LogId> {
        let memory = self.memory();
        memory.entries.last_key_value().map(|(_, (entry, _))| entry.log_id).or(memory.purged)
    }

    /// Looks at every entry behind `index`.
    pub fn entries_behind(&self, index: u64, mut look: impl FnMut(&LogEntry)) {
        for (entry, _) in self.memory().entries.range(index + 1..).map(|(_, entry)| entry) {
            look(entry);
        }
    }

    /// Waits until the entry at `index` is on disk (at once when a snapshot covers it).
    pub async fn durable(&self, index: u64) -> io::Result<()> {
        let ticket = self.memory().entries.get(&index).map_or(0, |(_, ticket)| *ticket);
        self.reached(ticket).await
    }

    async fn reached(&self, ticket: u64) -> io::Result<()> {
        let mut progress = self.shared.progress.clone();
        let progress = progress.wait_for(|now| now.durable >= ticket || now.failed.is_some()).await;
        match progress.map(|now| now.failed.clone()) {
            Ok(None) => Ok(()),
            Ok(Some(error)) => Err(io::Error::other(error)),
            Err(_) => Err(io::Error::other("the log's thread has ended")),
        }
    }

    /// Writes records and waits until they are durable.
    async fn write(&self, records: Vec<Record>) -> io::Result<()> {
        let (waiter, written) = tokio::sync::oneshot::channel();
        self.memory().submit(records, true, Done::Waiter(waiter))?;
        written.await.map_err(|_| io::Error::other("the log's thread has ended"))?
    }

    /// Puts the first entry into an empty log, as openraft's `initialize` does, but without standing for election.
    pub async fn seed(&self, entry: LogEntry) -> io::Result<()> {
        let (waiter, written) = tokio::sync::oneshot::channel();
        {
            let mut memory = self.memory();
            let ticket = memory.submit(vec![Record::Entry(entry.clone())], true, Done::Waiter(waiter))?;
            memory.entries.insert(entry.log_id.index, (entry, ticket));
        }
        written.await.map_err(|_| io::Error::other("the log's thread has ended"))?
    }
}

impl Memory {
    /// Hands a job to the thread; returns its ticket.
    fn submit(&mut self, records: Vec<Record>, sync: bool, done: Done) -> io::Result<u64> {
        self.ticket += 1;
        let job = Job { records, ticket: self.ticket, sync, done };
        self.jobs.send(job).map_err(|_| io::Error::other("the log's thread has ended"))?;
        Ok(self.ticket)
    }
}

fn lock(folder: &Path) -> Result<File, LogError> {
    let path = folder.join("lock");
    let file = File::create(&path).map_err(|source| LogError::Io { path, source })?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| LogError::InUse { path: folder.to_owned() })?;
    Ok(file)
}
