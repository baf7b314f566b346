//! A filesystem as a resource: mounted on the owner, and on a stop gone from every mount namespace of the machine.

mod holders;
mod look;
mod mountinfo;
mod mounting;
mod options;
mod stop;
mod target;
mod tools;
mod unmount;
mod write;

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tracing::info;

use self::{
    look::{Seen, describe},
    mounting::{Before, Failure, before, folder, mount_block},
    target::Target,
};
use super::{Common, Context, Health, Operation, Resource, ResourceError, Timeouts, Work, call::Caller, calls::Calls};
use crate::config::kinds;

/// Between two looks whether a device is there.
const APPEARS: Duration = Duration::from_millis(100);
/// An operation ends by itself this much before its limit, so that it can say why.
const MARGIN: Duration = Duration::from_millis(500);

/// A filesystem.
#[derive(Debug)]
pub struct Filesystem {
    common: Common,
    label: String,
    spec: kinds::Filesystem,
    calls: Calls,
    /// Its check and its helper.
    tools: Arc<Caller>,
    /// The device, once it was found: its node may go away.
    known: Option<Target>,
    /// It was mounted, or found mounted, in this agent's life: its copies elsewhere came of that.
    mine: bool,
}

impl Filesystem {
    /// Nothing is touched yet.
    pub fn new(common: &Common, spec: &kinds::Filesystem) -> Self {
        Self {
            common: common.clone(),
            label: common.name(),
            spec: spec.clone(),
            calls: Calls::default(),
            tools: Arc::new(Caller::new(common.file("log"), common.file("json"))),
            known: None,
            mine: false,
        }
    }

    fn failed(&self, operation: Operation, failure: Failure) -> ResourceError {
        let Failure { object, cause, errno, remedy } = failure;
        ResourceError::Failed { resource: self.label.clone(), operation, object, cause, errno, remedy }
    }

    /// The error of a call that does not come back.
    fn hung(&self, operation: Operation, hung: &super::calls::Hung) -> ResourceError {
        let object = format!("{} on {}", self.spec.device, self.spec.mount.display());
        let remedy = "see whether its server or device answers, and what the kernel says (dmesg)";
        self.common.failed(operation, object, hung.to_string(), remedy)
    }

    /// Makes a call on a thread that may wait.
    async fn call<T: Send + 'static>(
        &self,
        operation: Operation,
        what: &'static str,
        until: Instant,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ResourceError> {
        self.calls.run(what, until, call).await.map_err(|hung| self.hung(operation, &hung))
    }

    async fn mount(&mut self) -> Result<(), ResourceError> {
        let failed = Operation::Start;
        let until = limit(self.common.timeouts.start);
        let target = loop {
            let spec = self.spec.clone();
            let found = self.call(failed, "the look at the device", until, move || before(&spec)).await?;
            match found.map_err(|f| self.failed(failed, f))? {
                Before::Runs(target) => {
                    self.known = Some(target);
                    return self.verify(until).await;
                }
                Before::Free(target) => break target,
                Before::Wait(path) if Instant::now() + APPEARS < until => {
                    tracing::debug!(resource = self.label, path, "the device is not there yet");
                    sleep(APPEARS).await;
                }
                Before::Wait(path) => {
                    let cause = format!("no such device appeared within {:?}", self.common.timeouts.start);
                    let remedy = "see that the disk is attached and udev runs, or correct `device`";
                    return Err(self.failed(failed, Failure::new(path, cause, remedy)));
                }
            }
        };
        // From here on something may be mounted, even if this future is dropped.
        (self.known, self.mine) = (Some(target.clone()), true);
        let spec = self.spec.clone();
        let made = self.call(failed, "mkdir(2)", until, move || folder(&spec)).await?;
        made.map_err(|f| self.failed(failed, f))?;
        let name = match &target {
            Target::Block { path, .. } => {
                tools::check(&self.tools, &self.spec, path, until).await.map_err(|f| self.failed(failed, f))?;
                path.display().to_string()
            }
            Target::Network(name) => name.clone(),
        };
        match (tools::helper(&self.spec.fs_type), target) {
            (Some(helper), _) => tools::mount_by_helper(&self.tools, &self.spec, &helper, &name, until).await,
            (None, Target::Block { path, .. }) => {
                let spec = self.spec.clone();
                self.call(failed, "mount(2)", until, move || mount_block(&spec, &path)).await?
            }
            (None, Target::Network(_)) => {
                let helper = format!("mount.{}", self.spec.fs_type);
                let remedy = "install what has it (nfs-common, cifs-utils, glusterfs-client)";
                Err(Failure::new(helper, "there is no such program in /sbin", remedy))
            }
        }
        .map_err(|f| self.failed(failed, f))?;
        self.verify(until).await?;
        info!(resource = self.label, device = name, mount = %self.spec.mount.display(), "mounted");
        Ok(())
    }

