//! `kind = "check"`: something that must hold where the group is. There is nothing to start and to stop: a start asks once, and
//! a monitor judges.

mod http;
mod ping;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{Common, Context, Health, Notifier, Operation, Readiness, Resource, Timeouts, What, Work, call::Caller};
use crate::{
    config::kinds::{self, Probe, Scope},
    process::Ended,
};

/// How often a standby asks, where the resource is not looked at regularly.
const STANDBY_INTERVAL: Duration = Duration::from_secs(10);

/// A check.
#[derive(Debug)]
pub struct Check {
    label: String,
    asker: Arc<Asker>,
    notifier: Notifier,
    started: bool,
    /// Asks on every node of the group, for `scope = "node"`.
    standby: Option<JoinHandle<()>>,
}

impl Drop for Check {
    fn drop(&mut self) {
        if let Some(standby) = &self.standby {
            standby.abort();
        }
    }
}

/// Asks what the check asks.
#[derive(Debug)]
struct Asker {
    common: Common,
    spec: kinds::Check,
    /// One caller a user: a program that is called by one of them does not end that of the other.
    monitor: Caller,
    standby: Caller,
}

impl Check {
    /// Nothing is asked yet.
    pub fn new(common: &Common, spec: kinds::Check, notifier: &Notifier) -> Self {
        let asker = Asker {
            common: common.clone(),
            spec,
            monitor: Caller::new(common.file("log"), common.file("action")),
            standby: Caller::new(common.file("standby.log"), common.file("standby")),
        };
        Self { label: common.name(), asker: Arc::new(asker), notifier: notifier.clone(), started: false, standby: None }
    }
}

impl Asker {
    /// Why it does not hold, after all attempts.
    async fn ask(&self, caller: &Caller) -> Result<(), String> {
        let spec = &self.spec;
        let limit = Duration::from_nanos(spec.timeout_ns);
        let mut why = String::new();
        for attempt in 0..spec.attempts {
            if attempt > 0 {
                sleep(Duration::from_nanos(spec.interval_ns)).await;
            }
            why = match timeout(limit, self.attempt(caller)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(why)) => why,
                Err(_) => format!("no answer within {limit:?}"),
            };
        }
        let times = if spec.attempts == 1 { "once".to_owned() } else { format!("{} times in a row", spec.attempts) };
        Err(format!("{} failed {times}: {why}", self.object()))
    }

    async fn attempt(&self, caller: &Caller) -> Result<(), String> {
        match &self.spec.probe {
            Probe::Ping(address) => ping::ping(*address).await.map_err(|e| e.to_string()),
            Probe::Tcp(address) => TcpStream::connect(address).await.map(drop).map_err(|e| e.to_string()),
            Probe::Http(page) => http::get(page).await,
            Probe::Command(words) => {
                let common = &self.common;
                let environment = [
                    ("BATON_GROUP", common.group.to_string()),
                    ("BATON_RESOURCE", common.name.clone()),
                    ("BATON_NODE", common.node.clone()),
                ];
                let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
                match caller.call(words.clone(), environment).await {
                    Ok(answer) if answer.ended == Ended::Code(0) => Ok(()),
                    Ok(answer) => Err(answer.words()),
                    Err(e) => Err(format!("it cannot be called: {e}")),
                }
            }
        }
    }

    /// What is asked, in words.
    fn object(&self) -> String {
        match &self.spec.probe {
            Probe::Ping(address) => format!("ping of {address}"),
            Probe::Tcp(address) => format!("connection to {address}"),
            Probe::Http(page) => format!("http://{}{}", page.host, page.path),
            Probe::Command(words) => words.join(" "),
        }
    }

    /// Asks for ever, and tells when the answer changes.
    async fn stand_by(self: Arc<Self>, notifier: Notifier) {
        let every = self.common.monitor_interval.unwrap_or(STANDBY_INTERVAL);
        let mut ill = false;
        loop {
            match self.ask(&self.standby).await {
                Ok(()) if ill => {
                    info!(resource = self.common.name(), "the check holds again");
                    notifier.tell(self.common.event(What::Well));
                    ill = false;
                }
                Err(why) if !ill => {
                    warn!(resource = self.common.name(), why, "the check does not hold on this node");
                    notifier.tell(self.common.event(What::Ill(why)));
                    ill = true;
                }
                Ok(()) | Err(_) => {}
            }
            sleep(every).await;
        }
    }
}

impl Resource for Check {
    fn name(&self) -> &str {
        &self.label
    }

    fn timeouts(&self) -> Timeouts {
        self.asker.common.timeouts
    }

    /// Whether it was started: what it asks for may hold anywhere.
    fn probe(&mut self) -> Work<'_, Health> {
        Work::ok(if self.started { Health::Running } else { Health::Stopped })
    }

    fn start(&mut self, _context: &Context) -> Work<'_, ()> {
        Work::pending(async {
            let asked = self.asker.ask(&self.asker.monitor).await;
            let remedy = "what starts after it waits for it; see what it asks, or raise `attempts` and `timeout`";
            asked.map_err(|why| self.asker.common.failed(Operation::Start, "the check", why, remedy))?;
            self.started = true;
            Ok(())
        })
    }

    fn stop(&mut self, _context: &Context) -> Work<'_, ()> {
        Work::pending(async {
            let cleared = self.asker.monitor.clear().await;
            let common = &self.asker.common;
            let remedy = "see what the command waits for";
            cleared.map_err(|e| common.refused(Operation::Stop, "its command", "it cannot be ended", &e, remedy))?;
            self.started = false;
            Ok(())
        })
    }

    fn monitor(&mut self) -> Work<'_, Health> {
        if !self.started {
            return Work::ok(Health::Stopped);
        }
        Work::pending(async {
            Ok(match self.asker.ask(&self.asker.monitor).await {
                Ok(()) => Health::Running,
                Err(why) => Health::Failed(why),
            })
        })
    }

    fn attend(&mut self) -> Work<'_, ()> {
        if self.asker.spec.scope == Scope::Group {
            return Work::ok(());
        }
        Work::pending(async {
            if self.standby.as_ref().is_none_or(JoinHandle::is_finished) {
                self.standby = Some(tokio::spawn(Arc::clone(&self.asker).stand_by(self.notifier.clone())));
            }
            Ok(())
        })
    }

    fn readiness(&mut self) -> Work<'_, Readiness> {
        if self.asker.spec.scope == Scope::Group {
            return Work::ok(Readiness::Ready);
        }
        Work::pending(async {
            Ok(match self.asker.ask(&self.asker.monitor).await {
                Ok(()) => Readiness::Ready,
                Err(why) => Readiness::NotReady(why),
            })
        })
    }

    fn monitor_interval(&self) -> Option<Duration> {
        self.asker.common.monitor_interval
    }
}
