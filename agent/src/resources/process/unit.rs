//! What is known of one process, and the steps that change it: find, begin, clear. They block, and run one at a time.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use tracing::{info, warn};

use super::{
    cgroup::{self, Limits, Mounts},
    ready::Notified,
    record::{Record, settings},
    scope::{Scope, named},
};
use crate::{
    config::kinds,
    process::{Account, Ended, Launch, Process, launch},
    resources::{Common, output::Output},
};

/// A resource's process, shared with what watches it and with steps on other threads.
#[derive(Debug)]
pub struct Unit {
    /// What it knows of itself.
    pub common: Common,
    /// What the configuration says.
    pub spec: kinds::Process,
    /// Its output.
    pub output: Output,
    /// Grows with each stop: a start that was given up before, and comes late, does nothing.
    pub stops: AtomicU64,
    mounts: Mounts,
    known: Mutex<Option<Arc<Running>>>,
}

/// A process that was started, or adopted.
#[derive(Debug)]
pub struct Running {
    /// The process itself.
    pub main: Process,
    /// What is remembered of it.
    pub record: Record,
    /// In which state it is.
    phase: Mutex<Phase>,
    /// How long its output was before it.
    pub output_from: u64,
}

/// The state of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is not ready yet.
    Starting,
    /// It was started; its end is news.
    Started,
    /// It was asked to end.
    Stopping,
    /// It has ended, and how.
    Ended(String),
}

/// What was found.
#[derive(Debug)]
pub enum Found {
    /// It runs, with the settings of now; whether it was ready once.
    Running(Arc<Running>, bool),
    /// Something of it is there that must go first; in words.
    Remains(String),
    /// Nothing.
    Nothing,
}

/// What runs, whether it was ready once, and the socket on which it says so, with the user that may.
pub type Begun = (Arc<Running>, bool, Option<(Notified, Option<u32>)>);

/// Why nothing was begun.
#[derive(Debug)]
pub enum Refused {
    /// Something of it is there; in words.
    Remains(String),
    /// It was stopped meanwhile.
    Late,
    /// The object, and the kernel's answer.
    Failed(String, io::Error),
}

impl Running {
    /// The state.
    pub fn phase(&self) -> Phase {
        self.lock().clone()
    }

    /// Goes over to a state, unless it has ended; says what was the case before.
    pub fn set(&self, phase: Phase) -> Phase {
        let mut now = self.lock();
        if matches!(*now, Phase::Ended(_)) { now.clone() } else { std::mem::replace(&mut *now, phase) }
    }