    /// The effect, not the intent.
    async fn verify(&mut self, until: Instant) -> Result<(), ResourceError> {
        match self.look(Operation::Start, until).await? {
            Health::Running => Ok(()),
            Health::Stopped => {
                let failure = Failure::new(self.spec.mount.display().to_string(), "nothing is mounted", "see dmesg");
                Err(self.failed(Operation::Start, failure))
            }
            Health::Failed(cause) => {
                let remedy = "see what the kernel says (dmesg); stop the group, and repair the filesystem";
                let failure = Failure::new(self.spec.mount.display().to_string(), cause, remedy);
                Err(self.failed(Operation::Start, failure))
            }
        }
    }

    /// What is mounted at the folder.
    async fn look(&mut self, operation: Operation, until: Instant) -> Result<Health, ResourceError> {
        let (spec, known) = (self.spec.clone(), self.known.clone());
        let seen =
            self.call(operation, "the look at the mount", until, move || Seen::look(&spec, known.as_ref())).await?;
        let seen = seen.map_err(|e| {
            self.failed(
                operation,
                Failure::kernel("/proc", "the mount table cannot be read", &e, "mount proc on /proc"),
            )
        })?;
        if seen.runs(&self.spec) {
            self.mine = true;
            if let Ok(target) = &seen.target {
                self.known = Some(target.clone());
            }
        }
        Ok(health(&seen, &self.spec))
    }

    async fn monitor_now(&mut self) -> Result<Health, ResourceError> {
        let until = limit(self.common.timeouts.monitor);
        let health = self.look(Operation::Monitor, until).await?;
        if health != Health::Running || self.spec.is_network() && !self.spec.monitor_write {
            return Ok(health);
        }
        let (folder, write) = (self.spec.mount.clone(), self.spec.monitor_write);
        let name = format!(".baton-{}-{}", self.common.group, self.common.name);
        let what = if write { "writing a file there" } else { "looking at the folder" };
        let tried = self.calls.run(what, until, move || write::touch(&folder, write.then_some(&name))).await;
        Ok(match tried {
            Ok(Ok(())) => Health::Running,
            Ok(Err(words)) => Health::Failed(words),
            Err(hung) => Health::Failed(hung.to_string()),
        })
    }
}

/// What the mount table says.
fn health(seen: &Seen, spec: &kinds::Filesystem) -> Health {
    let Some(top) = &seen.top else { return Health::Stopped };
    if !seen.is_ours(top, spec) {
        return Health::Failed(format!("{} is mounted on {}", describe(top), spec.mount.display()));
    }
    if spec.is_read_only() {
        return Health::Running;
    }
    match ["ro", "emergency_ro", "shutdown"].iter().find(|o| top.has(o)) {
        Some(option) => Health::Failed(format!(
            "{} on {} is read-only ({option}): the kernel found errors on it, see dmesg",
            describe(top),
            spec.mount.display()
        )),
        None => Health::Running,
    }
}

/// When an operation ends by itself: shortly before it is given up, to say why.
fn limit(timeout: Duration) -> Instant {
    Instant::now() + timeout.saturating_sub(MARGIN.min(timeout / 10))
}

impl Resource for Filesystem {
    fn name(&self) -> &str {
        &self.label
    }

    fn timeouts(&self) -> Timeouts {
        self.common.timeouts
    }

    fn probe(&mut self) -> Work<'_, Health> {
        let until = limit(self.common.timeouts.probe);
        Work::pending(async move { self.look(Operation::Probe, until).await })
    }

    fn start(&mut self, _context: &Context) -> Work<'_, ()> {
        Work::pending(self.mount())
    }

    fn stop(&mut self, _context: &Context) -> Work<'_, ()> {
        Work::pending(self.unmount())
    }

    fn monitor(&mut self) -> Work<'_, Health> {
        Work::pending(self.monitor_now())
    }

    fn monitor_interval(&self) -> Option<Duration> {
        self.common.monitor_interval
    }
}
