//! `kind = "process"`: a program that stays in the foreground, supervised by Baton itself: held in a control group, watched by
//! pidfd, adopted by the next agent.

pub(super) mod cgroup;
mod ready;
mod record;
mod scope;
#[cfg(test)]
mod tests;
mod unit;

use std::{
    io,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use rustix::process::Signal;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use tracing::{error, info, warn};

pub(super) use self::scope::named;
use self::{
    cgroup::Mounts,
    ready::Notified,
    unit::{Begun, Found, Phase, Refused, Running, Unit},
};
use super::{
    Common, Context, Health, Notifier, Operation, Resource, ResourceError, Timeouts, What, Work, call::Caller,
};
use crate::config::kinds::{self, Ready};

/// Of a time limit, the part after which the kind itself says what it waits for, in percent.
const OWN_PART: u32 = 95;
/// Of the time limit of a stop, the part after which the rest is killed, unless `kill_after` says otherwise, in percent.
const KILL_PART: u32 = 80;
/// How often a start clears away what is in its way.
const CLEARED_MAX: usize = 3;

/// A process.
#[derive(Debug)]
pub struct Process {
    label: String,
    unit: Arc<Unit>,
    notifier: Notifier,
    caller: Caller,
    watch: Option<Watch>,
}

/// The task that waits for the end of a process; it ends with the resource, and the process does not.
#[derive(Debug)]
struct Watch {
    running: Arc<Running>,
    task: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn part(limit: Duration, percent: u32) -> Duration {
    limit * percent / 100
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

impl Process {
    /// Nothing is started or looked at yet. When this is dropped, the process runs on.
    pub fn new(common: &Common, spec: kinds::Process, notifier: &Notifier) -> Self {
        // Without it there are no control groups, which is told when one is wanted.
        Self::with(common, spec, notifier, Mounts::find().unwrap_or_default())
    }

    fn with(common: &Common, spec: kinds::Process, notifier: &Notifier, mounts: Mounts) -> Self {
        let unit = Arc::new(Unit::new(common.clone(), spec, mounts));
        let caller = Caller::new(common.file("ready.log"), common.file("ready"));
        Self { label: common.name(), unit, notifier: notifier.clone(), caller, watch: None }
    }

    /// The number of the process that runs, as far as it is known.
    pub fn pid(&self) -> Option<u32> {
        self.unit.known().filter(|r| !r.main.ended()).map(|r| r.main.pid())
    }

    fn unreadable(&self, operation: Operation) -> impl Fn(io::Error) -> ResourceError + Send + 'static {
        let common = self.unit.common.clone();
        move |e| {
            let remedy = "see /proc and the control groups, and that the run directory can be written";
            common.refused(operation, "its processes", "they cannot be looked at or ended", &e, remedy)
        }
    }

    /// Sees to it that the end of what runs is noticed.
    fn watch(&mut self, running: &Arc<Running>) {
        if self.watch.as_ref().is_some_and(|w| Arc::ptr_eq(&w.running, running)) {
            return;
        }
        let (unit, notifier, watched) = (Arc::clone(&self.unit), self.notifier.clone(), Arc::clone(running));
        let task = tokio::spawn(async move {
            if let Err(error) = watched.main.gone().await {
                // Monitors notice its end.
                error!(resource = unit.common.name(), %error, "the process cannot be watched");
                return;
            }
            let status = format!("process {} {}", watched.main.pid(), watched.end());
            if watched.set(Phase::Ended(status.clone())) == Phase::Started {
                notifier.tell(unit.common.event(What::Died { status: status.clone(), release: false }));
                error!(resource = unit.common.name(), status, "the process has ended by itself");
            }
        });
        self.watch = Some(Watch { running: Arc::clone(running), task });
    }

    async fn look(&mut self, operation: Operation) -> Result<Health, ResourceError> {
        let unreadable = self.unreadable(operation);
        let unit = Arc::clone(&self.unit);
        let ended = self.unit.known().and_then(|running| match running.phase() {
            Phase::Ended(status) => Some(status),
            Phase::Starting | Phase::Started | Phase::Stopping => None,
        });
        let found = blocking(move || {
            unit.output.bound();
            unit.find()
        });
        Ok(match found.await.and_then(|found| found).map_err(unreadable)? {
            Found::Running(running, ready) => {
                self.watch(&running);
                if ready { Health::Running } else { Health::Failed("it has not been ready yet".to_owned()) }
            }
            Found::Remains(what) => Health::Failed(what),
            // A death that a start has not made good yet is told with its reason, where somebody expects it to run.
            Found::Nothing => match ended {
                Some(status) if operation == Operation::Monitor => Health::Failed(self.told(&status)),
                _ => Health::Stopped,
            },
        })
    }

    /// A status with the last lines of the output.
    fn told(&self, status: &str) -> String {
        let from = self.watch.as_ref().map_or(0, |w| w.running.output_from);
        match self.unit.output.tail(from) {
            Some(lines) => format!("{status}: {lines}"),
            None => status.to_owned(),
        }
    }

    async fn start_up(&mut self) -> Result<(), ResourceError> {
        let limit = part(self.unit.common.timeouts.start, OWN_PART);
        let deadline = Instant::now() + limit;
        let stops = self.unit.stops.load(SeqCst);
        let (running, ready, notified) = self.begin(stops).await?;
        self.watch(&running);
        if !ready {
            self.wait_ready(&running, notified, deadline).await?;
            let (unit, known) = (Arc::clone(&self.unit), Arc::clone(&running));
            let remembered = blocking(move || unit.remember_ready(&known)).await.and_then(|done| done);
            remembered.map_err(self.unreadable(Operation::Start))?;
        }
        match running.set(Phase::Started) {
            Phase::Ended(status) => Err(self.died_early(&status)),
            Phase::Starting | Phase::Started | Phase::Stopping => Ok(()),
        }
    }

    /// Begins it, after what is in its way was cleared.
    async fn begin(&mut self, stops: u64) -> Result<Begun, ResourceError> {
        let mut remains = String::new();
        for _ in 0..CLEARED_MAX {
            let unit = Arc::clone(&self.unit);
            let begun = blocking(move || unit.begin(stops)).await.map_err(self.unreadable(Operation::Start))?;
            match begun {
                Ok(begun) => return Ok(begun),
                Err(Refused::Remains(what)) => {
                    warn!(resource = self.label, what, "it is ended before the process is started anew");
                    remains = what;
                    self.end(Operation::Start).await?;
                }
                Err(Refused::Late) => {
                    let common = &self.unit.common;
                    return Err(common.failed(
                        Operation::Start,
                        "the process",
                        "it was stopped meanwhile",
                        "start it again",
                    ));
                }
                Err(Refused::Failed(object, e)) => {
                    let remedy = "see `command`, `user`, `directory`, `log`, `memory` and `pids` in the configuration; docs/resources/process.md has more";
                    return Err(self.unit.common.refused(
                        Operation::Start,
                        object,
                        "the process cannot be started",
                        &e,
                        remedy,
                    ));
                }
            }
        }
        let remedy = "see who starts it beside Baton";
        Err(self.unit.common.failed(Operation::Start, "the process", format!("it comes back: {remains}"), remedy))
    }

    async fn wait_ready(
        &self,
        running: &Arc<Running>,
        notified: Option<(Notified, Option<u32>)>,
        deadline: Instant,
    ) -> Result<(), ResourceError> {
        let unit = &self.unit;
        let mut why = String::new();
        let ready = async {
            match (&unit.spec.ready, notified) {
                (None, _) => Ok(()),
                (Some(Ready::Tcp(address)), _) => {
                    ready::connects(address, &mut why).await;
                    Ok(())
                }
                (Some(Ready::Command(words)), _) => {
                    ready::answers(&self.caller, words, &unit.environment(None), &mut why).await;
                    Ok(())
                }
                (Some(Ready::Notify), Some((socket, user))) => {
                    why = "no READY=1 came on NOTIFY_SOCKET".to_owned();
                    socket.ready(user).await
                }
                // It said so before this agent was started; `find` has seen to it.
                (Some(Ready::Notify), None) => Ok(()),
            }
        };
        let outcome = tokio::select! {
            biased;
            _ = running.main.gone() => None,
            ready = timeout_at(deadline, ready) => Some(ready),
        };
        match outcome {
            Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(e))) => Err(self.unreadable(Operation::Start)(e)),
            Some(Err(_)) => {
                let object = format!("process {}", running.main.pid());
                let remedy = format!(
                    "its output is in {}; raise start_timeout if it needs longer",
                    unit.output.path().display()
                );
                Err(unit.common.failed(
                    Operation::Start,
                    object,
                    self.told(&format!("it is not ready in time ({why})")),
                    remedy,
                ))
            }
            None => Err(self.died_early(&self.ended(running).await)),
        }
    }

    /// How it ended, once its watch has been told.
    async fn ended(&self, running: &Arc<Running>) -> String {
        for _ in 0..100 {
            if let Phase::Ended(status) = running.phase() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        "it ended".to_owned()
    }

    fn died_early(&self, status: &str) -> ResourceError {
        let remedy = format!("its output is in {}; it must stay in the foreground", self.unit.output.path().display());
        let program = self.unit.spec.command.first().map_or("", String::as_str);
        self.unit.common.failed(
            Operation::Start,
            program,
            format!("it ended before it was ready: {}", self.told(status)),
            remedy,
        )
    }

    /// Asks it to end, kills what is left, and forgets it.
    async fn end(&mut self, operation: Operation) -> Result<(), ResourceError> {
        let began = Instant::now();
        let unit = &self.unit;
        let limit = part(unit.common.timeouts.stop, OWN_PART);
        let patience = part(unit.common.timeouts.stop, KILL_PART);
        let patience = unit.spec.kill_after_ns.map_or(patience, |ns| patience.min(Duration::from_nanos(ns)));
        // A command that was asked whether it is ready may talk to it still.
        self.caller.clear().await.map_err(self.unreadable(operation))?;
        let searched = Arc::clone(unit);
        let running = blocking(move || searched.to_stop()).await.and_then(|r| r).map_err(self.unreadable(operation))?;
        if let Some(running) = running {
            running.set(Phase::Stopping);
            let signal = Signal::from_named_raw(unit.spec.stop_signal).unwrap_or(Signal::TERM);
            if let Err(error) = running.main.signal(signal) {
                warn!(resource = self.label, %error, "the process cannot be asked to end");
            }
            match timeout(patience, running.main.gone()).await {
                Ok(_) => info!(resource = self.label, status = running.end(), "the process has ended"),
                Err(_) => warn!(resource = self.label, ?patience, "the process does not end, and is killed"),
            }
        }
        let (unit, left) = (Arc::clone(&self.unit), limit.saturating_sub(began.elapsed()));
        let cleared = blocking(move || unit.clear(left)).await.and_then(|cleared| cleared);
        cleared.map_err(|e| {
            let remedy = "see what it waits for: /proc/PID/stack and `dmesg`; a device or a network file system that does not answer, mostly";
            self.unit.common.refused(operation, "its processes", "not all of them have ended", &e, remedy)
        })?;
        self.watch = None;
        Ok(())
    }
}

impl Resource for Process {
    fn name(&self) -> &str {
        &self.label
    }

    fn timeouts(&self) -> Timeouts {
        self.unit.common.timeouts
    }

    fn probe(&mut self) -> Work<'_, Health> {
        Work::pending(self.look(Operation::Probe))
    }

    fn start(&mut self, _context: &Context) -> Work<'_, ()> {
        Work::pending(self.start_up())
    }

    fn stop(&mut self, _context: &Context) -> Work<'_, ()> {
        // A start that was given up, and whose step waits for its turn still, begins nothing any more.
        self.unit.stops.fetch_add(1, SeqCst);
        Work::pending(self.end(Operation::Stop))
    }

    fn monitor(&mut self) -> Work<'_, Health> {
        Work::pending(self.look(Operation::Monitor))
    }

    fn monitor_interval(&self) -> Option<Duration> {
        self.unit.common.monitor_interval
    }
}
