//! HAProxy as a resource: it runs on all nodes of its group, is watched by pidfd, hands its state over in a planned move, and
//! stops softly afterwards.
//!
//! What takes time is done on threads of its own or by the runtime's blocking pool; starting, on the path of a takeover, asks
//! nobody.

mod answer;
mod apply;
mod cfg;
mod check;
mod gather;
mod launch;
mod look;
mod peers;
mod reload;
mod runtime;
mod setup;
mod state;
mod supervisor;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use self::{
    launch::Running,
    peers::Peers,
    runtime::{Client, RuntimeError},
    state::State,
    supervisor::{Phase, Supervisor},
};
use super::{Context, Health, Notifier, Operation, Readiness, Resource, ResourceError, Timeouts, Work};
use crate::{config::DrainMode, kernel::Exits, process::Process};

pub use self::{setup::Setup, state::STATE_BYTES_MAX};

/// How long the owner waits for the other node to confirm what is under way.
const TOLD_LIMIT: Duration = Duration::from_secs(2);
/// How long the target waits for a session; a first transfer takes longer, and refuses the move for now.
const LEARNT_LIMIT: Duration = Duration::from_millis(500);
/// Between two looks at the stick tables.
const PEERS_AGAIN: Duration = Duration::from_millis(20);
/// Above every wait inside: a start, a check, a reload with both.
const LONG: Duration = Duration::from_secs(30);
/// Above a few answers of the runtime API.
const SHORT: Duration = Duration::from_secs(5);

/// A HAProxy.
#[derive(Debug)]
pub struct Haproxy {
    setup: Arc<Setup>,
    notifier: Notifier,
    exits: Option<Arc<Exits>>,
    supervisor: Option<Supervisor>,
    /// Old workers that finish their connections.
    leaving: Vec<Arc<Process>>,
}

impl Haproxy {
    /// Nothing is started before [`Resource::attend`]. When this is dropped, HAProxy runs on. Without `exits` its end is noticed
    /// once it is over.
    pub fn new(setup: Setup, notifier: Notifier, exits: Option<Arc<Exits>>) -> Self {
        Self { setup: Arc::new(setup), notifier, exits, supervisor: None, leaving: Vec::new() }
    }

    /// Old workers that still finish their connections.
    pub fn leaving(&mut self) -> usize {
        self.leaving.retain(|worker| !worker.ended());
        self.leaving.len()
    }

    /// The process that serves now.
    pub fn worker(&self) -> Option<u32> {
        self.running().ok().map(|r| r.worker.pid())
    }

    /// What an operator should know of its configuration: settings without which a move is less smooth than it could be.
    pub fn notes(&self) -> Vec<String> {
        let Ok(running) = self.running() else { return Vec::new() };
        let mut notes = Vec::new();
        let file = self.setup.config.display();
        let socket = running.client.path();
        if running.cfg.sockets.iter().any(|s| s.path().as_deref() == Some(socket) && !s.admin) {
            notes.push(format!("{file}: the stats socket lacks `level admin`: no state can be handed to this node"));
        }
        if self.setup.spec.drain == DrainMode::Soft {
            notes.extend(reload::obstacle(&running).map(|o| format!("{file}: no soft stop after a move: {o}")));
            if !running.cfg.idle_close_on_response {
                notes.push(format!(
                    "{file}: without `option idle-close-on-response` a soft stop closes idle connections at once, which \
                     may meet a request on its way"
                ));
            }
            if let Some(time) = &running.cfg.hard_stop_after {
                notes.push(format!("{file}: `hard-stop-after {time}` breaks connections that drain longer than that"));
            }
        }
        notes
    }

    fn running(&self) -> Result<Arc<Running>, String> {
        match self.supervisor.as_ref().map(|s| s.shared.phase()) {
            Some(Phase::Up(running)) => Ok(running),
            Some(Phase::Coming) => Err("HAProxy is being started".to_owned()),
            Some(Phase::Down(reason)) => Err(reason),
            None => Err("HAProxy is not looked after yet".to_owned()),
        }
    }

