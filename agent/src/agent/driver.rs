//! The driver: the loop on the core thread that feeds the cluster core with what happens, and carries its commands out.
//!
//! It decides nothing. Inputs are applied entries, messages of other cores, reports of the executor, changes of front links, requests
//! of operators, the pulse's wake-ups and the core's own deadline; after each the core is stepped until it is content.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use tokio::{io::unix::AsyncFd, sync::mpsc};
use tracing::{debug, error, info, warn};

use super::{
    drains::Drains,
    executor::{Executor, Job, Report},
    first_packet::Started,
    inputs::{Input, Request},
    mail::{Board, Mail},
    moves::Moves,
    network::Network,
    slots::Slots,
    steering::Steering,
    timer::{self, Timer},
};
use crate::{
    backplane::{channel::Channel, pulse::PulseShared},
    clock,
    cluster::{
        command::{Command, Fact},
        core::Core,
        entry::{Entry, Switch},
        ids::{GroupId, Nanos, VoterId},
        state::State,
        timing::Timing,
    },
    keeper::{Held, Left},
    kernel::Kernel,
    netlink::watch::Event,
    quorum::Quorum,
    resources::{ResourceEvent, What},
    telemetry::{mark::Mark, recorder::Recorder, run::GroupRun},
};

mod mending;
mod moving;
mod restarting;
mod switching;
mod world;

pub use mending::{Answer, Mendings};

/// The core is stepped at most this often after one input; more would mean that it argues with itself.
const STEPS_MAX: usize = 64;
/// How many inputs are taken before the core is stepped again.
const INPUTS_MAX: usize = 64;

/// All that the driver drives.
pub struct Driver {
    pub(super) core: Core,
    pub(super) me: VoterId,
    pub(super) timing: Timing,
    pub(super) kernel: Arc<Kernel>,
    pub(super) pulse: Arc<PulseShared>,
    pub(super) quorum: Arc<Quorum<State>>,
    pub(super) channel: Arc<Channel>,
    pub(super) executor: Executor,
    pub(super) recorder: Recorder,
    pub(super) slots: Slots,
    pub(super) starts: mpsc::UnboundedSender<Started>,
    pub(super) network: Network,
    pub(super) steering: Steering,
    /// The peers to which packets can be steered, as bits.
    pub(super) steers: u16,
    pub(super) drains: Drains,
    pub(super) board: Arc<Board>,
    pub(super) moves: Moves,
    pub(super) facts: super::status::Facts,
    pub(super) sender: mpsc::UnboundedSender<Input>,
    pub(super) inputs: mpsc::UnboundedReceiver<Input>,
    pub(super) stopping: Option<Stopping>,
    /// The keeper that beats for this machine until the own barrier is reflected by the gates.
    pub(super) held: Option<Held>,
    /// The keeper that takes over when this agent restarts.
    pub(super) leaving: Option<Left>,
    /// On which links the heartbeats of each voter arrive, as the channel was last told.
    pub(super) links: BTreeMap<(VoterId, usize), bool>,
    /// What operators have switched on, as the executor was last told.
    pub(super) switches: BTreeSet<Switch>,
    /// How the groups run here, as the executor last reported.
    pub(super) runs: BTreeMap<GroupId, GroupRun>,
    /// What was asked of the nodes of a group, and is not answered yet.
    pub(super) mendings: Mendings,
    /// Entries that their compare-and-set refused.
    pub(super) entries_refused: u64,
    /// Why the agent cannot go on, once it cannot.
    pub(super) broken: Option<String>,
}

/// An orderly stop under way.
pub(super) struct Stopping {
    done: tokio::sync::oneshot::Sender<()>,
    deadline: Nanos,
}

/// How the driver ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// An orderly stop: everything was given up first, or its time was over.
    Stopped,
    /// For a restart: the gates stay as they are.
    Restarting,
    /// The core cannot go on; the text says what happened and what to do.
    Halted(String),
}

