//! Calls a program for one action and waits for its answer. What outlives its time limit is killed with its process group, and
//! never runs beside the next action.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use rustix::process::Signal;
use tracing::warn;

use super::output::{self, Output};
use crate::process::{Ended, Identity, Launch, Process, launch, wait};

/// How long a program that was killed may take to be gone; the kernel may have it in an uninterruptible wait.
const KILLED_LIMIT: Duration = Duration::from_secs(5);
/// How often the output of a program that runs is kept short.
const BOUND_EVERY: Duration = Duration::from_secs(1);

/// The answer of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How it ended.
    pub ended: Ended,
    /// Its last lines.
    pub output: Option<String>,
}

impl Answer {
    /// In words: how it ended, and what it said last.
    pub fn words(&self) -> String {
        match &self.output {
            Some(output) => format!("{}: {output}", self.ended),
            None => format!("{}, and said nothing", self.ended),
        }
    }
}

/// Calls the programs of one resource, one at a time.
#[derive(Debug)]
pub struct Caller {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// What was started last, while nobody has taken its answer.
    seat: Mutex<Option<Arc<Process>>>,
    /// Where it is remembered, for an agent after this one.
    record: PathBuf,
    output: Output,
}

/// Where a call is dropped, it is not begun, or what it began is killed.
struct Guard {
    dropped: Arc<AtomicBool>,
    process: Option<Arc<Process>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.dropped.store(true, SeqCst);
        if let Some(process) = self.process.take() {
            // Whoever calls next waits for its end; if this fails, it kills again.
            drop(process.signal_group(Signal::KILL));
        }
    }
}

impl Caller {
    /// With its output in one file, and what runs remembered in another.
    pub fn new(output: PathBuf, record: PathBuf) -> Self {
        Self { shared: Arc::new(Shared { seat: Mutex::new(None), record, output: Output::new(output) }) }
    }

    /// Where the output is.
    pub fn output(&self) -> &Path {
        self.shared.output.path()
    }

    /// Calls a program, and waits for it. Whoever awaits it sets the time limit; dropping the future kills the program and all
    /// of its process group.
    ///
    /// # Errors
    /// The kernel's; `ResourceBusy` when one that was killed before does not end.
    pub async fn call(&self, words: Vec<String>, environment: Vec<(String, String)>) -> io::Result<Answer> {
        let mut guard = Guard { dropped: Arc::new(AtomicBool::new(false)), process: None };
        let (shared, dropped) = (Arc::clone(&self.shared), Arc::clone(&guard.dropped));
        let begin = move || shared.begin(&words, &environment, &dropped);
        let (process, from) = tokio::task::spawn_blocking(begin).await.map_err(io::Error::other)??;
        guard.process = Some(Arc::clone(&process));
        while tokio::time::timeout(BOUND_EVERY, process.gone()).await.is_err() {
            self.shared.output.bound();
        }
        // What it leaves in its group lives on: services are started so.
        guard.process = None;
        let ended = process.outcome().unwrap_or(Ended::Unknown);
        let shared = Arc::clone(&self.shared);
        let finish = move || {
            shared.seat.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(fs::remove_file(&shared.record));
            shared.output.tail(from)
        };
        let output = tokio::task::spawn_blocking(finish).await.map_err(io::Error::other)?;
        Ok(Answer { ended, output })
    }

    /// Kills what an earlier call left running, of this agent or of one before it.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn clear(&self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let clear = move || shared.clear(&mut shared.seat.lock().unwrap_or_else(PoisonError::into_inner));
        tokio::task::spawn_blocking(clear).await.map_err(io::Error::other)?
    }
}

impl Shared {
    fn begin(
        &self,
        words: &[String],
        environment: &[(String, String)],
        dropped: &AtomicBool,
    ) -> io::Result<(Arc<Process>, u64)> {
        let mut seat = self.seat.lock().unwrap_or_else(PoisonError::into_inner);
        self.clear(&mut seat)?;
        if dropped.load(SeqCst) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let (file, from) = self.output.open()?;
        let process = Arc::new(launch(Launch {
            words,
            environment,
            directory: Path::new("/"),
            account: None,
            session: false,
            cgroups: &[],
            output: file,
        })?);
        *seat = Some(Arc::clone(&process));
        // Without it only an agent that ends just now, and the next one, would not know of it.
        if let Err(error) = process.identity().and_then(|i| fs::write(&self.record, serde_json::to_vec(&i)?)) {
            warn!(record = %self.record.display(), %error, "what runs cannot be remembered");
        }
        Ok((process, from))
    }

    fn clear(&self, seat: &mut Option<Arc<Process>>) -> io::Result<()> {
        let before = match seat.take() {
            Some(before) => Some(before),
            None => self.remembered().map(Arc::new),
        };
        let Some(before) = before else { return Ok(()) };
        before.signal_group(Signal::KILL)?;
        if !before.ended() {
            wait(&[std::os::fd::AsFd::as_fd(&*before)], Some(KILLED_LIMIT))?;
        }
        if !before.ended() {
            let words = format!("process {} was killed and does not end; see /proc/{0}/stack", before.pid());
            *seat = Some(before);
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, words));
        }
        // A child's status is taken, so that no zombie stays.
        before.outcome();
        drop(fs::remove_file(&self.record));
        Ok(())
    }

    fn remembered(&self) -> Option<Process> {
        let identity: Identity = serde_json::from_slice(&fs::read(&self.record).ok()?).ok()?;
        Process::find(&identity).ok()
    }
}

/// What a program says in an answer that is not in a file.
pub fn said(bytes: &[u8]) -> String {
    output::last_lines(bytes).unwrap_or_else(|| "nothing".to_owned())
}