    /// How it ended, in words.
    pub fn end(&self) -> String {
        match self.main.outcome().unwrap_or(Ended::Unknown) {
            Ended::Unknown => "ended; only the agent that started it was told how".to_owned(),
            Ended::Signal(libc::SIGKILL) if cgroup::killed_for_memory(&self.record.folders) => {
                "killed by signal 9: its memory was used up".to_owned()
            }
            ended => ended.to_string(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unit {
    /// Nothing is looked at yet.
    pub fn new(common: Common, spec: kinds::Process, mounts: Mounts) -> Self {
        let output = Output::new(spec.log.clone().unwrap_or_else(|| common.file("log")));
        Self { common, spec, output, stops: AtomicU64::new(0), mounts, known: Mutex::new(None) }
    }

    /// The process that is known to run, without a look at anything.
    pub fn known(&self) -> Option<Arc<Running>> {
        self.lock().clone()
    }

    /// Looks for it: the one that is known, or that an agent before this one started.
    ///
    /// # Errors
    /// The kernel's.
    pub fn find(&self) -> io::Result<Found> {
        self.find_locked(&mut self.lock())
    }

    fn find_locked(&self, known: &mut Option<Arc<Running>>) -> io::Result<Found> {
        if let Some(running) = known.as_ref()
            && !running.main.ended()
        {
            return Ok(match running.phase() {
                // A stop that was given up: what comes of the signal is not known yet.
                Phase::Stopping => Found::Remains(format!("process {} was asked to end", running.main.pid())),
                phase => Found::Running(Arc::clone(running), phase == Phase::Started),
            });
        }
        let record = match known {
            Some(ended) => Some(ended.record.clone()),
            None => Record::read(&self.common.file("json")),
        };
        if known.is_none()
            && let Some(record) = &record
            && let Ok(main) = Process::find(&record.main)
        {
            if record.settings != settings(&self.spec) {
                let pid = main.pid();
                return Ok(Found::Remains(format!(
                    "process {pid} runs with settings that the configuration had before"
                )));
            }
            if !record.ready && matches!(self.spec.ready, Some(kinds::Ready::Notify)) {
                let pid = main.pid();
                return Ok(Found::Remains(format!(
                    "process {pid} was started by an agent that is gone, and was not ready"
                )));
            }
            info!(resource = self.common.name(), pid = main.pid(), "the process runs already, and is adopted");
            let phase = if record.ready { Phase::Started } else { Phase::Starting };
            let ready = record.ready;
            let output_from = std::fs::metadata(self.output.path()).map_or(0, |m| m.len());
            let running = Running { main, record: record.clone(), phase: Mutex::new(phase), output_from };
            let running = known.insert(Arc::new(running));
            return Ok(Found::Running(Arc::clone(running), ready));
        }
        let left = self.scope(record.as_ref())?.map_or_else(|| Ok(Vec::new()), |scope| scope.members())?;
        Ok(if left.is_empty() {
            Found::Nothing
        } else {
            Found::Remains(format!("it has ended, but {} is left", named(&left)))
        })
    }

    /// What belongs to it; without a record, its control group may hold what an agent began that was killed before it wrote one.
    fn scope(&self, record: Option<&Record>) -> io::Result<Option<Scope>> {
        match record {
            Some(record) => Ok(Some(record.scope())),
            None => Ok(self.mounts.existing(&self.common.plain_name()).map(Scope::Group)),
        }
    }

    /// Starts it, or finds it.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn begin(&self, stops: u64) -> Result<Begun, Refused> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |e| Refused::Failed(what, e)
        };
        let mut known = self.lock();
        if self.stops.load(SeqCst) != stops {
            return Err(Refused::Late);
        }
        match self.find_locked(&mut known).map_err(failed("its processes cannot be listed"))? {
            Found::Running(running, ready) => return Ok((running, ready, None)),
            Found::Remains(what) => return Err(Refused::Remains(what)),
            Found::Nothing => *known = None,
        }
        let (spec, name) = (&self.spec, self.common.plain_name());
        let account = spec.user.as_ref().map(|user| Account::find(user, spec.group.as_deref())).transpose();
        let account = account.map_err(failed("its user"))?;
        let limits = Limits { memory: spec.memory, pids: spec.pids };
        let made = self.mounts.make(&name, limits).map_err(|(what, e)| Refused::Failed(what, e))?;
        if made.holder.is_none() {
            warn!(
                resource = self.common.name(),
                "no control group can be made: children that leave its session are not found"
            );
        }
        let doors = cgroup::doors(&made.folders).map_err(failed("its control group"))?;
        let notified = match spec.ready {
            Some(kinds::Ready::Notify) => Some(Notified::new().map_err(failed("NOTIFY_SOCKET"))?),
            Some(kinds::Ready::Tcp(_) | kinds::Ready::Command(_)) | None => None,
        };
        let mut environment = self.environment(account.as_ref());
        environment.extend(notified.iter().map(|n| ("NOTIFY_SOCKET".to_owned(), n.address.clone())));
        let log = self.output.path().display().to_string();
        let (output, output_from) = self.output.open().map_err(failed(&log))?;
        let main = launch(Launch {
            words: &spec.command,
            environment: &environment,
            directory: &spec.directory,
            account: account.as_ref(),
            session: true,
            cgroups: &doors,
            output,
        })
        .map_err(failed(spec.command.first().map_or("", String::as_str)))?;
        let settings = settings(spec);
        let file = self.common.file("json");
        let record = main.identity().map(|main| Record {
            main,
            holder: made.holder,
            folders: made.folders,
            settings,
            ready: false,
        });
        let record = match record.and_then(|record| record.write(&file).map(|()| record)) {
            Ok(record) => record,
            Err(e) => {
                // One that the next agent could not find would run twice.
                drop(main.signal_group(rustix::process::Signal::KILL));
                main.end(Duration::from_secs(1));
                return Err(Refused::Failed(file.display().to_string(), e));
            }
        };
        info!(resource = self.common.name(), pid = main.pid(), command = ?spec.command, "the process is started");
        let running = Arc::new(Running { main, record, phase: Mutex::new(Phase::Starting), output_from });
        *known = Some(Arc::clone(&running));
        Ok((running, false, notified.map(|n| (n, account.map(|a| a.uid)))))
    }

    /// What it is started with, beside `PATH`.
    pub fn environment(&self, account: Option<&Account>) -> Vec<(String, String)> {
        let mut environment: Vec<(String, String)> = account
            .map(|a| [("USER", a.name.clone()), ("LOGNAME", a.name.clone()), ("HOME", a.home.display().to_string())])
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        let common = &self.common;
        for (name, value) in [
            ("BATON_GROUP", common.group.to_string()),
            ("BATON_RESOURCE", common.name.clone()),
            ("BATON_NODE", common.node.clone()),
        ] {
            environment.push((name.to_owned(), value));
        }
        environment.extend(self.spec.environment.iter().map(|(name, value)| (name.clone(), value.clone())));
        environment
    }

    /// Remembers that it was ready.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remember_ready(&self, running: &Running) -> io::Result<()> {
        let _known = self.lock();
        Record { ready: true, ..running.record.clone() }.write(&self.common.file("json"))
    }

    /// Kills all that is left of it, and forgets it.
    ///
    /// # Errors
    /// As [`Scope::clear`].
    pub fn clear(&self, limit: Duration) -> io::Result<()> {
        let mut known = self.lock();
        let file = self.common.file("json");
        let record = known.as_ref().map(|r| r.record.clone()).or_else(|| Record::read(&file));
        // Of another boot nothing is left, and its numbers belong to others.
        if let Some(scope) = self.scope(record.as_ref())? {
            scope.clear(limit)?;
            if let Scope::Group(folder) = &scope {
                cgroup::remove(folder);
            }
        }
        // In its group before any record was written, although the record names none, or another one.
        if let Some(folder) = self.mounts.existing(&self.common.plain_name()) {
            Scope::Group(folder.clone()).clear(limit)?;
            cgroup::remove(&folder);
        }
        for folder in record.iter().flat_map(|r| &r.folders) {
            cgroup::remove(folder);
        }
        if let Some(running) = known.take() {
            // Where nothing watches it, nobody else asks for its status, and it would stay as a zombie.
            running.main.outcome();
        }
        match std::fs::remove_file(&file) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// The process to ask to end, if one runs.
    ///
    /// # Errors
    /// The kernel's.
    pub fn to_stop(&self) -> io::Result<Option<Arc<Running>>> {
        let mut known = self.lock();
        if let Some(running) = known.as_ref().filter(|r| !r.main.ended()) {
            return Ok(Some(Arc::clone(running)));
        }
        if known.is_none()
            && let Some(record) = Record::read(&self.common.file("json"))
            && let Ok(main) = Process::find(&record.main)
        {
            let running = Running { main, record, phase: Mutex::new(Phase::Stopping), output_from: 0 };
            return Ok(Some(Arc::clone(known.insert(Arc::new(running)))));
        }
        Ok(None)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Running>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
