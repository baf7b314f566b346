//! The log's thread: writes records in order, makes them durable, and reports back.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::mpsc,
};

use openraft::storage::LogFlushed;
use tokio::sync::{oneshot, watch};

use super::{
    record::{Record, encode},
    segment,
};
use crate::quorum::types::{LogId, TypeConfig, Vote};

/// Jobs that are written and made durable together, at most.
const BATCH_MAX: usize = 64;

/// Whom to tell once a job is done.
pub(super) enum Done {
    Nobody,
    Raft(LogFlushed<TypeConfig>),
    Waiter(oneshot::Sender<io::Result<()>>),
}

/// Records to write.
pub(super) struct Job {
    pub records: Vec<Record>,
    /// Grows with every job; [`Progress::durable`] reaches it once the job is on disk.
    pub ticket: u64,
    /// Whether the job must be on disk before it is reported; otherwise the next one takes it along.
    pub sync: bool,
    pub done: Done,
}

/// How far the thread has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Jobs up to this ticket are on disk.
    pub durable: u64,
    /// The error that ended the thread; after a failed write or sync nothing on disk can be trusted to be what we think.
    pub failed: Option<String>,
}

/// Work for the helper thread: what may take long.
enum Chore {
    Prepare(u64),
    Remove(u64),
}

/// The state of the thread.
pub(super) struct Writer {
    pub folder: PathBuf,
    pub segment_bytes: u64,
    pub segment: u64,
    pub file: File,
    pub offset: u64,
    pub previous_end: u64,
    /// Every older segment, with its largest entry index.
    pub sealed: Vec<(u64, u64)>,
    pub largest: u64,
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    pub progress: watch::Sender<Progress>,
    /// Held until the last job is done.
    pub lock: File,
}

impl Writer {
    /// Runs until every sender of jobs is gone, or a write fails.
    pub fn run(mut self, jobs: &mpsc::Receiver<Job>) {
        let (chores, todo) = mpsc::channel();
        let (folder, bytes) = (self.folder.clone(), self.segment_bytes);
        let helper = std::thread::Builder::new().name("baton-log-files".into());
        let helper = helper.spawn(move || help(&folder, bytes, &todo));
        if let Err(error) = &helper {
            tracing::warn!(%error, "no helper thread for the log: segments are made when they are needed");
        }
        self.work(jobs, &chores);
        drop(chores);
        if helper.is_ok_and(|helper| helper.join().is_err()) {
            tracing::error!("the log's helper thread panicked");
        }
        drop(self.lock);
    }

    fn work(&mut self, jobs: &mpsc::Receiver<Job>, chores: &mpsc::Sender<Chore>) {
        // A helper that is gone only costs time: segments are then made at the moment of need.
        let chore = |chore| drop(chores.send(chore));
        chore(Chore::Prepare(self.segment + 1));
        let mut durable = self.offset;
        while let Ok(first) = jobs.recv() {
            let mut batch = vec![first];
            batch.extend(jobs.try_iter().take(BATCH_MAX - 1));
            let before = self.segment;
            let result = self.write(&batch, &mut durable);
            if self.segment != before {
                chore(Chore::Prepare(self.segment + 1));
            }
            match &result {
                Ok(()) => {
                    while self
                        .sealed
                        .first()
                        .is_some_and(|(_, largest)| self.purged.is_some_and(|p| *largest <= p.index))
                    {
                        chore(Chore::Remove(self.sealed.remove(0).0));
                    }
                }
                Err(error) => {
                    tracing::error!(folder = %self.folder.display(), %error, "the log cannot be written");
                    self.progress.send_modify(|progress| progress.failed = Some(error.to_string()));
                }
            }
            for job in batch {
                report(job.done, &result);
            }
            if result.is_err() {
                return;
            }
        }
    }

    fn write(&mut self, batch: &[Job], durable: &mut u64) -> io::Result<()> {
        let mut buffer = Vec::new();
        for record in batch.iter().flat_map(|job| &job.records) {
            let at = buffer.len();
            encode(record, self.segment, *durable, &mut buffer)?;
            if self.offset + buffer.len() as u64 > self.segment_bytes {
                buffer.truncate(at);
                self.put(&mut buffer)?;
                self.rotate(durable)?;
                encode(record, self.segment, *durable, &mut buffer)?;
                if self.offset + buffer.len() as u64 > self.segment_bytes {
                    return Err(io::Error::other("a log record is larger than a segment"));
                }
            }
            match record {
                Record::Vote(vote) => self.vote = Some(*vote),
                Record::Committed(id) => self.committed = Some(*id),
                Record::Purge(id) => self.purged = Some(*id),
                Record::Entry(entry) => self.largest = self.largest.max(entry.log_id.index),
                Record::Truncate(_) | Record::Head { .. } => {}
            }
        }
        self.put(&mut buffer)?;
        if batch.iter().any(|job| job.sync) {
            self.file.sync_data()?;
            *durable = self.offset;
            if let Some(last) = batch.last() {
                self.progress.send_modify(|progress| progress.durable = last.ticket);
            }
        }
        Ok(())
    }

    fn put(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        self.file.write_all_at(buffer, self.offset)?;
        self.offset += buffer.len() as u64;
        buffer.clear();
        Ok(())
    }

    /// Goes on in the next segment. The old one is durable first, so that only the last segment can have a torn tail.
    fn rotate(&mut self, durable: &mut u64) -> io::Result<()> {
        self.file.sync_data()?;
        let next = self.segment + 1;
        segment::create(&self.folder, next, self.segment_bytes)?;
        self.file = segment::open(&self.folder, next)?;
        self.sealed.push((self.segment, self.largest));
        self.previous_end = self.offset;
        (self.segment, self.offset, self.largest, *durable) = (next, 0, 0, 0);
        self.begin()
    }

    /// Writes the head of an empty segment.
    pub fn begin(&mut self) -> io::Result<()> {
        let head = Record::Head {
            vote: self.vote,
            committed: self.committed,
            purged: self.purged,
            previous_end: self.previous_end,
        };
        let mut buffer = Vec::new();
        encode(&head, self.segment, 0, &mut buffer)?;
        self.put(&mut buffer)
    }
}

fn report(done: Done, result: &io::Result<()>) {
    let result = match result {
        Ok(()) => Ok(()),
        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
    };
    match done {
        Done::Nobody => {}
        Done::Raft(flushed) => flushed.log_io_completed(result),
        // Whoever gave up waiting does not need to know.
        Done::Waiter(waiter) => drop(waiter.send(result)),
    }
}

fn help(folder: &Path, bytes: u64, todo: &mpsc::Receiver<Chore>) {
    while let Ok(chore) = todo.recv() {
        let result = match chore {
            Chore::Prepare(number) => segment::create(folder, number, bytes),
            Chore::Remove(number) => std::fs::remove_file(segment::path(folder, number)),
        };
        if let Err(error) = result {
            tracing::warn!(folder = %folder.display(), %error, "a log segment could not be made or removed");
        }
    }
}
