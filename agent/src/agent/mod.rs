//! The agent: assembles the parts (docs/architecture.md), runs them, and takes them down in order.

mod backend;
mod drains;
mod driver;
mod executor;
mod first_packet;
mod inputs;
mod kernel_side;
mod mail;
mod moves;
mod network;
mod only;
mod panics;
mod places;
pub mod restart;
mod serve;
mod slots;
mod stacks;
mod status;
mod steering;
#[cfg(test)]
mod tests;
mod timer;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use tokio::{
    sync::{mpsc, oneshot},
    task::LocalSet,
};
use tracing::{error, info, warn};

use self::{
    drains::Drains,
    driver::{Driver, Ended},
    executor::{Executor, Surroundings},
    inputs::{Input, Request},
    mail::Board,
    moves::Moves,
    network::Network,
    places::Places,
    restart::{Program, Restarter},
    serve::Next,
    slots::Slots,
    status::Facts,
    steering::Steering,
};
use crate::{
    backplane::{
        channel::{Channel, ChannelConfig},
        pulse::{self, Pulse, PulseConfig, PulseShared},
        responder::Responder,
    },
    clock,
    cluster::{
        command::GateRole,
        core::{Core, FAILURE_EXPIRES, GroupSettings, Mutations, Settings},
        ids::{Epoch, GroupId, Incarnation, Role, VoterId},
    },
    config::Config,
    keeper::{Held, Last},
    kernel::Kernel,
    netlink::watch::Watch,
    quorum::{Quorum, QuorumConfig, incarnation, machine::AppliedEvent},
    realtime,
    resources::Notifier,
    telemetry::{history::History, recorder::Recorder},
};

/// Requests that may wait until raft is up.
const EARLY_MAX: usize = 64;

/// Runs the agent until SIGTERM or SIGINT, or until it cannot go on.
pub fn run(config: Config) -> anyhow::Result<()> {
    let config = Arc::new(config);
    let program = Program::of_this_process()?;
    if config.this.realtime {
        realtime::lock_memory()?;
    }
    panics::end_the_process();
    // Before anything in the kernel is touched: a second agent would close the gates of the one that runs.
    let _only = only::take(&config.this.data_dir)?;
    let incarnation = incarnation::advance(&config.this.data_dir)?;
    info!(node = %config.this.name, id = %config.this.id, incarnation, "starting");
    let places = Places::find(&config)?;
    places.set_sysctls(&config);
    let slots = Slots::new(config.shared.groups.keys());
    let (kernel, held) = kernel_side::take(&config, incarnation, &places, &slots)?;
    let kernel = Arc::new(kernel);
    let orders = restart::orders(&config, incarnation, &slots).context("this machine is not among the voters")?;

    let history = History::open(&config.this.data_dir).context("cannot open the failover records in data_dir")?;
    let names = config.shared.voters.values().map(|v| (v.id, Arc::clone(&v.name))).collect();
    let recorder = Recorder::start(config.this.id, names, history.clone()).context("cannot start the recorder")?;

    let (sender, inputs) = mpsc::unbounded_channel();
    let facts = Facts {
        peers: config.shared.voters.keys().copied().filter(|v| *v != config.this.id).collect(),
        incarnation,
        started: clock::now(),
        backplane: places.links.iter().map(|d| d.name.clone()).collect(),
        config: Arc::clone(&config),
    };
    let (starts, started) = mpsc::unbounded_channel();
    let follower = first_packet::follow(Arc::clone(&kernel), recorder.clone(), started);
    let drains =
        Drains::start(kernel.tables(), sender.clone()).context("cannot start the thread that watches drains")?;
    let parts = Parts { facts, places, kernel, held, slots, recorder, starts, drains, sender: sender.clone(), inputs };
    let (ended, end) = oneshot::channel();
    let core = spawn_core(parts, ended).context("cannot start the core thread")?;
    let restarter = Restarter { program, orders };
    let outcome = serve::serve(&config, history, sender, follower, end, &restarter);
    join(core);
    match outcome? {
        Next::Restart => Err(restarter.program.execute()),
        Next::End => Ok(()),
    }
}

