//! The keeper's process: `baton keeper`.

use std::{
    fs,
    io::{self, ErrorKind, Read as _, Write as _},
    os::{
        fd::AsFd as _,
        unix::{
            fs::PermissionsExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use anyhow::{Context as _, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{info, warn};

use super::{BEATING, END, Hello, Last, Orders, READY};
use crate::{
    backplane::pulse::{self, Pulse, PulseConfig, PulseShared},
    clock,
    cluster::ids::{MILLISECOND, Nanos},
    kernel, realtime,
    telemetry::log,
};

/// The longest pause between two looks: the token of progress grows with each.
const LOOK: Nanos = 20 * MILLISECOND;
/// Agents that may be connected at once; more are not heard.
const AGENTS_MAX: usize = 4;
/// No order is longer, in bytes.
const ORDERS_MAX: u64 = 1 << 20;

/// Reads its orders from standard input and beats until its time is over, an agent ends it, or the maps are another's.
///
/// # Errors
/// Orders that cannot be read, maps or sockets that cannot be opened.
pub fn run() -> anyhow::Result<()> {
    log::set_up();
    // The signals of the agent's session are not for it.
    if let Err(error) = rustix::process::setsid() {
        warn!(%error, "the keeper stays in the agent's session");
    }
    let mut input = io::stdin().lock().take(ORDERS_MAX);
    let orders: Orders = serde_json::from_str(&line(&mut input)?).context("the orders cannot be understood")?;
    let hello = Hello { pid: std::process::id(), ..orders.hello.clone() };
    let tables = Arc::new(kernel::pinned(&orders.bpffs, &orders.cluster, &orders.node)?);
    let published = || tables.control().incarnation.load();
    ensure!(published() == hello.incarnation, "the maps are of incarnation {}", published());
    let door = Door::open(&orders.socket)?;
    let config = PulseConfig {
        me: orders.me,
        incarnation: hello.incarnation,
        is_node: orders.is_node,
        digest: orders.digest,
        interval: orders.interval,
        hold: orders.hold,
        sockets: orders.links.iter().map(|link| pulse::bind(*link)).collect::<Result<_, _>>()?,
        peers: orders.peers,
        realtime: orders.realtime,
    };
    if orders.realtime {
        realtime::lock_memory()?;
    }
    say(READY)?;
    let last: Last = serde_json::from_str(&line(&mut input)?).context("the agent did not go")?;

    let shared = Arc::new(PulseShared::default());
    shared.sequence.store(last.sequence, Relaxed);
    shared.token.store(last.token.wrapping_add(1), Relaxed);
    shared.term.store(last.term, Relaxed);
    shared.log_index.store(last.log_index, Relaxed);
    let until = clock::now().saturating_add(orders.within);
    let pulse = Pulse::start(config, Arc::clone(&tables), Arc::clone(&shared))?;
    // The agent may be gone already.
    drop(say(BEATING));
    let mut door = door;
    let why = loop {
        shared.token.fetch_add(1, Relaxed);
        if published() != hello.incarnation {
            break "another incarnation beats";
        }
        let now = clock::now();
        if now >= until {
            break "its time is over and no agent has come up";
        }
        if door.wait(LOOK.min(orders.interval).min(until - now), &hello) {
            break "the agent is back";
        }
    };
    drop(pulse);
    info!(why, "the keeper ends");
    Ok(())
}

fn line(input: &mut impl io::BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    if input.read_line(&mut line).context("standard input cannot be read")? == 0 {
        bail!("the agent has gone");
    }
    Ok(line)
}

fn say(word: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{word}")?;
    out.flush()
}

/// Where the next agent comes in. The socket is removed when dropped.
pub(super) struct Door {
    path: PathBuf,
    listener: UnixListener,
    agents: Vec<UnixStream>,
}

impl Door {
    /// Opens the socket, mode 0600. One that an earlier keeper left is replaced.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let open = || {
            match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = open().with_context(|| format!("cannot listen on {}", path.display()))?;
        Ok(Self { path: path.to_owned(), listener, agents: Vec::new() })
    }

    /// Waits for agents for so long (ns); tells those that come who it is. True once one of them says that it is to end.
    pub(super) fn wait(&mut self, limit: Nanos, hello: &Hello) -> bool {
        let timeout = Timespec { tv_sec: 0, tv_nsec: limit.min(999_999_999) as _ };
        let mut sources: Vec<_> =
            self.agents.iter().map(|agent| PollFd::from_borrowed_fd(agent.as_fd(), PollFlags::IN)).collect();
        sources.push(PollFd::new(&self.listener, PollFlags::IN));
        if poll(&mut sources, Some(&timeout)).is_err() {
            // A signal; or no memory: then it is looked again at once, and the pulse is another thread.
            return false;
        }
        drop(sources);
        if let Ok((mut agent, _)) = self.listener.accept()
            && self.agents.len() < AGENTS_MAX
            && agent.set_nonblocking(true).is_ok()
            && let Ok(mut text) = serde_json::to_vec(hello)
        {
            text.push(b'\n');
            if agent.write_all(&text).is_ok() {
                self.agents.push(agent);
            }
        }
        let mut over = false;
        self.agents.retain_mut(|agent| {
            let mut word = [0; 16];
            match agent.read(&mut word) {
                Ok(0) => false,
                Ok(length) => {
                    over |= word[..length].starts_with(END.as_bytes());
                    true
                }
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            }
        });
        over
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}
