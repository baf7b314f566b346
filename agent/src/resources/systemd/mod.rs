//! `kind = "systemd"`: a unit of systemd, started and stopped over D-Bus, watched by its signals. A bus that is missing or silent
//! neither hangs an operation nor makes a unit that runs look dead.

mod bus;
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tracing::{error, info, warn};

use self::bus::{Bus, BusError, State};
use super::{
    Common, Context, Health, Notifier, Operation, Readiness, Resource, ResourceError, Timeouts, What, Work,
    call::Caller,
    process::{cgroup::members, named},
};
use crate::{config::kinds, process::Ended};

/// Of a time limit, the part after which the kind itself says what it waits for, in percent.
const OWN_PART: u32 = 95;
/// Of the time limit of a stop, the part that `systemctl` gets where the bus fails, in percent.
const SYSTEMCTL_PART: u32 = 40;
/// Of the time limit of an operation, the share that one answer of the bus may take.
const BUS_SHARE: u32 = 8;
/// Between two attempts to watch a unit again.
const WATCH_AGAIN: Duration = Duration::from_secs(1);
/// Where control groups are mounted: version 2, both, version 1 alone.
const GROUP_ROOTS: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
/// How deep slices lie in one another.
const SLICES_MAX: usize = 8;
/// Between two looks whether the processes of a unit have ended.
const EMPTY_AGAIN: Duration = Duration::from_millis(20);

/// A unit.
#[derive(Debug)]
pub struct Systemd {
    label: String,
    shared: Arc<Shared>,
    notifier: Notifier,
    systemctl: Vec<String>,
    caller: Caller,
    watch: Option<JoinHandle<()>>,
    /// It was said that the unit is enabled.
    warned: bool,
}

#[derive(Debug)]
struct Shared {
    common: Common,
    unit: String,
    bus: Bus,
    roots: Vec<PathBuf>,
    /// The run that was started or adopted; none when it shall not run.
    wanted: Mutex<Option<Vec<u8>>>,
    /// Where its processes were last.
    group: Mutex<Option<String>>,
}

impl Drop for Systemd {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Systemd {
    /// Nothing is asked yet. When this is dropped, the unit runs on.
    pub fn new(common: &Common, spec: kinds::Systemd, notifier: &Notifier) -> Self {
        let roots = GROUP_ROOTS.map(PathBuf::from).to_vec();
        Self::with(common, spec, notifier, None, roots, vec!["/usr/bin/systemctl".to_owned()])
    }

    fn with(
        common: &Common,
        spec: kinds::Systemd,
        notifier: &Notifier,
        address: Option<String>,
        roots: Vec<PathBuf>,
        systemctl: Vec<String>,
    ) -> Self {
        // A bus that hangs must leave time for what is done without it.
        let bus = Bus::new(address, common.timeouts.stop.min(common.timeouts.start) / BUS_SHARE);
        let shared = Shared {
            common: common.clone(),
            unit: spec.unit,
            bus,
            roots,
            wanted: Mutex::new(None),
            group: Mutex::new(None),
        };
        Self {
            label: common.name(),
            shared: Arc::new(shared),
            notifier: notifier.clone(),
            systemctl,
            caller: Caller::new(common.file("log"), common.file("action")),
            watch: None,
            warned: false,
        }
    }

    /// The unit runs, and shall: its end is news from now on.
    fn adopt(&mut self, state: &State) {
        let before = lock(&self.shared.wanted).replace(state.invocation.clone());
        if before.as_ref() != Some(&state.invocation) || self.watch.as_ref().is_none_or(JoinHandle::is_finished) {
            // One that watched another run may be about to end.
            if let Some(watch) = self.watch.take() {
                watch.abort();
            }
            self.watch = Some(tokio::spawn(Arc::clone(&self.shared).watch(self.notifier.clone())));
        }
    }

    async fn look(&mut self, operation: Operation) -> Result<Health, ResourceError> {
        let state = match self.shared.state().await {
            Ok(state) => state,
            Err(error) if error.is_of_the_bus() => return self.look_at_processes(operation, &error),
            Err(error) => return Err(self.shared.failed(operation, &error)),
        };
        let wanted = lock(&self.shared.wanted).clone();
        if state.runs() {
            if operation == Operation::Monitor && wanted.is_some_and(|w| w != state.invocation) {
                return Ok(Health::Failed(format!("systemd has restarted {}", self.shared.unit)));
            }
            self.adopt(&state);
            return Ok(Health::Running);
        }
        if state.active == "inactive" || (state.stopped() && operation == Operation::Probe) {
            return Ok(Health::Stopped);
        }
        Ok(Health::Failed(format!("{} is {}", self.shared.unit, state.words())))
    }