    fn failure(&self, operation: Operation) -> impl Fn(String) -> ResourceError + Send + 'static {
        let setup = Arc::clone(&self.setup);
        move |cause| failure(&setup, operation, cause)
    }

    /// Does something that waits, with a HAProxy that runs, on a thread that may wait.
    fn with_running<T: Send + 'static>(
        &self,
        operation: Operation,
        work: impl FnOnce(&Setup, &Running) -> Result<T, String> + Send + 'static,
    ) -> impl Future<Output = Result<T, ResourceError>> + Send + 'static {
        let failure = self.failure(operation);
        let (running, setup) = (self.running(), Arc::clone(&self.setup));
        async move {
            let running = running.map_err(&failure)?;
            let done = tokio::task::spawn_blocking(move || work(&setup, &running)).await;
            done.map_err(|e| failure(format!("the work did not end: {e}")))?.map_err(failure)
        }
    }
}

fn failure(setup: &Setup, operation: Operation, cause: String) -> ResourceError {
    ResourceError::Failed {
        resource: setup.name.clone(),
        operation,
        object: setup.config.display().to_string(),
        cause,
        errno: None,
        remedy: format!("HAProxy's output is in {}", launch::log_file(setup).display()),
    }
}

fn worded(error: RuntimeError) -> String {
    format!("{error}; {}", error.remedy())
}

/// Waits until the stick tables are as they must be.
fn in_step(
    client: &Client,
    limit: Duration,
    mut wanted: impl FnMut(&Peers) -> Result<(), String>,
) -> Result<(), String> {
    let deadline = Instant::now() + limit;
    loop {
        let found = wanted(&Peers::parse(&client.ask("show peers").map_err(worded)?));
        if found.is_ok() || Instant::now() > deadline {
            return found;
        }
        std::thread::sleep(PEERS_AGAIN);
    }
}

impl Resource for Haproxy {
    fn name(&self) -> &str {
        &self.setup.name
    }

    fn timeouts(&self) -> Timeouts {
        Timeouts { probe: SHORT, start: LONG, stop: LONG, monitor: SHORT }
    }

