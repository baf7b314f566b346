//! The agent: assembles the parts (docs/architecture.md), runs them, and takes them down in order.

mod backend;
mod drains;
mod driver;
mod executor;
mod first_packet;
mod inputs;
mod mail;
pub mod moves;
mod network;
mod only;
mod panics;
mod places;
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
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use tokio::{
    sync::{mpsc, oneshot},
    task::LocalSet,
};
use tracing::{error, info, warn};

use self::{
    backend::Handle,
    drains::Drains,
    driver::{Driver, Ended},
    executor::{Executor, Surroundings},
    inputs::{Input, Request},
    mail::Board,
    moves::Moves,
    network::Network,
    places::Places,
    slots::Slots,
    status::Facts,
    steering::Steering,
};
use crate::{
    api::{control::Control, http::Http},
    backplane::{
        channel::{Channel, ChannelConfig},
        pulse::{self, Pulse, PulseConfig, PulseShared},
        responder::Responder,
    },
    clock,
    cluster::{
        core::{Core, GroupSettings, Mutations, Settings},
        ids::{Incarnation, MILLISECOND, Role, VoterId},
    },
    config::Config,
    kernel::{self, Chain, Kernel, KernelConfig, LinkConfig, LinkHook},
    netlink::watch::Watch,
    quorum::{Quorum, QuorumConfig, incarnation, machine::AppliedEvent},
    realtime,
    resources::Notifier,
    telemetry::{history::History, recorder::Recorder},
};

/// How long an orderly stop may take: releases are two commits each.
const STOP_WITHIN: Duration = Duration::from_secs(3);
/// Requests that may wait until raft is up.
const EARLY_MAX: usize = 64;
/// How long the core thread may take to end after that.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Runs the agent until SIGTERM or SIGINT, or until it cannot go on.
pub fn run(config: Config) -> anyhow::Result<()> {
    let config = Arc::new(config);
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
    let kernel = Arc::new(take_kernel(&config, incarnation, &places, &slots)?);

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
    let parts = Parts { facts, places, kernel, slots, recorder, starts, drains, sender: sender.clone(), inputs };
    let (ended, end) = oneshot::channel();
    let core = spawn_core(parts, ended).context("cannot start the core thread")?;
    let outcome = serve(&config, history, sender, follower, end);
    join(core);
    outcome
}

/// The kernel side: BPF, or memory where that is allowed.
fn take_kernel(config: &Config, incarnation: Incarnation, places: &Places, slots: &Slots) -> anyhow::Result<Kernel> {
    let me = config.me().ok_or_else(|| anyhow!("this machine is not among the voters"))?;
    let links = places.links.iter().zip(&me.links).map(|(device, link)| LinkConfig {
        device: device.clone(),
        hook: match link.hook {
            crate::config::Hook::Auto => LinkHook::Auto,
            crate::config::Hook::Tc => LinkHook::Tc,
            crate::config::Hook::Xdp => LinkHook::Xdp,
        },
    });
    let kernel_config = KernelConfig {
        cluster: config.shared.name.clone(),
        cluster_id: config.cluster_hash(),
        node: config.this.name.to_string(),
        bpffs: config.this.bpffs.clone(),
        me: config.this.id,
        voters: config.shared.voters.keys().copied().collect(),
        key: config.key.beat_key(&config.shared.name),
        port: config.shared.port,
        incarnation,
        lease_ns: config.shared.timing.lease_ns,
        links: links.collect(),
        fronts: places.fronts.clone(),
        others: places.others.clone(),
        vips: stacks::vips(config, slots, &places.fronts),
        chain: Chain::Auto,
    };
    match kernel::attach(&kernel_config) {
        Ok(kernel) => Ok(kernel),
        Err(error) if me.role == Role::Arbiter || config.this.unenforced_lease => {
            warn!(error = %anyhow::Error::new(error), "no BPF: the agent answers heartbeats itself, nothing is enforced");
            Ok(kernel::in_memory(&kernel_config)?)
        }
        Err(error) => Err(anyhow::Error::new(error).context(
            "the gate cannot be enforced without BPF; `unenforced_lease = true` under [this] goes on without it, and \
             then two owners are possible while an agent is stopped",
        )),
    }
}

