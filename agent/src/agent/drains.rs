//! Watches the flows that drain on this node after a planned move, on a thread of ordinary priority, and says when they have ended.
//!
//! Over is a drain when no TCP connection to the group's VIPs is left, nothing without a socket here (UDP, NAT, containers) has
//! passed for as long as such a flow is remembered, and no neighbour sends new flows here any more; or when its time is over. Then
//! the connections that are left are reset, so that their clients know at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use baton_ebpf::steering::FLOW_AGE_NS;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{info, warn};

use super::inputs::Input;
use crate::{
    clock,
    cluster::{
        entry::DrainSummary,
        ids::{Epoch, GroupId, MILLISECOND, Nanos},
    },
    kernel::Tables,
    netlink::{NetlinkError, sockets::Sockets},
};

/// How often the flows are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long a drain lasts at least, and how long no new flow must have come here: neighbours learn of the new owner meanwhile.
const QUIET: Nanos = 1_000 * MILLISECOND;
/// How long the resets of connections may take to leave.
const RESETS: Duration = Duration::from_millis(20);
/// The thread's stack: memory may be locked.
const STACK_BYTES: usize = 256 << 10;

/// A drain to watch.
#[derive(Clone, Debug)]
pub struct Drain {
    /// The group.
    pub group: GroupId,
    /// The epoch whose flows drain.
    pub epoch: Epoch,
    /// The group's row in the gate.
    pub slot: u32,
    /// The group's VIPs.
    pub vips: BTreeSet<IpAddr>,
    /// How long it may take, ns.
    pub timeout: Nanos,
}

#[derive(Debug)]
enum Task {
    Begin(Drain),
    End(GroupId),
}

/// The handle of the thread, which ends with it.
#[derive(Clone, Debug)]
pub struct Drains(mpsc::Sender<Task>);

impl Drains {
    /// Starts the thread. To be called from a thread of ordinary priority, in the agent's network namespace.
    ///
    /// # Errors
    /// A thread that cannot be started.
    pub fn start(tables: Arc<Tables>, reports: UnboundedSender<Input>) -> io::Result<Self> {
        let (sender, tasks) = mpsc::channel();
        let thread = std::thread::Builder::new().name("drains".into()).stack_size(STACK_BYTES);
        thread.spawn(move || Watcher { tables, reports, drains: BTreeMap::new() }.run(&tasks))?;
        Ok(Self(sender))
    }

    /// Watches a drain from now on; it takes the place of an earlier one of the group.
    pub fn begin(&self, drain: Drain) {
        // The thread ends only with the last handle.
        self.0.send(Task::Begin(drain)).ok();
    }

    /// The group drains here no more.
    pub fn end(&self, group: GroupId) {
        self.0.send(Task::End(group)).ok();
    }
}

/// A drain under way.
struct Watched {
    drain: Drain,
    since: Nanos,
    /// What was there at the start.
    kept: u64,
    forwarded_before: u64,
    packets_before: u64,
    /// The last time that a new flow was seen to come here, and how many had come by then.
    newcomers: (Nanos, u64),
}

struct Watcher {
    tables: Arc<Tables>,
    reports: UnboundedSender<Input>,
    drains: BTreeMap<GroupId, Watched>,
}

impl Watcher {
    fn run(&mut self, tasks: &Receiver<Task>) {
        let mut sockets = None;
        loop {
            let task = if self.drains.is_empty() {
                tasks.recv().map_err(|_ended| RecvTimeoutError::Disconnected)
            } else {
                tasks.recv_timeout(LOOK)
            };
            match task {
                Ok(Task::Begin(drain)) => self.begin(drain, &mut sockets),
                Ok(Task::End(group)) => drop(self.drains.remove(&group)),
                Err(RecvTimeoutError::Timeout) => self.look(&mut sockets),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn begin(&mut self, drain: Drain, sockets: &mut Option<Sockets>) {
        let counters = self.tables.gate_counters(drain.slot).unwrap_or_default();
        let kept = alive(sockets, &drain.vips).unwrap_or_else(|error| {
            warn!(group = %drain.group, %error, "open connections cannot be counted: the drain lasts for its whole time");
            0
        });
        let now = clock::now();
        let watched = Watched {
            since: now,
            kept: kept as u64,
            forwarded_before: counters.new_steered,
            packets_before: counters.drained,
            newcomers: (now, counters.new_steered),
            drain,
        };
        info!(group = %watched.drain.group, connections = kept, "draining");
        self.drains.insert(watched.drain.group.clone(), watched);
    }

    fn look(&mut self, sockets: &mut Option<Sockets>) {
        let mut over = Vec::new();
        for (group, watched) in &mut self.drains {
            let counters = self.tables.gate_counters(watched.drain.slot).unwrap_or_default();
            let now = clock::now();
            if counters.new_steered != watched.newcomers.1 {
                watched.newcomers = (now, counters.new_steered);
            }
            let late = now >= watched.since.saturating_add(watched.drain.timeout);
            let quiet = now >= watched.newcomers.0 + QUIET
                && (counters.drained_at < watched.since || now >= counters.drained_at + FLOW_AGE_NS);
            if !late && !quiet {
                continue;
            }
            let left = match alive(sockets, &watched.drain.vips) {
                Ok(left) => left,
                Err(error) if late => {
                    warn!(%group, %error, "connections that are left cannot be reset");
                    0
                }
                Err(_) => continue,
            };
            if left > 0 && !late {
                continue;
            }
            let reset = if left > 0 { reset(sockets, watched) } else { 0 };
            over.push((
                group.clone(),
                watched.drain.epoch,
                DrainSummary {
                    kept: watched.kept,
                    reset,
                    forwarded: counters.new_steered.saturating_sub(watched.forwarded_before),
                    packets: counters.drained.saturating_sub(watched.packets_before),
                    lasted_ns: now.saturating_sub(watched.since),
                },
            ));
        }
        for (group, epoch, summary) in over {
            self.drains.remove(&group);
            // The driver ends first only at a stop.
            self.reports.send(Input::Drained(group, epoch, summary)).ok();
        }
    }
}

/// Counts the connections, with a socket that is opened when it is first needed and again after an error.
fn alive(sockets: &mut Option<Sockets>, vips: &BTreeSet<IpAddr>) -> Result<usize, NetlinkError> {
    let mut open = match sockets.take() {
        Some(open) => open,
        None => Sockets::open()?,
    };
    let count = open.alive(vips)?;
    *sockets = Some(open);
    Ok(count)
}

fn reset(sockets: &mut Option<Sockets>, watched: &Watched) -> u64 {
    let Some(open) = sockets else { return 0 };
    match open.reset(&watched.drain.vips) {
        Ok(reset) => {
            warn!(group = %watched.drain.group, connections = reset, "the drain's time is over: connections were reset");
            std::thread::sleep(RESETS);
            reset as u64
        }
        Err(error) => {
            warn!(group = %watched.drain.group, %error, "connections that are left could not be reset");
            0
        }
    }
}