    fn probe(&mut self) -> Work<'_, Health> {
        Work::ok(if self.running().is_ok() { Health::Running } else { Health::Stopped })
    }

    fn attend(&mut self) -> Work<'_, ()> {
        let failure = self.failure(Operation::Attend);
        if self.supervisor.is_none() {
            match Supervisor::start(Arc::clone(&self.setup), self.notifier.clone(), self.exits.clone()) {
                Ok(supervisor) => self.supervisor = Some(supervisor),
                Err(e) => return Work::Done(Err(failure(format!("no thread can be started: {e}")))),
            }
        } else if let Some(supervisor) = &self.supervisor {
            supervisor.shared.again();
        }
        let Some(shared) = self.supervisor.as_ref().map(|s| Arc::clone(&s.shared)) else { return Work::ok(()) };
        Work::pending(async move {
            let settled = tokio::task::spawn_blocking(move || shared.settled(LONG)).await;
            match settled {
                Ok(Phase::Up(_)) => {}
                Ok(Phase::Down(reason)) => return Err(failure(reason)),
                Ok(Phase::Coming) => return Err(failure("HAProxy is still being started".to_owned())),
                Err(e) => return Err(failure(format!("the wait did not end: {e}"))),
            }
            for note in self.notes() {
                warn!(resource = self.setup.name, "{note}");
            }
            Ok(())
        })
    }

    fn readiness(&mut self) -> Work<'_, Readiness> {
        let (running, min) = (self.running(), self.setup.spec.backends_min);
        let failure = self.failure(Operation::Readiness);
        let running = match running {
            Ok(running) => running,
            Err(reason) => return Work::ok(Readiness::NotReady(reason)),
        };
        Work::pending(async move {
            let looked = tokio::task::spawn_blocking(move || look::look(&running.client, min)).await;
            Ok(match looked.map_err(|e| failure(format!("the look did not end: {e}")))? {
                Ok((_, missing)) if missing.is_empty() => Readiness::Ready,
                Ok((_, missing)) => Readiness::NotReady(missing.join("; ")),
                Err(error) => Readiness::NotReady(worded(error)),
            })
        })
    }

    fn receive(&mut self, _context: &Context) -> Work<'_, ()> {
        Work::pending(self.with_running(Operation::Receive, |setup, running| {
            // A configuration that was changed for the worse would break the reload after the next move.
            check::check(&setup.spec.binary, &setup.config, launch::peer_name(setup, &running.cfg))?;
            let (_, missing) = look::look(&running.client, setup.spec.backends_min).map_err(worded)?;
            if !missing.is_empty() {
                return Err(missing.join("; "));
            }
            in_step(&running.client, LEARNT_LIMIT, |peers| peers.learnt(setup.spec.peers.as_deref()))
        }))
    }

    fn export(&mut self) -> Work<'_, Vec<u8>> {
        Work::pending(self.with_running(Operation::Export, |setup, running| {
            let only = setup.spec.peers.as_deref();
            let mut marks = None;
            in_step(&running.client, TOLD_LIMIT, |peers| {
                // Under load there is always something on its way: in step is who has all that there was at the beginning.
                let marks = marks.get_or_insert_with(|| peers.marks());
                peers.told(only, marks)
            })?;
            let (state, left_out) = gather::gather(&running.client).map_err(worded)?;
            for left_out in left_out {
                warn!(resource = setup.name, "not handed over: {left_out}");
            }
            state.encode()
        }))
    }

    fn import(&mut self, bytes: &[u8]) -> Work<'_, ()> {
        let state = match State::decode(bytes) {
            Ok(state) => state,
            Err(cause) => {
                return Work::Done(Err(ResourceError::Foreign {
                    resource: self.setup.name.clone(),
                    operation: Operation::Import,
                    cause,
                    remedy: "run the same version of Baton, with the same configuration, on both nodes".to_owned(),
                }));
            }
        };
        Work::pending(self.with_running(Operation::Import, move |setup, running| {
            let applied = apply::apply(&running.client, &state).map_err(|e| e.to_string())?;
            info!(resource = setup.name, changes = applied.changes, "the other HAProxy's state is taken over");
            for unknown in applied.unknown {
                warn!(resource = setup.name, "the other node's HAProxy has {unknown}, which this one has not");
            }
            Ok(())
        }))
    }

    fn start(&mut self, _context: &Context) -> Work<'_, ()> {
        let failure = self.failure(Operation::Start);
        Work::Done(match self.running() {
            Ok(running) if !running.master.ended() && !running.worker.ended() => Ok(()),
            Ok(_) => Err(failure("HAProxy has just died".to_owned())),
            Err(reason) => Err(failure(reason)),
        })
    }

    /// It stays up, for the time when the group comes back.
    fn stop(&mut self, _context: &Context) -> Work<'_, ()> {
        Work::ok(())
    }

    fn monitor(&mut self) -> Work<'_, Health> {
        let running = match self.running() {
            Ok(running) => running,
            Err(_) => return Work::ok(Health::Stopped),
        };
        let failure = self.failure(Operation::Monitor);
        Work::pending(async move {
            let asked = tokio::task::spawn_blocking(move || launch::ask_worker(&running.client, &running.master)).await;
            Ok(match asked.map_err(|e| failure(format!("the question did not end: {e}")))? {
                Ok(_) => Health::Running,
                Err(reason) => Health::Failed(reason.to_string()),
            })
        })
    }

    fn drain(&mut self, _context: &Context) -> Work<'_, ()> {
        if self.setup.spec.drain == DrainMode::Leave {
            return Work::ok(());
        }
        let before = self.running();
        let stopping = self.with_running(Operation::Drain, reload::soft_stop);
        Work::pending(async move {
            let now = stopping.await?;
            self.leaving();
            self.leaving.extend(before.ok().map(|r| Arc::clone(&r.worker)));
            if let Some(supervisor) = &self.supervisor {
                supervisor.shared.reloaded(now);
            }
            Ok(())
        })
    }

    fn drained(&mut self, _context: &Context) -> Work<'_, ()> {
        // They are left alone: they may serve others than this group's clients, and end by themselves.
        let workers = self.leaving();
        if workers > 0 {
            info!(
                resource = self.setup.name,
                workers, "the drain is over, and old workers of HAProxy finish other connections"
            );
        }
        Work::ok(())
    }

    fn monitor_interval(&self) -> Option<Duration> {
        Some(Duration::from_secs(2))
    }
}
