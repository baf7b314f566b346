//! The thread that keeps a HAProxy up: notices its death as it begins ([`Exits`]) or by pidfd, starts it again within a budget, and
//! looks at it regularly.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::event::{EventfdFlags, eventfd};
use tracing::{error, info, warn};

use super::{
    Setup,
    launch::{self, Asked, Running, ask_worker, bound_log, bring_up, log_file},
    look::look,
};
use crate::{
    clock,
    cluster::ids::Nanos,
    config::{Managed, OnFailure},
    kernel::{Exits, Watch},
    process::{Process, wait},
    realtime,
    resources::{Notifier, ResourceEvent, What},
};

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After how long a HAProxy that did not come up is tried again. One of systemd's is only looked for.
const TRY_AGAIN: Duration = Duration::from_secs(5);
const FIND_AGAIN: Duration = Duration::from_millis(100);
/// How long the rest of a HAProxy that has died may take to end by itself, and then by a signal.
const REST_LIMIT: Duration = Duration::from_secs(2);
/// How often, and how long apart, a master whose worker has ended is asked for the next one.
const FOLLOW_TRIES: usize = 20;
const FOLLOW_AGAIN: Duration = Duration::from_millis(5);
/// HAProxy's output is emptied beyond this.
const LOG_BYTES_MAX: u64 = 1 << 20;

/// What the supervisor and the resource share.
#[derive(Debug)]
pub struct Shared {
    phase: Mutex<Phase>,
    changed: Condvar,
    wake: OwnedFd,
    end: AtomicBool,
}

/// In which state it is.
#[derive(Clone, Debug)]
pub enum Phase {
    /// It is being brought up.
    Coming,
    /// It runs.
    Up(Arc<Running>),
    /// It does not, and why.
    Down(String),
}

impl Shared {
    /// Now.
    pub fn phase(&self) -> Phase {
        self.lock().clone()
    }

    fn set(&self, phase: Phase) {
        *self.lock() = phase;
        self.changed.notify_all();
    }

    /// Names the worker that serves since a reload, unless its master has died meanwhile.
    pub fn reloaded(&self, now: Running) {
        let mut phase = self.lock();
        if matches!(&*phase, Phase::Up(before) if Arc::ptr_eq(&before.master, &now.master)) {
            *phase = Phase::Up(Arc::new(now));
            self.wake();
        }
    }

    /// Asks for another try at once, if it is down; the budget stays what it is.
    pub fn again(&self) {
        let mut phase = self.lock();
        if matches!(&*phase, Phase::Down(_)) {
            *phase = Phase::Coming;
            self.wake();
        }
    }