/// What the core thread gets from the main thread.
struct Parts {
    facts: Facts,
    places: Places,
    kernel: Arc<Kernel>,
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
    let Parts { facts, places, kernel, slots, recorder, starts, drains, sender, mut inputs } = parts;
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
    let surroundings = Surroundings {
        reports: sender.clone(),
        recorder: recorder.clone(),
        board: Arc::clone(&board),
        flows: Box::new({
            let kernel = Arc::clone(&kernel);
            move |slot| kernel.recent_flows(slot, 0)
        }),
        realtime,
    };
    let notifier = Notifier::new({
        let sender = sender.clone();
        // The driver ends before the resources only at a stop.
        move |event| drop(sender.send(Input::Resource(event)))
    });
    let executor = Executor::start(stacks::stacks(&config, gated.as_deref(), &notifier)?, surroundings)?;

    let shared = Arc::new(PulseShared::default());
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
        () = stop_requested(&mut inputs, &mut early) => return Ok(Ended::Stopped),
    };
    for input in early {
        // The receiver is in this very function.
        drop(sender.send(input));
    }
    let quorum = Arc::new(quorum);

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

    let core = Core::new(core_settings(&config, facts.incarnation, timing), clock::now());
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
        links: BTreeMap::new(),
        entries_refused: 0,
        broken: None,
    };
    let ended = driver.run(wake).await;
    // However it ended: without the core nobody would close a gate, and the pulse renews the lease until it is gone.
    kernel.tables().close_gates();
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

fn core_settings(config: &Config, incarnation: Incarnation, timing: crate::cluster::timing::Timing) -> Settings {
    let groups = config.shared.groups.values().map(|g| GroupSettings {
        id: g.id.clone(),
        nodes: g.nodes.clone(),
        prefers: g.prefer.iter().map(|(v, score)| (*v, *score)).collect(),
        stickiness: g.stickiness,
        failback: g.failback,
    });
    Settings {
        me: config.this.id,
        role: config.me().map_or(Role::Arbiter, |me| me.role),
        voters: config.shared.roles(),
        groups: groups.collect(),
        timing,
        incarnation,
        adopted: BTreeMap::new(),
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

/// The main thread's work: control socket, HTTP, signals. Ends with the core.
fn serve(
    config: &Arc<Config>,
    history: History,
    driver: mpsc::UnboundedSender<Input>,
    follower: impl Future<Output = ()> + Send + 'static,
    mut end: oneshot::Receiver<anyhow::Result<Ended>>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let handle = Arc::new(Handle { config: Arc::clone(config), history, driver: driver.clone() });
        tokio::spawn(follower);
        let control = Control::bind(&config.socket())?;
        tokio::spawn(control.serve(Arc::clone(&handle)));
        if let Some(address) = config.this.metrics {
            let http = Http::bind(address).await.with_context(|| format!("cannot listen on {address} for metrics"))?;
            tokio::spawn(async move {
                if let Err(error) = http.serve(handle).await {
                    error!(%error, "the HTTP port failed");
                }
            });
        }
        use tokio::signal::unix::{SignalKind, signal};
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            ended = &mut end => return outcome(ended),
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        let (done, is_done) = oneshot::channel();
        let within = u64::try_from(STOP_WITHIN.as_nanos()).unwrap_or(3_000 * MILLISECOND);
        if driver.send(Input::Request(Request::Stop { done, within })).is_ok() {
            // An error means that the driver has ended: then its end says how.
            drop(tokio::time::timeout(STOP_WITHIN + END_WITHIN, is_done).await);
        }
        match tokio::time::timeout(END_WITHIN, &mut end).await {
            Ok(ended) => outcome(ended),
            Err(_late) => bail!("the core thread did not end in time; the leases run out by themselves"),
        }
    });
    runtime.shutdown_background();
    outcome
}

fn outcome(ended: Result<anyhow::Result<Ended>, oneshot::error::RecvError>) -> anyhow::Result<()> {
    match ended {
        Ok(Ok(Ended::Stopped)) => Ok(()),
        Ok(Ok(Ended::Halted(reason))) => bail!(reason),
        Ok(Err(error)) => Err(error),
        Err(_gone) => bail!("the core thread ended without a word; the lines above say more"),
    }
}

fn join(core: JoinHandle<()>) {
    if core.is_finished() && core.join().is_err() {
        error!("the core thread panicked");
    }
}
