//! What an OCF resource agent runs. Each action is one call of the agent, in a process group that is killed as a whole when the
//! time is over; its exit code is put into words.

mod codes;
mod environment;
pub mod metadata;
pub mod parameters;

use std::{io, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use tracing::warn;

use self::{
    codes::{Code, reason},
    environment::{Call, SCRATCH, variables},
    metadata::{MetaData, MetaDataError},
};
use super::{
    Common, Context, Health, Operation, Readiness, Resource, ResourceError, Timeouts, Work,
    call::{Answer, Caller},
};
use crate::config::{
    Config, Kind,
    kinds::{self, OcfRole},
};

/// An operation ends by itself this much before its limit, so that it can say why.
const MARGIN: Duration = Duration::from_millis(500);

/// A resource that an OCF agent runs.
#[derive(Debug)]
pub struct Ocf {
    common: Common,
    label: String,
    spec: kinds::Ocf,
    caller: Arc<Caller>,
    /// What the agent says of itself, once it was asked.
    meta: Option<Arc<MetaData>>,
    /// It was started, or found running, in this agent's life.
    started: bool,
    /// It runs, less well than it could; told once.
    degraded: bool,
}

impl Ocf {
    /// Nothing is run yet.
    pub fn new(common: &Common, spec: &kinds::Ocf) -> Self {
        Self {
            common: common.clone(),
            label: common.name(),
            spec: spec.clone(),
            caller: Arc::new(Caller::new(common.file("log"), common.file("json"))),
            meta: None,
            started: false,
            degraded: false,
        }
    }

    fn promoted(&self) -> bool {
        self.spec.role == OcfRole::Promoted
    }

    /// Asks the agent about itself, once; what it advises counts from then on.
    async fn learn(&mut self) -> Result<Arc<MetaData>, MetaDataError> {
        if let Some(meta) = &self.meta {
            return Ok(Arc::clone(meta));
        }
        let spec = self.spec.clone();
        let asked = tokio::task::spawn_blocking(move || MetaData::ask(&spec)).await.map_err(io::Error::other)?;
        let meta = Arc::new(asked?);
        self.meta = Some(Arc::clone(&meta));
        self.heed(&meta);
        Ok(meta)
    }

    fn heed(&mut self, meta: &MetaData) {
        let (given, promoted) = (self.spec.given, self.promoted());
        let advice = |name: &str| meta.action(name, promoted).and_then(|a| a.timeout).filter(|t| !t.is_zero());
        // A start is followed by a promotion, a stop preceded by a demotion.
        let more = |name: &str| if promoted { advice(name).unwrap_or_default() } else { Duration::ZERO };
        let times = &mut self.common.timeouts;
        if let (false, Some(start)) = (given.start, advice("start")) {
            times.start = start + more("promote");
        }
        if let (false, Some(stop)) = (given.stop, advice("stop")) {
            times.stop = stop + more("demote");
        }
        if let (false, Some(monitor)) = (given.monitor, advice("monitor")) {
            (times.monitor, times.probe) = (monitor, monitor);
        }
        let interval = meta.action("monitor", promoted).and_then(|a| a.interval).filter(|i| !i.is_zero());
        if let (false, Some(interval)) = (given.interval, interval) {
            self.common.monitor_interval = Some(interval);
        }
    }

    fn failed(&self, operation: Operation, cause: String, remedy: impl Into<String>) -> ResourceError {
        self.common.failed(operation, self.spec.full_name(), cause, remedy)
    }

    /// Calls the agent.
    async fn act(
        &self,
        operation: Operation,
        action: &'static str,
        interval: Duration,
        until: Instant,
    ) -> Result<(Code, Answer), ResourceError> {
        let timeout = self.common.timeouts.of(operation);
        let path = self.spec.path().display().to_string();
        let environment = variables(&self.common, &self.spec, Call { action, interval, timeout });
        let called = timeout_at(until, self.caller.call(vec![path, action.to_owned()], environment)).await;
        match called {
            Ok(Ok(answer)) => Ok((Code::of(answer.ended), answer)),
            Ok(Err(e)) => {
                let remedy = "install the package that has it (resource-agents), or correct `agent`";
                Err(self.failed(operation, format!("`{action}` cannot be called: {e}"), remedy))
            }
            Err(_) => {
                let cause = format!(
                    "`{action}` did not end within {timeout:?}, and was killed with all that it started; its output is in {}",
                    self.caller.output().display()
                );
                Err(self.failed(operation, cause, "see what it waits for, or raise the timeout"))
            }
        }
    }

    /// The error of an action that did not do well.
    fn refused(&self, operation: Operation, action: &str, code: Code, answer: &Answer) -> ResourceError {
        let (meaning, remedy) = code.words();
        let said = answer.output.as_deref().unwrap_or_default();
        let cause = match reason(said) {
            Some(reason) => format!("`{action}`: {meaning}: {reason}"),
            None if said.is_empty() => format!("`{action}`: {meaning}, and said nothing"),
            None => format!("`{action}`: {meaning}; it said: {said}"),
        };
        self.failed(operation, cause, format!("{remedy} ({})", self.caller.output().display()))
    }

    async fn must(&self, operation: Operation, action: &'static str, until: Instant) -> Result<(), ResourceError> {
        match self.act(operation, action, Duration::ZERO, until).await? {
            (Code::Success, _) => Ok(()),
            (code, answer) => Err(self.refused(operation, action, code, &answer)),
        }
    }

    async fn probe_code(&self, operation: Operation, until: Instant) -> Result<(Code, Answer), ResourceError> {
        self.act(operation, "monitor", Duration::ZERO, until).await
    }

    async fn start_now(&mut self) -> Result<(), ResourceError> {
        let start = Operation::Start;
        let meta = match self.learn().await {
            Ok(meta) => meta,
            Err(e) => {
                let remedy = "install the package that has it (resource-agents), or correct `agent`";
                return Err(self.failed(start, e.to_string(), remedy));
            }
        };
        let mistakes = parameters::mistakes(&self.spec, &meta);
        if !mistakes.is_empty() {
            return Err(self.failed(start, mistakes.join("; "), "correct `parameters`; `baton check` finds this, too"));
        }
        if self.promoted() && meta.action("promote", true).is_none() {
            let cause = "the agent has no action `promote`".to_owned();
            return Err(self.failed(start, cause, "write `role = \"started\"`, or choose a promotable agent"));
        }
        let until = limit(self.common.timeouts.start);
        // Agents expect it; without it they say themselves what they miss.
        drop(tokio::fs::create_dir_all(SCRATCH).await);
        self.started = true;
        // Agents may refuse to start what is promoted already.
        let promoted = |code| matches!(code, Code::Promoted | Code::DegradedPromoted);
        if !self.promoted() {
            self.must(start, "start", until).await?;
        } else if !promoted(self.probe_code(start, until).await?.0) {
            self.must(start, "start", until).await?;
            if !promoted(self.probe_code(start, until).await?.0) {
                self.must(start, "promote", until).await?;
            }
        }
        // The effect, not the intent.
        let (code, answer) = self.probe_code(start, until).await?;
        match self.health(code, &answer) {
            Health::Running => Ok(()),
            Health::Stopped => {
                let cause = "it was started, and does not run".to_owned();
                Err(self.failed(start, cause, format!("see {}", self.caller.output().display())))
            }
            Health::Failed(cause) => Err(self.failed(start, cause, format!("see {}", self.caller.output().display()))),
        }
    }

    async fn stop_now(&mut self) -> Result<(), ResourceError> {
        let stop = Operation::Stop;
        let until = limit(self.common.timeouts.stop);
        // An action that was given up was killed, and must have ended.
        let cleared = timeout_at(until, self.caller.clear()).await;
        cleared.unwrap_or(Err(io::ErrorKind::TimedOut.into())).map_err(|e| {
            self.failed(
                stop,
                format!("an action that was killed does not end: {e}"),
                "see what it waits for, and dmesg",
            )
        })?;
        if !self.started
            && tokio::fs::metadata(self.spec.path()).await.is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
        {
            // What cannot be run here never was.
            return Ok(());
        }
        // Without advice the usual times count.
        if let Err(error) = self.learn().await {
            warn!(resource = self.label, %error, "the agent's meta-data cannot be had");
        }
        if self.promoted() {
            let (code, _) = self.probe_code(stop, until).await?;
            if code.is_promoted() {
                self.must(stop, "demote", until).await?;
            }
        }
        self.must(stop, "stop", until).await?;
        match self.probe_code(stop, until).await? {
            (Code::NotRunning, _) => {
                (self.started, self.degraded) = (false, false);
                Ok(())
            }
            (code, answer) => {
                let (meaning, _) = code.words();
                let said = answer.output.unwrap_or_default();
                let cause = format!("`stop` says that it is done, but `monitor` afterwards: {meaning}; {said}");
                Err(self.failed(stop, cause, "end it by hand; the agent may be at fault"))
            }
        }
    }

    async fn look(&mut self, operation: Operation, interval: Duration) -> Result<Health, ResourceError> {
        if operation == Operation::Probe
            && tokio::fs::metadata(self.spec.path()).await.is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
        {
            return Ok(Health::Stopped);
        }
        if let Err(error) = self.learn().await {
            warn!(resource = self.label, %error, "the agent's meta-data cannot be had");
        }
        let until = limit(self.common.timeouts.of(operation));
        let (code, answer) = self.act(operation, "monitor", interval, until).await?;
        // What is not installed does not run.
        if operation == Operation::Probe && code == Code::Error(crate::process::Ended::Code(5)) {
            return Ok(Health::Stopped);
        }
        let health = self.health(code, &answer);
        self.started |= health != Health::Stopped;
        Ok(health)
    }

    fn health(&mut self, code: Code, answer: &Answer) -> Health {
        let degraded = matches!(code, Code::Degraded | Code::DegradedPromoted);
        if degraded && !std::mem::replace(&mut self.degraded, degraded) {
            warn!(resource = self.label, output = answer.output, "{}", code.words().0);
        }
        self.degraded = degraded;
        match (code, self.promoted()) {
            (Code::NotRunning, _) => Health::Stopped,
            (Code::Success | Code::Degraded, false) | (Code::Promoted | Code::DegradedPromoted, true) => {
                Health::Running
            }
            (Code::Success | Code::Degraded, true) => Health::Failed("it runs, but is not promoted".to_owned()),
            (Code::Promoted | Code::DegradedPromoted, false) => {
                Health::Failed("it is promoted, which the configuration does not ask for".to_owned())
            }
            (Code::FailedPromoted | Code::Error(_), _) => {
                let said = answer.output.as_deref().unwrap_or_default();
                let (meaning, remedy) = code.words();
                let detail = reason(said).unwrap_or(said);
                Health::Failed(format!("{meaning}: {detail}; {remedy}"))
            }
        }
    }
}

/// Checks the parameters of all agents that this machine may run against what the agents say: mistakes, and doubts, which are
/// agents that are not to be had here. Runs the agents' `meta-data`, and blocks until they answer.
pub fn check_here(config: &Config) -> (Vec<String>, Vec<String>) {
    let (mut mistakes, mut doubts) = (Vec::new(), Vec::new());
    for group in config.shared.groups.values().filter(|g| g.nodes.contains(&config.this.id)) {
        for resource in &group.resources {
            let Kind::Ocf(spec) = &resource.kind else { continue };
            let name = format!("{}/{}", group.id, resource.name);
            match MetaData::ask(spec) {
                Ok(meta) => mistakes.extend(parameters::mistakes(spec, &meta).iter().map(|m| format!("{name}: {m}"))),
                Err(e) => doubts.push(format!("{name}: {} was not checked: {e}", spec.full_name())),
            }
        }
    }
    (mistakes, doubts)
}

/// When an operation ends by itself: shortly before it is given up, to say why.
fn limit(timeout: Duration) -> Instant {
    Instant::now() + timeout.saturating_sub(MARGIN.min(timeout / 10))
}

impl Resource for Ocf {
    fn name(&self) -> &str {
        &self.label
    }

    fn timeouts(&self) -> Timeouts {
        self.common.timeouts
    }

    fn attend(&mut self) -> Work<'_, ()> {
        Work::pending(async move {
            let mistakes = match self.learn().await {
                Ok(meta) => parameters::mistakes(&self.spec, &meta),
                Err(e) => vec![format!("{} is not usable here: {e}", self.spec.full_name())],
            };
            if mistakes.is_empty() {
                return Ok(());
            }
            let remedy = "correct the configuration, or install the agent on this node";
            Err(self.failed(Operation::Attend, mistakes.join("; "), remedy))
        })
    }

    fn readiness(&mut self) -> Work<'_, Readiness> {
        Work::pending(async move {
            Ok(match self.learn().await {
                Ok(meta) => match parameters::mistakes(&self.spec, &meta).as_slice() {
                    [] => Readiness::Ready,
                    found => Readiness::NotReady(found.join("; ")),
                },
                Err(e) => Readiness::NotReady(format!("{} is not usable here: {e}", self.spec.full_name())),
            })
        })
    }

    fn probe(&mut self) -> Work<'_, Health> {
        Work::pending(self.look(Operation::Probe, Duration::ZERO))
    }

    fn start(&mut self, _context: &Context) -> Work<'_, ()> {
        Work::pending(self.start_now())
    }

    fn stop(&mut self, _context: &Context) -> Work<'_, ()> {
        Work::pending(self.stop_now())
    }

    fn monitor(&mut self) -> Work<'_, Health> {
        let interval = self.common.monitor_interval.unwrap_or(Duration::from_secs(10));
        Work::pending(self.look(Operation::Monitor, interval))
    }

    fn monitor_interval(&self) -> Option<Duration> {
        self.common.monitor_interval
    }
}
