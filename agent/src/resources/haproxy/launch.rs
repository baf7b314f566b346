//! Brings a HAProxy up: adopts the one that an earlier agent started, or finds the one of a systemd unit, or starts one.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::{
    Setup,
    answer::Info,
    cfg::Cfg,
    check,
    look::RELEASE_MIN,
    runtime::{Client, RuntimeError},
};
use crate::{
    config::Managed,
    process::{self, Identity, Process},
};

/// How long a HAProxy may take until it answers: it reads certificates and maps first.
pub const START_LIMIT: Duration = Duration::from_secs(10);
/// Between two questions whether it answers.
const ASK_AGAIN: Duration = Duration::from_millis(5);
/// Where systemd keeps the processes of system units: cgroup v2, and v1.
const UNIT_ROOTS: [&str; 2] = ["/sys/fs/cgroup/system.slice", "/sys/fs/cgroup/systemd/system.slice"];
/// Of HAProxy's output the last part is read.
const LOG_TAIL_BYTES: usize = 8 << 10;

/// A HAProxy that runs.
#[derive(Debug)]
pub struct Running {
    /// Its stats socket.
    pub client: Client,
    /// The process that a reload goes to; the worker itself when there is no master.
    pub master: Arc<Process>,
    /// The process that serves.
    pub worker: Arc<Process>,
    /// Its version.
    pub release: (u32, u32),
    /// What its configuration says.
    pub cfg: Cfg,
}

impl Running {
    /// Whether a master stands above the worker, which a hitless reload needs.
    pub fn has_master(&self) -> bool {
        self.master.pid() != self.worker.pid()
    }
}

/// What is remembered of a HAProxy that was started.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    master: Identity,
    config: PathBuf,
    binary: PathBuf,
}

/// Where its record and its output are.
fn place(setup: &Setup, ending: &str) -> PathBuf {
    setup.run_dir.join(format!("{}.{ending}", setup.name.replace('/', "-")))
}

/// HAProxy's output.
pub fn log_file(setup: &Setup) -> PathBuf {
    place(setup, "log")
}

/// The name that HAProxy is started with among its peers: the node's, where the configuration leaves the choice and has it.
pub fn peer_name<'a>(setup: &'a Setup, cfg: &Cfg) -> Option<&'a str> {
    (cfg.local_peer.is_none() && cfg.names_peer(&setup.node)).then_some(setup.node.as_str())
}

/// Reads the configuration, and finds the stats socket.
///
/// # Errors
/// In words.
pub fn read(setup: &Setup) -> Result<(Cfg, Client), String> {
    let file = &setup.config;
    let cfg = Cfg::read(file).map_err(|e| format!("HAProxy's configuration {} cannot be read: {e}", file.display()))?;
    let socket = setup.spec.socket.clone().or_else(|| cfg.socket()).ok_or_else(|| {
        format!(
            "{} has no `stats socket` with a plain path in its `global` section; add \
             `stats socket /run/haproxy/admin.sock mode 600 level admin`, or set `socket`",
            file.display()
        )
    })?;
    Ok((cfg, Client::new(&socket)))
}

/// Brings it up, as long as nobody says that it is of no use any more.
///
/// # Errors
/// Why it does not run, in words; HAProxy's own when it refuses its configuration.
pub fn bring_up(setup: &Setup, ending: &dyn Fn() -> bool) -> Result<Running, String> {
    let (cfg, client) = read(setup)?;
    let master = match &setup.spec.managed {
        Managed::Process => match adopt(setup) {
            Some(master) => master,
            None => start(setup, &cfg, &client)?,
        },
        Managed::Systemd(unit) => unit_master(unit, &UNIT_ROOTS.map(PathBuf::from))?,
    };
    let (worker, release) = answering(setup, &client, &master, ending)?;
    let (master, worker) = (Arc::new(master), Arc::new(worker));
    Ok(Running { client, master, worker, release, cfg })
}

/// The HAProxy that an agent before this one started, if it lives still.
fn adopt(setup: &Setup) -> Option<Process> {
    let text = fs::read(place(setup, "json")).ok()?;
    let record: Record = serde_json::from_slice(&text).ok()?;
    let master = Process::find(&record.master).ok()?;
    if record.config == setup.config && record.binary == setup.spec.binary {
        info!(resource = setup.name, pid = master.pid(), "HAProxy runs already, and is adopted");
        return Some(master);
    }
    // It finishes what it has; both may listen meanwhile (SO_REUSEPORT).
    warn!(resource = setup.name, pid = master.pid(), "HAProxy runs with another configuration, and is stopped softly");
    if let Err(error) = master.signal(Signal::USR1) {
        warn!(resource = setup.name, %error, "it cannot be stopped");
    }
    None
}

fn start(setup: &Setup, cfg: &Cfg, client: &Client) -> Result<Process, String> {
    if let Ok(answer) = client.ask("show info") {
        let pid = Info::parse(&answer).pid;
        return Err(format!(
            "a HAProxy that Baton did not start (process {pid}) answers on {}; stop it, or set `managed = \"systemd\"` \
             if a unit runs it",
            client.path().display()
        ));
    }
    let peer = peer_name(setup, cfg);
    check::check(&setup.spec.binary, &setup.config, peer)?;
    let log = log_file(setup);
    let prepared = fs::create_dir_all(&setup.run_dir).and_then(|()| fs::write(&log, ""));
    prepared.map_err(|e| format!("{} cannot be written: {e}", log.display()))?;
    let mut arguments: Vec<&std::ffi::OsStr> = ["-W", "-db", "-f"].map(AsRef::as_ref).to_vec();
    arguments.push(setup.config.as_ref());
    if let Some(peer) = peer {
        arguments.extend(["-L", peer].map(AsRef::<std::ffi::OsStr>::as_ref));
    }
    let binary = &setup.spec.binary;
    let master =
        process::spawn(binary, &arguments, &log).map_err(|e| format!("{} cannot be started: {e}", binary.display()))?;
    if let Err(e) = remember(setup, &master) {
        // One that the next agent could not find would be in its way for ever.
        let stopped = master.signal(Signal::TERM);
        return Err(format!(
            "{} cannot be written: {e} (HAProxy stopped: {})",
            place(setup, "json").display(),
            stopped.is_ok()
        ));
    }
    info!(resource = setup.name, pid = master.pid(), config = %setup.config.display(), "HAProxy is started");
    Ok(master)
}