impl Driver {
    /// Runs until an orderly stop, or until the core cannot go on. `wake` is the pulse's event.
    pub async fn run(&mut self, wake: AsyncFd<OwnedFd>) -> io::Result<Ended> {
        let timer = Timer::new()?;
        loop {
            self.pulse.token.fetch_add(1, Relaxed);
            self.follow_links();
            self.steers = self.steering.follow(&self.kernel.tables(), &self.pulse);
            if let Some(halt) = self.settle() {
                return Ok(Ended::Halted(halt));
            }
            if let Some(device) = self.network.ungated() {
                self.broken = Some(format!(
                    "front device {device} was made again, and the gate is not on it: start the agent again (systemd does) to put \
                     it there"
                ));
            }
            if let Some(why) = self.broken.take() {
                return Ok(Ended::Halted(why));
            }
            if self.stopped() {
                return Ok(Ended::Stopped);
            }
            if self.leaving.is_some() && self.core.may_restart() {
                return Ok(Ended::Restarting);
            }
            self.follow_switches();
            self.end_mendings(clock::now());
            timer.arm(Some(self.deadline()))?;
            tokio::select! {
                biased;
                fired = timer.fired() => fired?,
                woken = timer::drain(&wake) => woken?,
                input = self.inputs.recv() => {
                    let Some(input) = input else { return Ok(Ended::Stopped) };
                    self.take(input);
                    for _ in 1..INPUTS_MAX {
                        let Ok(more) = self.inputs.try_recv() else { break };
                        self.take(more);
                    }
                }
            }
        }
    }

    /// Tells the channel which links the heartbeats find dead, or alive again.
    fn follow_links(&mut self) {
        for peer in &self.facts.peers {
            for link in 0..self.facts.backplane.len() {
                let alive = self.pulse.hears(*peer, link);
                if self.links.insert((*peer, link), alive).is_some_and(|was| was != alive) {
                    self.channel.heartbeats(*peer, link, alive);
                }
            }
        }
    }

    /// The next instant at which something is due: the core's deadline, or the token of progress.
    fn deadline(&self) -> Nanos {
        let token = clock::now() + self.timing.wedge_ns / 4;
        let stop = self.stopping.as_ref().map_or(token, |s| s.deadline);
        let due = self.core.next_deadline().into_iter().chain(self.mendings.deadline());
        due.fold(token.min(stop), Nanos::min)
    }

    fn stopped(&mut self) -> bool {
        let Some(stopping) = &self.stopping else { return false };
        let late = clock::now() >= stopping.deadline;
        if !late && !self.core.is_drained() {
            return false;
        }
        if late {
            warn!("not all groups could be given up in time; their leases run out with this agent");
        }
        if let Some(stopping) = self.stopping.take() {
            // The receiver may be gone: it only waits out of courtesy.
            stopping.done.send(()).ok();
        }
        true
    }

    fn take(&mut self, input: Input) {
        let now = clock::now();
        match input {
            Input::Applied { index, entry } => self.core.on_applied(now, index, entry.as_ref()),
            Input::Restored(state) => self.core.restore(now, state),
            Input::Mail(from, mail) => self.receive_mail(now, from, mail),
            Input::ProposalFailed(entry) => self.core.on_proposal_failed(now, &entry),
            // Whoever asked may have stopped waiting, and goes on with what it has.
            Input::Release(entry, reply) => drop(reply.send(self.core.complete(now, entry))),
            Input::Raft => {}
            Input::RaftEnded => {
                let why = self.quorum.failure().unwrap_or_default();
                self.broken = Some(format!("the replicated log has stopped: {why}"));
            }
            Input::Executor(report) => self.executor_says(now, report),
            Input::Drained(group, epoch, summary) => {
                info!(%group, epoch, ?summary, "the flows that drained here have ended");
                self.core.on_drained(now, &group, epoch, summary);
            }
            Input::Network(event) => {
                self.steering.note(&event);
                for (device, up) in self.network.note(&event) {
                    info!(device, up, "front link changed");
                }
                // Addresses that appear are no news to the resources, and a thousand VIPs would flood them.
                if !matches!(event, Event::Address(_)) {
                    self.executor.send(Job::Network(event));
                }
            }
            Input::Resource(event) => self.resource_says(now, event),
            Input::KeeperGone => self.begin_anew(now),
            Input::Request(request) => self.answer(now, request),
        }
    }

