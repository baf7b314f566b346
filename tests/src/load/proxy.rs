//! Debian's HAProxy on every node, bound to the VIPs before the node has them, in front of the load's own server there.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::Pid;

use super::server;
use crate::{
    process::Proc,
    realtime,
    topology::{Lab, Machine, VIP4, VIP6},
    wait,
};

/// The port of the proxies.
pub const PORT: u16 = 80;
const LIMIT: Duration = Duration::from_secs(20);

/// Running proxies; they end when dropped.
#[derive(Debug)]
pub struct Proxies {
    /// One a node; `None` after [`Proxies::kill`].
    processes: Vec<Option<Proc>>,
}

impl Proxies {
    /// Starts a proxy on each node.
    pub fn start(lab: &Lab) -> Result<Self> {
        let processes = lab.nodes.iter().map(|machine| start(lab, machine).map(Some)).collect::<Result<_>>()?;
        Ok(Self { processes })
    }

    /// SIGKILL for the proxy of a node.
    pub fn kill(&mut self, node: usize) -> Result<()> {
        let mut process = self.processes.get_mut(node).and_then(Option::take).context("no proxy runs there")?;
        process.kill()
    }

    /// Starts the proxies that do not run.
    pub fn repair(&mut self, lab: &Lab) -> Result<()> {
        for (process, machine) in self.processes.iter_mut().zip(&lab.nodes) {
            if process.as_mut().is_none_or(|p| !p.is_running()) {
                *process = None;
                *process = Some(start(lab, machine)?);
            }
        }
        Ok(())
    }
}

/// The stats socket of a node's proxy.
pub fn socket(lab: &Lab, machine: &Machine) -> PathBuf {
    lab.home().path().join(format!("haproxy-{}.sock", machine.name))
}

/// The process that serves on a node, as it says itself.
pub fn worker(lab: &Lab, machine: &Machine) -> Result<Pid> {
    let mut stream = UnixStream::connect(socket(lab, machine)).context("HAProxy's stats socket")?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"show info\n")?;
    let mut info = String::new();
    stream.read_to_string(&mut info)?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid: "));
    pid.and_then(|pid| Pid::from_raw(pid.trim().parse().ok()?)).with_context(|| format!("HAProxy tells no pid: {info}"))
}

/// Gives the HAProxies of all nodes the priority of the rest of a load, whoever started them: what is judged is how a group
/// moves, not how a busy machine shares its time.
pub fn favour(lab: &Lab) -> Result<()> {
    for machine in &lab.nodes {
        for pid in machine.ns.processes()? {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if name.trim_end() == "haproxy" {
                // It may have ended meanwhile.
                realtime::favour(pid).ok();
            }
        }
    }
    Ok(())
}

/// The configuration file of a node's proxy.
pub fn file(lab: &Lab, machine: &Machine) -> PathBuf {
    lab.home().path().join(format!("haproxy-{}.conf", machine.name))
}

/// Writes the configuration file of a node's proxy; returns its path.
pub fn configuration(lab: &Lab, machine: &Machine) -> Result<PathBuf> {
    let file = file(lab, machine);
    fs::write(&file, text(&socket(lab, machine)))?;
    Ok(file)
}

/// What of a node's kernel the proxy needs: a standby binds the VIPs that it does not have.
pub fn prepare(machine: &Machine) -> Result<()> {
    machine.ns.sysctl("net/ipv4/ip_nonlocal_bind", "1")?;
    machine.ns.sysctl("net/ipv6/ip_nonlocal_bind", "1")
}

fn start(lab: &Lab, machine: &Machine) -> Result<Proc> {
    prepare(machine)?;
    let file = configuration(lab, machine)?;
    let socket = socket(lab, machine);
    fs::remove_file(&socket).ok();
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&file);
    let mut process = Proc::spawn(lab.home(), &machine.ns, &format!("haproxy-{}", machine.name), command)?;
    wait::until(LIMIT, "HAProxy to be up", || {
        anyhow::ensure!(process.is_running(), "HAProxy ended by itself:\n{}", process.output());
        Ok(socket.exists())
    })?;
    Ok(process)
}

/// `idle-close-on-response`: a proxy that stops softly closes a client's idle connection with an answer, not between two.
/// `close-spread-time`: not all at once; kept connections that idle have closed by themselves before it is over.
fn text(socket: &Path) -> String {
    format!(
        "global\n  maxconn 5000\n  close-spread-time 6s\n  stats socket {} mode 600 level admin\n\
         defaults\n  mode http\n  option idle-close-on-response\n  timeout connect 2s\n  timeout client 2m\n  \
         timeout server 2m\n  timeout http-keep-alive 2s\n  timeout tunnel 1h\n\
         frontend web\n  bind {VIP4}:{PORT}\n  bind [{VIP6}]:{PORT}\n  default_backend here\n\
         backend here\n  server local 127.0.0.1:{}\n",
        socket.display(),
        server::PORT
    )
}
