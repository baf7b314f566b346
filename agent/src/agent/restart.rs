//! The planned restart (docs/safety.md, rule 10): which program comes next, what its keeper is told, and who asks for it.

use std::{
    env,
    ffi::OsString,
    net::SocketAddr,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::{info, warn};

use super::{
    inputs::{Input, Request},
    slots::Slots,
};
use crate::{
    api::{OrderError, protocol::ErrorKind},
    cluster::ids::{Incarnation, MILLISECOND, Nanos, Role},
    config::Config,
    keeper::{self, Hello, Left, Orders},
};

/// How long a keeper beats at most when nothing else is asked for.
pub const WITHIN: Nanos = 10_000 * MILLISECOND;
/// How long the driver may take to say whether it may be.
const ANSWER_TIME: Duration = Duration::from_secs(3);
/// How often a program that cannot be executed is tried again, and with which pause.
const EXECUTE_TRIES: u32 = 50;
const EXECUTE_PACE: Duration = Duration::from_millis(20);
/// The answer to whoever asked goes out before the process ends.
const ANSWER_LEAVES: Duration = Duration::from_millis(30);

/// Somebody wants the agent to restart.
#[derive(Debug)]
pub struct Wanted {
    /// How long the keeper beats at most, ns.
    pub within: Nanos,
    /// Whether the process ends, for a process manager that starts it again.
    pub exit: bool,
    /// Whom to tell that it begins, or why not.
    pub reply: Option<oneshot::Sender<Result<String, OrderError>>>,
}

/// The program that this process is, and how it was called.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    name: OsString,
    arguments: Vec<OsString>,
}

impl Program {
    /// To be asked at the start, when the file at the path is still what runs.
    pub fn of_this_process() -> anyhow::Result<Self> {
        let itself = env::current_exe().context("it cannot be told which file this program is")?;
        let mut words = env::args_os();
        let name = words.next().unwrap_or_else(|| "baton".into());
        // By the name that it was called by: an upgrade may put another file behind a symbolic link.
        let called = env::current_dir().map(|here| here.join(&name)).ok();
        let same = |path: &PathBuf| path.canonicalize().is_ok_and(|path| path == itself);
        let path = called.filter(same).unwrap_or(itself);
        Ok(Self { path, name, arguments: words.collect() })
    }

    /// Whether there is something to execute at the path.
    fn check(&self) -> Result<(), String> {
        let path = self.path.display();
        let found = self.path.metadata().map_err(|error| format!("{path}: {error}"))?;
        if found.is_file() && found.permissions().mode() & 0o111 != 0 {
            return Ok(());
        }
        Err(format!("{path} is no program"))
    }

    /// Becomes what is at the path now. Returns only if that fails.
    pub fn execute(self) -> anyhow::Error {
        info!(program = %self.path.display(), "starting again");
        let attempt = || Command::new(&self.path).arg0(&self.name).args(&self.arguments).exec();
        let mut error = attempt();
        for _ in 0..EXECUTE_TRIES {
            // Somebody may be replacing the file just now; the keeper beats meanwhile.
            std::thread::sleep(EXECUTE_PACE);
            error = attempt();
        }
        anyhow!(error).context(format!("{} cannot be executed", self.path.display()))
    }
}

/// What a restart needs to know.
#[derive(Debug)]
pub struct Restarter {
    /// The program that comes next.
    pub program: Program,
    /// The keeper's orders, but for how long it beats.
    pub orders: Orders,
}

impl Restarter {
    /// Prepares a restart: the driver agrees, and a keeper is ready. `Some` if it begins; whoever asked is told in any case.
    pub async fn prepare(&self, wanted: Wanted, driver: &mpsc::UnboundedSender<Input>) -> Option<Left> {
        let Wanted { within, exit, reply } = wanted;
        let prepared = self.try_prepare(within, driver).await;
        if let Err(refused) = &prepared {
            warn!(why = %refused, "the agent does not restart");
        }
        let how = if exit { "ends, to be started again" } else { "restarts" };
        let text = format!("the agent {how}; its heartbeats go on for {} ms at most", within / MILLISECOND);
        let answer = prepared.as_ref().map(|_| text).map_err(OrderError::clone);
        if let Some(reply) = reply {
            // Whoever asked may have gone.
            drop(reply.send(answer));
            tokio::time::sleep(ANSWER_LEAVES).await;
        }
        prepared.ok()
    }

    async fn try_prepare(&self, within: Nanos, driver: &mpsc::UnboundedSender<Input>) -> Result<Left, OrderError> {
        let refuse = |message: String| OrderError { kind: ErrorKind::Refused, message };
        self.program.check().map_err(refuse)?;
        let (reply, answer) = oneshot::channel();
        let asked = driver.send(Input::Request(Request::MayRestart(reply)));
        match timeout(ANSWER_TIME, answer).await {
            Ok(Ok(may)) if asked.is_ok() => may.map_err(refuse)?,
            _ => {
                let message =
                    "the agent's core gave no answer: it is still looking for the other voters, or stuck; see its log";
                return Err(OrderError { kind: ErrorKind::Timeout, message: message.to_owned() });
            }
        }
        let orders = Orders { within, ..self.orders.clone() };
        let spawned = tokio::task::spawn_blocking(move || Left::spawn(&orders)).await;
        let left = spawned.map_err(|error| refuse(error.to_string()))?;
        left.map_err(|error| refuse(format!("{:#}", anyhow!(error))))
    }
}

/// The orders of a keeper for this agent. `None` if this machine is no voter.
pub fn orders(config: &Config, incarnation: Incarnation, slots: &Slots) -> Option<Orders> {
    let mine = config.me()?;
    let port = config.shared.port;
    let ends = |links: &[crate::config::Link]| links.iter().map(|l| SocketAddr::new(l.address, port)).collect();
    let others = config.shared.voters.values().filter(|v| v.id != mine.id);
    Some(Orders {
        hello: Hello { incarnation, groups: slots.groups(), pid: 0 },
        bpffs: config.this.bpffs.clone(),
        cluster: config.shared.name.clone(),
        node: config.this.name.to_string(),
        me: mine.id,
        is_node: mine.role == Role::Node,
        digest: config.digest as u32,
        interval: config.shared.timing.interval_ns,
        hold: config.shared.timing.hold_ns(),
        links: ends(&mine.links),
        peers: others.map(|v| (v.id, ends(&v.links))).collect(),
        realtime: config.this.realtime,
        within: WITHIN,
        socket: keeper::socket_in(&config.this.run_dir),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_this_one_and_must_be_executable() {
        let program = Program::of_this_process().unwrap();
        assert_eq!(program.path.canonicalize().unwrap(), env::current_exe().unwrap());
        assert_eq!(program.check(), Ok(()));
        let gone = Program { path: "/nonexistent/baton".into(), ..program.clone() };
        assert!(gone.check().unwrap_err().contains("/nonexistent/baton"));
        let folder = Program { path: "/".into(), ..program };
        assert!(folder.check().unwrap_err().contains("no program"));
    }
}