    fn executor_says(&mut self, now: Nanos, report: Report) {
        match report {
            Report::Started(group, epoch) => {
                self.core.on_started(now, &group, epoch);
                if let Some(slot) = self.slots.of(&group) {
                    // Nobody follows the starts any more when the process is about to end.
                    self.starts.send(Started { group, slot, epoch }).ok();
                }
            }
            Report::Stopped(group, epoch) => self.core.on_stopped(now, &group, epoch),
            Report::Received(group, movement) => self.core.on_received(now, &group, movement),
            Report::ReceiveFailed(group, movement, reason) => {
                error!(%group, movement, %reason, "the group cannot be moved here");
                self.core.on_receive_failed(now, &group, movement, reason);
            }
            Report::Mail(to, mail) => self.send(to, &mail),
            Report::Readiness(group, unready) => {
                if let Some(why) = &unready {
                    warn!(%group, why, "the group could not be taken over here");
                }
                self.core.on_readiness(now, &group, unready);
            }
            Report::Failed(group, epoch, reason) => {
                error!(%group, epoch, reason, "the group has failed here and is given up");
                self.core.on_start_failed(now, &group, epoch);
            }
            Report::Run(group, run) => {
                if let Some(why) = run
                    .blocked
                    .as_ref()
                    .filter(|why| self.runs.get(&group).and_then(|known| known.blocked.as_ref()) != Some(*why))
                {
                    error!(%group, why, "the group is blocked: it stays here until it can be stopped");
                }
                self.runs.insert(group, run);
            }
            Report::StartFailed(group, epoch, reason) => {
                error!(%group, epoch, reason, "the group could not be started here");
                self.core.on_start_failed(now, &group, epoch);
            }
        }
    }

    /// A resource reports by itself. One that died and is not mended in place costs its owner the group, at once.
    fn resource_says(&mut self, now: Nanos, event: ResourceEvent) {
        let ResourceEvent { group, resource, what } = event;
        match what {
            What::Died { status, release } => {
                error!(%group, resource, status, release, "a resource died");
                self.executor.send(Job::Died(group.clone(), resource.clone(), status.clone()));
                // In maintenance a failure is reported, and no more.
                let release = release && !self.in_maintenance(&group);
                let state = self.core.state().groups.get(&group);
                if let Some(epoch) = state.filter(|g| release && g.owner == Some(self.me)).map(|g| g.epoch) {
                    let reason = format!("{resource}: {status}");
                    self.recorder.mark(now, Mark::ResourceFailed { group: group.clone(), epoch, reason });
                    self.core.on_start_failed(now, &group, epoch);
                }
            }
            What::Restarted => info!(%group, resource, "it runs again"),
            What::Ill(why) => warn!(%group, resource, why, "it is ill"),
            What::Well => info!(%group, resource, "it is well again"),
        }
        // Whether the group could be taken over may have changed.
        self.executor.send(Job::Look);
    }

    fn answer(&mut self, now: Nanos, request: Request) {
        match request {
            Request::Order(order, reply) => drop(reply.send(self.core.on_order(now, order))),
            Request::Plan(order, reply) => drop(reply.send(self.plan(now, &order))),
            Request::Mend(mend, reply) => self.begin_mending(now, &mend, reply),
            Request::Status(reply) => drop(reply.send(self.status(now))),
            Request::Metrics(reply) => drop(reply.send(self.metrics(now))),
            Request::MayRestart(reply) => drop(reply.send(self.may_restart())),
            Request::Restart(left) => {
                info!("restarting: giving up the leadership alone");
                self.core.begin_restart(now);
                self.leaving = Some(left);
            }
            Request::Stop { done, within } => {
                info!("stopping: giving up what this node owns");
                self.core.begin_shutdown(now);
                self.stopping = Some(Stopping { done, deadline: now.saturating_add(within) });
            }
        }
    }