    /// Waits until it runs, or does not.
    pub fn settled(&self, limit: Duration) -> Phase {
        let coming = |phase: &mut Phase| matches!(phase, Phase::Coming);
        let waited = self.changed.wait_timeout_while(self.lock(), limit, coming);
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Makes the supervisor look at what it shall do.
    fn wake(&self) {
        // It can fail only when 2^64 wakes wait.
        rustix::io::write(&self.wake, &1_u64.to_ne_bytes()).ok();
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The handle of the thread. HAProxy lives on when it is dropped.
#[derive(Debug)]
pub struct Supervisor {
    /// What it shares.
    pub shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// Starts the thread, which brings HAProxy up at once.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start(setup: Arc<Setup>, notifier: Notifier, exits: Option<Arc<Exits>>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            phase: Mutex::new(Phase::Coming),
            changed: Condvar::new(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            end: AtomicBool::new(false),
        });
        let mut work = Loop {
            setup,
            notifier,
            exits,
            shared: Arc::clone(&shared),
            restarts: VecDeque::new(),
            died: false,
            released: false,
            ill: false,
        };
        let thread = std::thread::Builder::new().name("haproxy".into()).spawn(move || {
            if work.setup.realtime
                && let Err(error) = realtime::become_fifo(realtime::WORKER_PRIORITY)
            {
                warn!(%error, "HAProxy is watched without realtime priority");
            }
            work.run();
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.shared.end.store(true, SeqCst);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // An error is a panic of the thread, which was printed already.
            drop(thread.join());
        }
    }
}

struct Loop {
    setup: Arc<Setup>,
    notifier: Notifier,
    exits: Option<Arc<Exits>>,
    shared: Arc<Shared>,
    /// When it was started again, within the window.
    restarts: VecDeque<Nanos>,
    /// It has died, and was not up since.
    died: bool,
    /// Its last death was reported as one to give the group up for.
    released: bool,
    ill: bool,
}

impl Loop {
    fn run(&mut self) {
        while !self.ending() {
            let pause = match self.bring_up() {
                Ok(running) => {
                    self.shared.set(Phase::Up(running));
                    if std::mem::take(&mut self.died) {
                        self.tell(What::Restarted);
                    }
                    self.watch();
                    continue;
                }
                Err((reason, pause)) => {
                    self.down(reason.clone());
                    if self.died && !std::mem::replace(&mut self.released, true) {
                        // It was to be restarted in place, and cannot be.
                        self.tell(What::Died { status: reason, release: true });
                    }
                    pause
                }
            };
            self.pause(pause);
        }
    }

    /// Brings it up if the budget allows; else why not, and when to try again.
    fn bring_up(&mut self) -> Result<Arc<Running>, (String, Duration)> {
        let by_systemd = matches!(self.setup.spec.managed, Managed::Systemd(_));
        if self.died && !by_systemd {
            if let Some(left) = self.budget_spent() {
                let reason = format!(
                    "HAProxy died, and was started again {} times already within {}; see {}",
                    self.restarts.len(),
                    crate::config::duration::show(self.setup.spec.restart_window),
                    log_file(&self.setup).display()
                );
                return Err((reason, left));
            }
            self.restarts.push_back(clock::now());
        }
        // A unit takes a moment until it runs again.
        let patience = if self.died && by_systemd { launch::START_LIMIT } else { Duration::ZERO };
        let deadline = Instant::now() + patience;
        loop {
            match bring_up(&self.setup, &|| self.ending()) {
                Ok(running) => return Ok(Arc::new(running)),
                Err(_) if Instant::now() < deadline && !self.ending() => self.pause(FIND_AGAIN),
                Err(reason) => return Err((reason, if by_systemd { FIND_AGAIN } else { TRY_AGAIN })),
            }
        }
    }

    /// Until when no restart is left; `None` when one is.
    fn budget_spent(&mut self) -> Option<Duration> {
        let (now, window) = (clock::now(), self.setup.spec.restart_window);
        self.restarts.retain(|at| now.saturating_sub(*at) < window);
        let full = self.restarts.len() >= usize::try_from(self.setup.spec.restarts).unwrap_or(usize::MAX);
        // With no restarts at all there is none to wait for: the operator's turn.
        let oldest = self.restarts.front().copied().unwrap_or(now);
        full.then(|| Duration::from_nanos((oldest + window).saturating_sub(now)))
    }

    /// Returns when it has died, or at the end.
    fn watch(&mut self) {
        let mut due = Instant::now();
        let mut early = Early::default();
        while !self.ending() {
            let Phase::Up(running) = self.shared.phase() else { return };
            early.follow(&self.setup, self.exits.as_deref(), &running);
            let mut fds = vec![self.shared.wake.as_fd(), running.master.as_fd(), running.worker.as_fd()];
            fds.extend(early.watches.iter().map(Watch::as_fd));
            let ready = match wait(&fds, Some(due.saturating_duration_since(Instant::now()))) {
                Ok(ready) => ready,
                Err(error) => {
                    // Without it only regular looks are left.
                    error!(resource = self.setup.name, %error, "HAProxy's processes cannot be watched");
                    std::thread::sleep(LOOK_EVERY);
                    vec![false; fds.len()]
                }
            };
            if ready[0] {
                self.awake();
            }
            if ready[3..].contains(&true)
                && let Some(death) = early.death(&running)
            {
                return self.bury(&running, death);
            }
            if ready[1] || (ready[2] && !self.follow(&running)) {
                let master = running.master.ended();
                let (who, process) = if master { ("master", &running.master) } else { ("worker", &running.worker) };
                let how = process.status().unwrap_or_else(|| "ended".to_owned());
                return self.bury(&running, format!("HAProxy's {who} (process {}) {how}", process.pid()));
            }
            if Instant::now() >= due {
                self.look(&running);
                due = Instant::now() + LOOK_EVERY;
            }
        }
    }

    /// The worker may be another one since a reload; whether one serves.
    fn follow(&self, before: &Running) -> bool {
        for _ in 0..FOLLOW_TRIES {
            match ask_worker(&before.client, &before.master) {
                Ok((worker, release)) => {
                    if worker.pid() != before.worker.pid() {
                        info!(resource = self.setup.name, pid = worker.pid(), "HAProxy has a fresh worker");
                        let (client, cfg) = (before.client.clone(), before.cfg.clone());
                        let master = Arc::clone(&before.master);
                        self.shared.reloaded(Running { client, master, worker: Arc::new(worker), release, cfg });
                    }
                    return true;
                }
                // Nobody listens any more.
                Err(Asked::Unreachable(_)) => return false,
                // A worker that ends may have taken the question with it; the next one answers.
                Err(Asked::Other(_)) if before.master.ended() => return false,
                Err(Asked::Other(_)) => std::thread::sleep(FOLLOW_AGAIN),
            }
        }
        false
    }

    /// Reports a death at once, then sees to it that nothing of it is left.
    fn bury(&mut self, running: &Running, status: String) {
        let spent = self.budget_spent().is_some() && self.setup.spec.managed == Managed::Process;
        let release = self.setup.spec.on_failure == OnFailure::Move || spent;
        self.down(status.clone());
        self.tell(What::Died { status: status.clone(), release });
        error!(resource = self.setup.name, status, release, "HAProxy has died");
        (self.died, self.released, self.ill) = (true, release, false);
        if self.setup.spec.managed == Managed::Process {
            for process in [&running.master, &running.worker] {
                process.end(REST_LIMIT);
            }
        }
    }

    fn look(&mut self, running: &Running) {
        bound_log(&log_file(&self.setup), LOG_BYTES_MAX);
        let missing = match look(&running.client, self.setup.spec.backends_min) {
            Ok((info, missing)) => {
                if info.pid != running.worker.pid() {
                    self.follow(running);
                }
                missing
            }
            Err(error) => vec![format!("{error}; {}", error.remedy())],
        };
        if missing.is_empty() == self.ill {
            self.ill = !self.ill;
            self.tell(if self.ill { What::Ill(missing.join("; ")) } else { What::Well });
        }
    }

    fn down(&self, reason: String) {
        self.shared.set(Phase::Down(reason));
    }

    fn tell(&self, what: What) {
        self.notifier.tell(ResourceEvent { group: self.setup.group.clone(), resource: self.setup.name.clone(), what });
    }

    fn ending(&self) -> bool {
        self.shared.end.load(SeqCst)
    }

    /// Waits, or until woken.
    fn pause(&self, limit: Duration) {
        match wait(&[self.shared.wake.as_fd()], Some(limit)) {
            Ok(_) => self.awake(),
            Err(_) => std::thread::sleep(limit.min(LOOK_EVERY)),
        }
    }

    /// Takes the wakes; there may be none.
    fn awake(&self) {
        rustix::io::read(&self.shared.wake, &mut [0; 8]).ok();
    }
}

/// Early notice of the ends of a HAProxy's master and worker.
#[derive(Default)]
struct Early {
    /// Whom the watches are about.
    of: Option<Arc<Running>>,
    watches: Vec<Watch>,
}

impl Early {
    /// Watches these processes, if there is somebody who can.
    fn follow(&mut self, setup: &Setup, exits: Option<&Exits>, running: &Arc<Running>) {
        if self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, running)) {
            return;
        }
        self.of = Some(Arc::clone(running));
        let processes = [&running.master, &running.worker];
        let watched: io::Result<_> =
            exits.into_iter().flat_map(|exits| processes.map(|process| exits.watch(process))).collect();
        self.watches = watched.unwrap_or_else(|error| {
            warn!(resource = setup.name, %error, "the end of HAProxy's processes is noticed late");
            Vec::new()
        });
    }

    /// After a wake: how HAProxy dies, if it does. The sockets of a process that ends are open for a moment still, so nobody is
    /// asked; where it cannot be told from a worker that has a successor, its descriptor tells later, and then somebody is.
    fn death(&self, running: &Running) -> Option<String> {
        self.watches.iter().for_each(Watch::clear);
        let dying = |who, process: &Process| {
            process.ending().map(|how| format!("HAProxy's {who} (process {}) {how}", process.pid()))
        };
        dying("master", &running.master)
            .or_else(|| dying("worker", &running.worker).filter(|_| !may_have_successor(running)))
    }
}

/// Whether another worker may serve, after a reload that nobody here has seen: one that is not older than this one. Those that
/// are older finish what they have.
fn may_have_successor(running: &Running) -> bool {
    let Ok(children) = running.master.children() else { return true };
    let others = children.into_iter().filter(|pid| *pid != running.worker.pid());
    // One that cannot be opened has ended.
    let mut others = others.filter_map(|pid| Process::open(pid).ok());
    others.any(|other| other.started() >= running.worker.started() && other.ending().is_none())
}