/// What the core thread gets from the main thread.
struct Parts {
    facts: Facts,
    places: Places,
    kernel: Arc<Kernel>,
    /// The keeper of the agent before, whose gates are kept.
    held: Option<Held>,
    slots: Slots,
    recorder: Recorder,
    starts: mpsc::UnboundedSender<first_packet::Started>,
    drains: Drains,
    sender: mpsc::UnboundedSender<Input>,
    inputs: mpsc::UnboundedReceiver<Input>,
}

/// Starts the core thread: one tokio runtime of its own, with realtime priority.
fn spawn_core(parts: Parts, ended: oneshot::Sender<anyhow::Result<Ended>>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("core".into()).spawn(move || {
        let realtime = parts.facts.config.this.realtime;
        let outcome = (|| {
            if realtime {
                realtime::become_fifo(realtime::CORE_PRIORITY)?;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let outcome = LocalSet::new().block_on(&runtime, run_core(parts));
            // A snapshot that is being written must not hold up the end.
            runtime.shutdown_background();
            outcome
        })();
        // The main thread waits for this, or has ended.
        drop(ended.send(outcome));
    })
}

/// The core thread's work: heartbeats first, then the channel, raft, and the driver.
async fn run_core(parts: Parts) -> anyhow::Result<Ended> {
    let Parts { facts, places, kernel, held, slots, recorder, starts, drains, sender, mut inputs } = parts;
    let config = Arc::clone(&facts.config);
    let (me, timing, realtime) = (config.this.id, config.shared.timing, config.this.realtime);
    let mine = config.me().ok_or_else(|| anyhow!("this machine is not among the voters"))?;
    let locals: Vec<IpAddr> = mine.links.iter().map(|l| l.address).collect();
    let peers: Vec<(VoterId, Vec<IpAddr>)> = config
        .shared
        .voters
        .values()
        .filter(|v| v.id != me)
        .map(|v| (v.id, v.links.iter().map(|l| l.address).collect()))
        .collect();

    let watch = Watch::open()?;
    let addresses: Vec<IpAddr> = config.shared.groups.values().flat_map(|g| g.vips.iter().map(|v| v.address)).collect();
    let gated = kernel.gated();
    let network = Network::new(&mine.front, &addresses, gated.as_deref().unwrap_or_default(), &watch);
    let steering = Steering::find(&config, &places)?;
    let board = Arc::new(Board::default());
    let adopted = if held.is_some() { set_gates(&kernel, &slots) } else { BTreeMap::new() };
    let surroundings = Surroundings {
        adopted: adopted.keys().cloned().collect(),
        reports: sender.clone(),
        recorder: recorder.clone(),
        board: Arc::clone(&board),
        flows: Box::new({
            let kernel = Arc::clone(&kernel);
            move |slot| kernel.recent_flows(slot, 0)
        }),
        starts_at_once: config.this.starts_at_once,
        realtime,
    };
    let notifier = Notifier::new({
        let sender = sender.clone();
        // The driver ends before the resources only at a stop.
        move |event| drop(sender.send(Input::Resource(event)))
    });
    let stacks = stacks::stacks(&config, gated.as_deref(), &notifier, kernel.exits().as_ref())?;
    let executor = Executor::start(stacks, surroundings)?;

    let shared = Arc::new(PulseShared::default());
    shared.quiet.store(held.is_some(), Relaxed);
    if let Some(held) = &held {
        let sender = sender.clone();
        held.watch(move || drop(sender.send(Input::KeeperGone)))?;
    }
    let port = config.shared.port;
    let sockets = locals.iter().map(|ip| pulse::bind(SocketAddr::new(*ip, port))).collect::<Result<Vec<_>, _>>()?;
    let _responder = if kernel.enforced() {
        None
    } else {
        let numbered: Vec<_> = sockets.iter().enumerate().collect();
        Some(Responder::start(kernel.tables(), &numbered, realtime.then_some(realtime::RESPONDER_PRIORITY))?)
    };
    let pulse_config = PulseConfig {
        me,
        incarnation: facts.incarnation,
        is_node: mine.role == Role::Node,
        digest: config.digest as u32,
        interval: timing.interval_ns,
        hold: timing.hold_ns(),
        sockets,
        peers: peers.iter().map(|(v, ips)| (*v, ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect())).collect(),
        realtime,
    };
    let pulse = Pulse::start(pulse_config, kernel.tables(), Arc::clone(&shared))?;
    let wake: OwnedFd = pulse.wake_fd().try_clone_to_owned()?;
    let wake = timer::readable(wake)?;

    let (channel, mut messages) = Channel::start(ChannelConfig {
        me,
        cluster: config.shared.name.clone(),
        key: config.key.channel_psk(&config.shared.name).to_vec(),
        incarnation: facts.incarnation,
        links: locals,
        port,
        peers,
    })?;
    let quorum_config = QuorumConfig {
        data_dir: config.this.data_dir.clone(),
        cluster: config.shared.name.clone(),
        me,
        voters: config.shared.voters.keys().copied().collect(),
        lease_ns: timing.lease_ns,
        snapshot_entries: None,
        on_log_thread: Some(Box::new(move || {
            if realtime && let Err(error) = realtime::become_fifo(realtime::WORKER_PRIORITY) {
                warn!(%error, "the log is written without realtime priority");
            }
        })),
    };
    info!("looking for the other voters");
    let started = Quorum::start(quorum_config, Arc::clone(&channel));
    let mut early = Vec::new();
    let (quorum, mut applied) = tokio::select! {
        started = started => started?,
        () = stop_requested(&mut inputs, &mut early) => {
            kernel.tables().close_gates();
            if let Some(held) = held {
                held.end();
            }
            return Ok(Ended::Stopped);
        }
    };
    for input in early {
        // The receiver is in this very function.
        drop(sender.send(input));
    }
    let quorum = Arc::new(quorum);
    quorum.complete_with(inputs::completing(sender.clone()));

    tokio::task::spawn_local({
        let sender = sender.clone();
        async move {
            while let Some(event) = applied.recv().await {
                let input = match event {
                    AppliedEvent::Entry { index, entry, .. } => Input::Applied { index, entry },
                    AppliedEvent::Restored { state, .. } => Input::Restored(state),
                };
                if sender.send(input).is_err() {
                    return;
                }
            }
            drop(sender.send(Input::RaftEnded));
        }
    });
    tokio::task::spawn_local({
        let sender = sender.clone();
        async move {
            while let Some((from, bytes)) = messages.recv().await {
                match serde_json::from_slice(&bytes) {
                    Ok(mail) => drop(sender.send(Input::Mail(from, mail))),
                    Err(error) => {
                        warn!(%from, %error, "a message could not be read; is another version running there?")
                    }
                }
            }
        }
    });
    tokio::task::spawn_local({
        let (sender, mut changes) = (sender.clone(), quorum.changes());
        async move { while changes.changed().await.is_ok() && sender.send(Input::Raft).is_ok() {} }
    });
    tokio::task::spawn_local(watch_network(watch, sender.clone()));

    let core = Core::new(core_settings(&config, facts.incarnation, adopted), clock::now());
    let mut driver = Driver {
        core,
        me,
        timing,
        kernel: Arc::clone(&kernel),
        pulse: shared,
        quorum,
        channel,
        executor,
        recorder,
        slots,
        starts,
        network,
        steering,
        steers: 0,
        drains,
        board,
        moves: Moves::default(),
        facts,
        sender,
        inputs,
        stopping: None,
        held,
        leaving: None,
        links: BTreeMap::new(),
        switches: std::collections::BTreeSet::new(),
        runs: BTreeMap::new(),
        mendings: driver::Mendings::default(),
        entries_refused: 0,
        broken: None,
    };
    let ended = driver.run(wake).await;
    if matches!(ended, Ok(Ended::Restarting)) {
        leave(driver, pulse);
        return Ok(Ended::Restarting);
    }
    // However it ended: without the core nobody would close a gate, and the pulse renews the lease until it is gone.
    kernel.tables().close_gates();
    if let Some(held) = driver.held.take() {
        held.end();
    }
    if matches!(ended, Ok(Ended::Stopped)) {
        // The heartbeats end last: until here this voter goes on acknowledging and being seen.
        drop(driver);
        drop(pulse);
    } else {
        // The process is about to end, and must not wait for a disk or a resource that does not answer.
        drop(pulse);
        std::mem::forget(driver);
    }
    Ok(ended?)
}

/// The heartbeats go over to the keeper, and only then this agent's threads end: the gates stay as they are.
fn leave(mut driver: Driver, pulse: Pulse) {
    let (said, left) = (Arc::clone(&driver.pulse), driver.leaving.take());
    drop(pulse);
    let last = Last {
        sequence: said.sequence.load(Relaxed),
        token: said.token.load(Relaxed),
        term: said.term.load(Relaxed),
        log_index: said.log_index.load(Relaxed),
    };
    if let Some(left) = left
        && let Err(error) = left.go(&last)
    {
        error!(error = %anyhow::Error::new(error), "nobody beats for this machine while its agent restarts; its lease runs out");
    }
    drop(driver);
}

/// What the gates do, by group.
fn set_gates(kernel: &Kernel, slots: &Slots) -> BTreeMap<GroupId, (Epoch, GateRole)> {
    let tables = kernel.tables();
    let gates = slots.groups().into_iter().filter_map(|group| {
        let gate = tables.gate_state(slots.of(&group)?);
        Some((group, gate))
    });
    gates.filter(|(_, (_, role))| *role != GateRole::Closed).collect()
}

fn core_settings(config: &Config, incarnation: Incarnation, adopted: BTreeMap<GroupId, (Epoch, GateRole)>) -> Settings {
    let groups = config.shared.groups.values().map(|g| GroupSettings {
        id: g.id.clone(),
        nodes: g.nodes.clone(),
        prefers: g.prefer.iter().map(|(v, score)| (*v, *score)).collect(),
        stickiness: g.stickiness,
        failback: g.failback,
        stops_first: g.stop_limit(),
        constraints: g.constraints.clone(),
        refused_for: if g.resources.is_empty() { FAILURE_EXPIRES } else { g.failure_timeout_ns },
    });
    let rooms = config.shared.voters.values().filter_map(|v| Some((v.id, v.capacity?.room())));
    Settings {
        me: config.this.id,
        role: config.me().map_or(Role::Arbiter, |me| me.role),
        voters: config.shared.roles(),
        groups: groups.collect(),
        rooms: rooms.collect(),
        timing: config.shared.timing,
        incarnation,
        adopted,
        mutations: Mutations::default(),
    }
}

/// Hands the network's changes to the driver; a watch that breaks is told of, and tried again.
async fn watch_network(mut watch: Watch, sender: mpsc::UnboundedSender<Input>) {
    loop {
        match watch.next().await {
            Ok(event) => {
                if sender.send(Input::Network(event)).is_err() {
                    return;
                }
            }
            Err(error) => {
                error!(%error, "the network watch failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Waits for the order to stop while raft is not up yet; nothing is owned then. What else is asked meanwhile is kept for the driver,
/// up to a bound.
async fn stop_requested(inputs: &mut mpsc::UnboundedReceiver<Input>, early: &mut Vec<Input>) {
    while let Some(input) = inputs.recv().await {
        if let Input::Request(Request::Stop { done, .. }) = input {
            // Whoever asked may have gone.
            done.send(()).ok();
            return;
        }
        if early.len() < EARLY_MAX {
            early.push(input);
        }
    }
}

fn join(core: JoinHandle<()>) {
    if core.is_finished() && core.join().is_err() {
        error!("the core thread panicked");
    }
}