    /// Without the bus: a unit that has processes is not taken for dead.
    fn look_at_processes(&self, operation: Operation, error: &BusError) -> Result<Health, ResourceError> {
        let pids = self.shared.processes().map_err(|e| self.shared.unlisted(operation, &e))?;
        let expected = lock(&self.shared.wanted).is_some();
        match (pids.is_empty(), expected) {
            (true, _) => Ok(Health::Stopped),
            (false, true) => {
                warn!(resource = self.label, %error, "only the unit's processes can be looked at; they live");
                Ok(Health::Running)
            }
            (false, false) => Err(self.shared.failed(operation, error)),
        }
    }

    async fn start_up(&mut self) -> Result<(), ResourceError> {
        let shared = Arc::clone(&self.shared);
        let failed = |error: BusError| shared.failed(Operation::Start, &error);
        let deadline = Instant::now() + shared.common.timeouts.start * OWN_PART / 100;
        let state = shared.state().await.map_err(failed)?;
        if let Some((cause, remedy)) = unusable(&shared.unit, &state) {
            return Err(shared.common.failed(Operation::Start, &shared.unit, cause, remedy));
        }
        self.warn_enabled(&state);
        if state.runs() {
            info!(resource = self.label, unit = shared.unit, "the unit runs already, and is adopted");
            self.adopt(&state);
            return Ok(());
        }
        let journal = format!("see `journalctl -u {}` and `systemctl status {0}`", shared.unit);
        match shared.bus.start(&shared.unit, deadline).await {
            Ok(()) => {}
            Err(error @ (BusError::Job(_) | BusError::Slow(_))) => {
                let state = shared.state().await.map_or_else(|e| e.to_string(), |state| state.words());
                let cause = format!("{error}; the unit is {state}");
                return Err(shared.common.failed(Operation::Start, &shared.unit, cause, journal));
            }
            Err(error) => return Err(failed(error)),
        }
        let state = shared.state().await.map_err(failed)?;
        if !state.runs() {
            let cause = format!("it was started, and is {}", state.words());
            let remedy = format!("{journal}; one of Type=oneshot needs RemainAfterExit=yes");
            return Err(shared.common.failed(Operation::Start, &shared.unit, cause, remedy));
        }
        self.adopt(&state);
        Ok(())
    }

    async fn end(&mut self) -> Result<(), ResourceError> {
        let shared = Arc::clone(&self.shared);
        // From now on its end is no news.
        *lock(&shared.wanted) = None;
        let limit = shared.common.timeouts.stop * OWN_PART / 100;
        let deadline = Instant::now() + limit;
        let by_bus = async {
            let state = shared.state().await?;
            if state.stopped() { Ok(()) } else { shared.bus.stop(&shared.unit, deadline).await }
        };
        let unreachable = match by_bus.await {
            Ok(()) => None,
            Err(error) if error.is_of_the_bus() => {
                warn!(resource = self.label, %error, "the unit is stopped by systemctl, which needs no bus");
                Some((error, self.by_systemctl().await))
            }
            Err(error) => return Err(shared.failed(Operation::Stop, &error)),
        };
        // What systemd says is one thing; that nothing of it runs is what counts.
        loop {
            let left = shared.processes().map_err(|e| shared.unlisted(Operation::Stop, &e))?;
            if left.is_empty() {
                return Ok(());
            }
            // After a job that is done there is nothing to wait for but the kernel.
            if Instant::now() > deadline || unreachable.as_ref().is_some_and(|(_, systemctl)| systemctl.is_some()) {
                let cause = match &unreachable {
                    Some((bus, Some(systemctl))) => format!("{bus}; systemctl: {systemctl}; {} is left", named(&left)),
                    Some((bus, None)) => format!("{bus}; {} is left", named(&left)),
                    None => format!("systemd calls it stopped, but {} is left", named(&left)),
                };
                let remedy =
                    format!("see `systemctl status {}`; end these processes, or reset the machine", shared.unit);
                return Err(shared.common.failed(Operation::Stop, &shared.unit, cause, remedy));
            }
            sleep(EMPTY_AGAIN).await;
        }
    }

    /// Why it did not do it.
    async fn by_systemctl(&self) -> Option<String> {
        let mut words = self.systemctl.clone();
        words.extend(["stop".to_owned(), self.shared.unit.clone()]);
        let limit = self.shared.common.timeouts.stop * SYSTEMCTL_PART / 100;
        match timeout(limit, self.caller.call(words, Vec::new())).await {
            Ok(Ok(answer)) if answer.ended == Ended::Code(0) => None,
            Ok(Ok(answer)) => Some(answer.words()),
            Ok(Err(e)) => Some(e.to_string()),
            Err(_) => Some(format!("no answer within {limit:?}")),
        }
    }

    fn warn_enabled(&mut self, state: &State) {
        let enabled = matches!(state.file.as_str(), "enabled" | "enabled-runtime");
        if enabled && !self.warned {
            let unit = &self.shared.unit;
            warn!(
                resource = self.label,
                "{unit} is enabled: it would start at boot on every node beside Baton; `systemctl disable {unit}`"
            );
        }
        self.warned = enabled;
    }
}

impl Shared {
    async fn state(&self) -> Result<State, BusError> {
        let state = self.bus.state(&self.unit).await?;
        if !state.control_group.is_empty() {
            *lock(&self.group) = Some(state.control_group.clone());
        }
        Ok(state)
    }