fn remember(setup: &Setup, master: &Process) -> io::Result<()> {
    let record = Record { master: master.identity()?, config: setup.config.clone(), binary: setup.spec.binary.clone() };
    let (file, new) = (place(setup, "json"), place(setup, "json.new"));
    fs::write(&new, serde_json::to_vec(&record)?)?;
    fs::rename(new, file)
}

/// The process of a unit that systemd started itself.
fn unit_master(unit: &str, roots: &[PathBuf]) -> Result<Process, String> {
    let lists = roots.iter().filter_map(|root| fs::read_to_string(root.join(unit).join("cgroup.procs")).ok());
    let pids: Vec<u32> = lists.flat_map(|l| l.lines().filter_map(|p| p.parse().ok()).collect::<Vec<_>>()).collect();
    let inside = |pid: u32| pids.contains(&pid);
    let processes = pids.iter().filter_map(|pid| Process::open(*pid).ok());
    processes
        .into_iter()
        .find(|p| p.parent().is_ok_and(|parent| !inside(parent)))
        .ok_or_else(|| format!("{unit} does not run; see `systemctl status {unit}`, and enable it"))
}

/// Waits until a worker of the master answers.
fn answering(
    setup: &Setup,
    client: &Client,
    master: &Process,
    ending: &dyn Fn() -> bool,
) -> Result<(Process, (u32, u32)), String> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let why = match ask_worker(client, master) {
            Ok(found) => return Ok(found),
            Err(why) => why,
        };
        if master.ended() {
            let status = master.status().unwrap_or_else(|| "ended".to_owned());
            return Err(format!("HAProxy {status}: {}", check::message(&log_tail(setup), "it says no reason")));
        }
        if Instant::now() > deadline || ending() {
            return Err(format!("HAProxy (process {}) does not serve within {START_LIMIT:?}: {why}", master.pid()));
        }
        std::thread::sleep(ASK_AGAIN);
    }
}

/// Why no worker was found.
#[derive(Debug, thiserror::Error)]
pub enum Asked {
    /// Nobody listens on the stats socket.
    #[error("{0}")]
    Unreachable(String),
    /// Another one answers, or none in time, or one that cannot be used.
    #[error("{0}")]
    Other(String),
}

/// The worker that answers on the stats socket, if it is this master's.
///
/// # Errors
/// [`Asked`].
pub fn ask_worker(client: &Client, master: &Process) -> Result<(Process, (u32, u32)), Asked> {
    let answer = client.ask("show info").map_err(|e| {
        let words = format!("{e}; {}", e.remedy());
        if matches!(e, RuntimeError::Unreachable { .. }) { Asked::Unreachable(words) } else { Asked::Other(words) }
    })?;
    worker_of(&Info::parse(&answer), client, master).map_err(Asked::Other)
}

fn worker_of(info: &Info, client: &Client, master: &Process) -> Result<(Process, (u32, u32)), String> {
    let worker =
        Process::open(info.pid).map_err(|e| format!("HAProxy's worker {} cannot be watched: {e}", info.pid))?;
    if worker.pid() != master.pid() && worker.parent().ok() != Some(master.pid()) {
        return Err(format!(
            "process {} answers on {}, which is no worker of process {}",
            info.pid,
            client.path().display(),
            master.pid()
        ));
    }
    if info.stopping {
        return Err(format!("HAProxy's worker {} is stopping", info.pid));
    }
    let release = info.release().unwrap_or((0, 0));
    if release < RELEASE_MIN {
        return Err(format!("HAProxy is {:?}; {}.{} or later is needed", info.version, RELEASE_MIN.0, RELEASE_MIN.1));
    }
    Ok((worker, release))
}

/// The end of HAProxy's output.
pub fn log_tail(setup: &Setup) -> String {
    let bytes = fs::read(log_file(setup)).unwrap_or_default();
    let start = bytes.len().saturating_sub(LOG_TAIL_BYTES);
    String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).into_owned()
}

/// Empties the output when it has grown large; HAProxy appends to it.
pub fn bound_log(log: &Path, bytes_max: u64) {
    if fs::metadata(log).is_ok_and(|m| m.len() > bytes_max)
        && let Err(error) = fs::OpenOptions::new().write(true).open(log).and_then(|f| f.set_len(0))
    {
        warn!(log = %log.display(), %error, "HAProxy's output cannot be emptied");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_master_of_a_unit_is_the_one_whose_parent_is_outside() {
        let root = tempfile::tempdir().unwrap();
        let unit = root.path().join("haproxy.service");
        fs::create_dir(&unit).unwrap();
        let roots = [root.path().join("nowhere"), root.path().to_owned()];
        assert!(unit_master("haproxy.service", &roots).unwrap_err().contains("does not run"));
        let me = std::process::id();
        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        fs::write(unit.join("cgroup.procs"), format!("{}\n{me}\n", child.id())).unwrap();
        let found = unit_master("haproxy.service", &roots).unwrap().pid();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, me);
    }
}