    /// Steps the core until it asks for nothing more. Returns why it cannot go on, if so.
    fn settle(&mut self) -> Option<String> {
        for _ in 0..STEPS_MAX {
            let view = self.view();
            let commands = self.core.step(clock::now(), &view);
            // In a beat a voter's bit is its number less one.
            self.pulse.silent.store(u32::from(self.core.silent() >> 1), Relaxed);
            if commands.is_empty() {
                return None;
            }
            for command in commands {
                if let Some(halt) = self.carry_out(command) {
                    return Some(halt);
                }
            }
        }
        warn!(steps = STEPS_MAX, "the core is still not content; it goes on at its next deadline");
        None
    }

    fn carry_out(&mut self, command: Command) -> Option<String> {
        match command {
            Command::SetFloor { peer, floor } => self.kernel.tables().set_floor(peer, floor),
            Command::SetGate { group, epoch, role } => {
                let Some(slot) = self.slots.of(&group) else {
                    debug!(%group, "the log names a group that the configuration here does not");
                    return None;
                };
                if !self.kernel.tables().set_gate(slot, epoch, role) {
                    // The configuration allows no more groups than there are rows: a gate that cannot be moved is no gate.
                    return Some(format!("group {group} has no row in the gate (row {slot})"));
                }
                self.gate_is_set(group, epoch, role, slot);
            }
            Command::SetGateIndex(index) => {
                self.kernel.tables().set_gate_index(index);
                self.take_over();
            }
            Command::Start { group, epoch, cause } => {
                info!(%group, epoch, ?cause, "starting");
                let drain = self.core.state().groups.get(&group).and_then(|g| g.drain);
                self.drains.end(group.clone());
                self.executor.send(Job::Start { group, epoch, after_flows: drain.is_some() });
            }
            Command::Stop { group, epoch } => {
                info!(%group, epoch, "stopping");
                self.drains.end(group.clone());
                self.executor.send(Job::Stop(group, epoch));
            }
            Command::Receive { group, movement } => self.executor.send(Job::Receive(group, movement)),
            Command::Export { group, movement, to } => self.executor.send(Job::Export(group, movement, to)),
            Command::Drain { group, epoch } => self.drain(group, epoch),
            Command::Announce { group } => self.executor.send(Job::Announce(group)),
            Command::Send { to, message } => self.send(to, &Mail::Core(message)),
            Command::Propose(entry) => self.propose(entry),
            Command::Elect => self.elect(),
            Command::Resume => self.quorum.resume(),
            Command::StepAside { to } => {
                info!(%to, "stepping aside as raft leader");
                self.quorum.step_aside();
            }
            Command::Record(fact) => self.record(fact),
            Command::Halt(reason) => return Some(reason),
        }
        None
    }

    fn record(&mut self, fact: Fact) {
        let now = clock::now();
        if let Fact::Silent(node) = fact {
            let seen = self.kernel.tables().peer_view(node).last_seen;
            self.recorder.mark(seen, Mark::LastBeat { node });
        }
        if let Fact::Refused(entry) = fact {
            self.entries_refused += 1;
            debug!(entry, "an entry was refused by its compare-and-set");
        }
        if let Fact::Switched(what, on) = &fact {
            info!(?what, on, "an operator has switched");
        }
        self.moves.fact(now, &fact, self.core.state());
        self.recorder.fact(now, fact);
    }

    fn send(&self, to: VoterId, mail: &Mail) {
        match serde_json::to_vec(mail) {
            // A message may be lost: the core repeats what matters.
            Ok(bytes) => drop(self.channel.send(to, &bytes)),
            Err(error) => error!(%error, "a message could not be encoded"),
        }
    }

    fn elect(&self) {
        let quorum = Arc::clone(&self.quorum);
        tokio::task::spawn_local(async move {
            if let Err(error) = quorum.elect().await {
                debug!(%error, "not elected");
            }
        });
    }

    fn propose(&self, entry: Entry) {
        let (quorum, sender) = (Arc::clone(&self.quorum), self.sender.clone());
        tokio::task::spawn_local(async move {
            match quorum.propose(entry.clone()).await {
                Ok(_) => {}
                Err(error) => {
                    debug!(%error, ?entry, "proposal failed");
                    // The driver ends before its tasks only at a stop.
                    drop(sender.send(Input::ProposalFailed(entry)));
                }
            }
        });
    }
}