    /// The processes of the unit, by its control group; none when there is none.
    fn processes(&self) -> io::Result<Vec<u32>> {
        let known = lock(&self.group).clone();
        let mut found = Vec::new();
        for root in &self.roots {
            let folder = match &known {
                Some(group) => Some(root.join(group.trim_start_matches('/'))),
                None => find_folder(&root.join("system.slice"), &self.unit, 0),
            };
            if let Some(folder) = folder.filter(|f| f.is_dir()) {
                found.extend(members(&folder)?);
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Tells when the run that is wanted has ended.
    async fn watch(self: Arc<Self>, notifier: Notifier) {
        let mut said = false;
        loop {
            let watched = self.bus.watch(&self.unit, |state| {
                said = false;
                let mut wanted = lock(&self.wanted);
                let Some(run) = &*wanted else { return true };
                let restarted = state.runs() && *run != state.invocation;
                if state.runs() && !restarted {
                    return false;
                }
                let status = if restarted {
                    format!("systemd has restarted {}", self.unit)
                } else {
                    format!("{} is {}", self.unit, state.words())
                };
                *wanted = None;
                error!(resource = self.common.name(), status, "the unit has ended without Baton");
                notifier.tell(self.common.event(What::Died { status, release: false }));
                true
            });
            match watched.await {
                Ok(()) => return,
                Err(error) => {
                    if !std::mem::replace(&mut said, true) {
                        warn!(resource = self.common.name(), %error, "the unit cannot be watched; it is tried again");
                    }
                    sleep(WATCH_AGAIN).await;
                }
            }
        }
    }

    fn failed(&self, operation: Operation, error: &BusError) -> ResourceError {
        let remedy = match error {
            BusError::Unreachable(_) | BusError::Silent(_) => {
                "see that systemd is process 1 and `systemctl status dbus` is well".to_owned()
            }
            BusError::Refused(_) | BusError::Slow(_) | BusError::Job(_) => {
                format!("see `systemctl status {}` and `journalctl -u {0}`", self.unit)
            }
        };
        self.common.failed(operation, &self.unit, error.to_string(), remedy)
    }

    fn unlisted(&self, operation: Operation, e: &io::Error) -> ResourceError {
        self.common.refused(operation, &self.unit, "its control group cannot be read", e, "see /sys/fs/cgroup")
    }
}

/// A folder of a name, below slices.
fn find_folder(slice: &Path, name: &str, depth: usize) -> Option<PathBuf> {
    let here = slice.join(name);
    if here.is_dir() {
        return Some(here);
    }
    let slices = fs::read_dir(slice)
        .ok()?
        .filter_map(Result::ok)
        .filter(|e| e.file_name().to_string_lossy().ends_with(".slice"));
    slices.filter(|_| depth < SLICES_MAX).find_map(|entry| find_folder(&entry.path(), name, depth + 1))
}

/// Why a unit cannot be started here, and what to do.
fn unusable(unit: &str, state: &State) -> Option<(String, String)> {
    match state.load.as_str() {
        "loaded" => None,
        "not-found" => {
            let remedy = "install it on this node, then `systemctl daemon-reload`; or correct `unit`".to_owned();
            Some((format!("systemd knows no unit {unit}"), remedy))
        }
        "masked" => Some((format!("{unit} is masked"), format!("`systemctl unmask {unit}`"))),
        other => Some((format!("systemd could not load it ({other})"), format!("see `systemd-analyze verify {unit}`"))),
    }
}

impl Resource for Systemd {
    fn name(&self) -> &str {
        &self.label
    }

    fn timeouts(&self) -> Timeouts {
        self.shared.common.timeouts
    }

    fn probe(&mut self) -> Work<'_, Health> {
        Work::pending(self.look(Operation::Probe))
    }

    fn start(&mut self, _context: &Context) -> Work<'_, ()> {
        Work::pending(self.start_up())
    }

    fn stop(&mut self, _context: &Context) -> Work<'_, ()> {
        Work::pending(self.end())
    }

    fn monitor(&mut self) -> Work<'_, Health> {
        Work::pending(self.look(Operation::Monitor))
    }

    fn readiness(&mut self) -> Work<'_, Readiness> {
        Work::pending(async {
            let state = match self.shared.state().await {
                Ok(state) => state,
                Err(error) => return Ok(Readiness::NotReady(error.to_string())),
            };
            self.warn_enabled(&state);
            Ok(match unusable(&self.shared.unit, &state) {
                None => Readiness::Ready,
                Some((cause, remedy)) => Readiness::NotReady(format!("{cause}; {remedy}")),
            })
        })
    }

    fn monitor_interval(&self) -> Option<Duration> {
        self.shared.common.monitor_interval
    }
}
