//! The quorum: openraft over the backplane, with a durable log and snapshots, around the cluster's replicated state.

mod error;
mod first;
pub mod incarnation;
pub mod log;
pub mod machine;
mod network;
mod service;
mod settings;
pub mod snapshot;
pub mod types;
mod wire;

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock, PoisonError},
    time::Duration,
};

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::{sync::watch, task::AbortHandle, time::timeout};

pub use self::{
    error::{ElectError, ProposeError, QuorumError},
    service::Complete,
};
use self::{
    log::{Log, LogConfig, LogError, SEGMENT_BYTES},
    machine::{AppliedEvents, Machine, Replicated, Shared},
    network::Network,
    service::Service,
    types::{Applied, Raft, node_id, voter_id},
    wire::{Proposed, WouldVote, method},
};
use crate::{
    backplane::channel::{Channel, RpcError},
    cluster::{
        entry::Entry,
        ids::{Index, Nanos, VoterId},
        timing::majority,
        view::RaftView,
    },
};

/// How long a proposal may take before its fate counts as unknown.
const PROPOSE_DEADLINE: Duration = Duration::from_secs(1);
/// How long a voter may take to say whether it would vote.
const WOULD_VOTE_DEADLINE: Duration = Duration::from_millis(100);
/// Bytes of an encoded entry, at most; well below a segment of the log.
const ENTRY_BYTES_MAX: usize = 256 << 10;

/// What a quorum needs to know.
pub struct QuorumConfig {
    /// The folder for log and snapshot; made when missing.
    pub data_dir: PathBuf,
    /// The cluster's name.
    pub cluster: String,
    /// This voter.
    pub me: VoterId,
    /// All voters, this one included.
    pub voters: Vec<VoterId>,
    /// The cluster's lease; raft's own leader lease is not longer.
    pub lease_ns: Nanos,
    /// Entries after which a snapshot is taken; `None` for the usual number.
    pub snapshot_entries: Option<u64>,
    /// Runs first on the log's thread, to set its scheduling; see [`LogConfig::on_thread`].
    pub on_log_thread: Option<Box<dyn FnOnce() + Send>>,
}

/// The running quorum.
pub struct Quorum<M> {
    me: VoterId,
    voters: Vec<VoterId>,
    raft: Raft,
    service: Arc<Service<M>>,
    channel: Arc<Channel>,
    log: Log,
    view: Shared<M>,
    changes: watch::Receiver<RaftView>,
    watcher: AbortHandle,
}

impl<M: Replicated> Quorum<M> {
    /// Opens the log, finds out on a first start whether this voter may take part, and starts raft.
    ///
    /// On a first start this waits until enough other voters have answered; drop the future to give up.
    pub async fn start(config: QuorumConfig, channel: Arc<Channel>) -> Result<(Self, AppliedEvents<M>), QuorumError> {
        let me = config.me;
        let mut voters = config.voters;
        let configured = voters.len();
        voters.sort_unstable();
        voters.dedup();
        if voters.len() != configured || !voters.contains(&me) {
            return Err(QuorumError::Voters { voters, me });
        }
        let log = Log::open(LogConfig {
            folder: config.data_dir.clone(),
            me,
            segment_bytes: SEGMENT_BYTES,
            on_thread: config.on_log_thread,
        })?;
        let (machine, events) = Machine::<M>::open(&config.data_dir)?;
        let first = log.is_pristine() && !machine.has_snapshot();
        let view = machine.view();
        let service = Arc::new(Service {
            voters: voters.clone(),
            log: log.clone(),
            view: Arc::clone(&view),
            raft: OnceLock::new(),
            complete: OnceLock::new(),
        });
        let (recorded, own) = (service.incarnation(me), channel.own_incarnation());
        if recorded >= own {
            return Err(QuorumError::OldIncarnation { recorded, own });
        }
        channel.serve(service.handler());
        if first {
            first::ask(&channel, me, &voters).await?;
            let seeded = log.seed(first::membership(&voters)).await;
            seeded.map_err(|source| LogError::Io { path: config.data_dir.clone(), source })?;
        }
        let network = Network { channel: Arc::clone(&channel), log: log.clone() };
        let settings = Arc::new(settings::raft(&config.cluster, config.lease_ns, config.snapshot_entries));
        let raft = Raft::new(node_id(me), settings, network, log.clone(), machine)
            .await
            .map_err(|error| QuorumError::Raft(error.to_string()))?;
        let stored: Vec<VoterId> = raft.metrics().borrow().membership_config.voter_ids().filter_map(voter_id).collect();
        let stored = if stored.is_empty() { members(&raft).await? } else { stored };
        if stored != voters {
            return Err(QuorumError::VotersChanged { stored, configured: voters });
        }
        if service.raft.set(raft.clone()).is_err() {
            return Err(QuorumError::Raft("it was started twice".to_owned()));
        }
        let (changed, changes) = watch::channel(raft_view(&raft));
        let watcher = tokio::spawn(watch_raft(raft.clone(), me, changed)).abort_handle();
        Ok((Self { me, voters, raft, service, channel, log, view, changes, watcher }, events))
    }

    /// From now on entries that other voters propose here go into the log as what this makes of them. Only the first call counts.
    pub fn complete_with(&self, complete: Complete) {
        // A second one has nothing to add.
        self.service.complete.set(complete).ok();
    }

    /// Appends an entry through the leader and waits until it is applied there. A refusal is in [`Applied::outcome`].
    pub async fn propose(&self, entry: Entry) -> Result<Applied, ProposeError> {
        let body = wire::encode(&entry).map_err(|_| ProposeError::TooLarge(0))?;
        if body.len() > ENTRY_BYTES_MAX {
            return Err(ProposeError::TooLarge(body.len()));
        }
        // Here first: raft knows best whether it leads. Then one hop, and one more if the leader changed meanwhile.
        let local = timeout(PROPOSE_DEADLINE, service::propose(&self.raft, entry)).await;
        let mut answer = local.unwrap_or(Proposed::Unknown);
        for _ in 0..2 {
            let leader = match answer {
                Proposed::Applied(applied) => return Ok(applied),
                Proposed::Unknown => return Err(ProposeError::Unknown),
                Proposed::NotLeader(leader) => leader.and_then(voter_id).filter(|leader| *leader != self.me),
            };
            let leader = leader.ok_or(ProposeError::NoLeader)?;
            let reply = self.channel.call(leader, method::PROPOSE, body.clone(), PROPOSE_DEADLINE).await;
            answer = match reply {
                Ok(reply) => wire::decode(&reply).map_err(|_| ProposeError::Unknown)?,
                // Refused before it came to an append: raft is not up there yet.
                Err(RpcError::Failed { .. }) => return Err(ProposeError::NoLeader),
                Err(error) if error.had_no_effect() => return Err(ProposeError::NoLeader),
                Err(_) => return Err(ProposeError::Unknown),
            };
        }
        match answer {
            Proposed::Applied(applied) => Ok(applied),
            Proposed::Unknown => Err(ProposeError::Unknown),
            Proposed::NotLeader(_) => Err(ProposeError::NoLeader),
        }
    }

    /// Stands for election, if a majority would vote for this voter now (its log is as long as theirs, and they answer).
    /// Whether it won shows in [`Self::view`]. Does nothing when this voter leads already.
    pub async fn elect(&self) -> Result<(), ElectError> {
        if self.view().leader == Some(self.me) {
            return Ok(());
        }
        let question = wire::encode(&WouldVote { last: self.log.last() });
        let question = question.map_err(|error| ElectError::Stopped(error.to_string()))?;
        let mut answers: FuturesUnordered<_> = self
            .channel
            .peers()
            .map(|peer| self.channel.call(peer, method::WOULD_VOTE, question.clone(), WOULD_VOTE_DEADLINE))
            .collect();
        let voters = self.voters.len();
        let mut granted = 1;
        while granted < majority(voters) {
            match answers.next().await {
                Some(Ok(answer)) => granted += usize::from(wire::decode::<bool>(&answer).unwrap_or(false)),
                Some(Err(_)) => {}
                None => return Err(ElectError::NoMajority { granted, voters }),
            }
        }
        self.raft.trigger().elect().await.map_err(|error| ElectError::Stopped(error.to_string()))
    }

    /// Stops the leader's heartbeats, so that another voter can be elected once raft's leader lease is over. They come
    /// back by [`Self::resume`], and by themselves once another voter leads.
    pub fn step_aside(&self) {
        self.raft.runtime_config().heartbeat(false);
    }

    /// Leads on after [`Self::step_aside`], if nobody took over.
    pub fn resume(&self) {
        self.raft.runtime_config().heartbeat(true);
    }

    /// raft's view of itself, now.
    pub fn view(&self) -> RaftView {
        raft_view(&self.raft)
    }

    /// Whether this voter leads.
    pub fn is_leader(&self) -> bool {
        self.view().leader == Some(self.me)
    }

    /// Wakes at every change of [`Self::view`].
    pub fn changes(&self) -> watch::Receiver<RaftView> {
        self.changes.clone()
    }

    /// The replicated state now, and the index of the last entry in it.
    pub fn state(&self) -> (M, Index) {
        let view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        (view.state.clone(), view.applied.map_or(0, |id| id.index))
    }

    /// Why raft has stopped, if it has: a disk that failed. The agent cannot go on then.
    pub fn failure(&self) -> Option<String> {
        self.raft.metrics().borrow().running_state.as_ref().err().map(ToString::to_string)
    }

    /// Returns once raft has stopped, with the reason.
    pub async fn failed(&self) -> String {
        let mut metrics = self.raft.metrics();
        if metrics.wait_for(|metrics| metrics.running_state.is_err()).await.is_err() {
            return "raft has ended".to_owned();
        }
        self.failure().unwrap_or_default()
    }

    /// openraft's own metrics, for the status page.
    pub fn metrics(&self) -> openraft::RaftMetrics<u64, ()> {
        self.raft.metrics().borrow().clone()
    }

    /// Takes a snapshot now, to shorten the log.
    pub async fn snapshot(&self) -> Result<(), QuorumError> {
        self.raft.trigger().snapshot().await.map_err(|error| QuorumError::Raft(error.to_string()))
    }

    /// Stops raft; the log closes once the last of its tasks has ended.
    pub async fn stop(self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "raft did not stop cleanly");
        }
    }
}

impl<M> Drop for Quorum<M> {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

/// The members of the effective membership; the metrics may not have been published yet.
async fn members(raft: &Raft) -> Result<Vec<VoterId>, QuorumError> {
    raft.with_raft_state(|state| state.membership_state.effective().voter_ids().filter_map(voter_id).collect())
        .await
        .map_err(|error| QuorumError::Raft(error.to_string()))
}

fn raft_view(raft: &Raft) -> RaftView {
    let metrics = raft.metrics();
    let metrics = metrics.borrow();
    RaftView {
        leader: metrics.current_leader.and_then(voter_id),
        term: metrics.current_term,
        log_index: metrics.last_log_index.unwrap_or(0),
    }
}

/// Turns openraft's metrics into a watch that wakes only on what matters, and lets heartbeats come back after a hand-over.
async fn watch_raft(raft: Raft, me: VoterId, changed: watch::Sender<RaftView>) {
    let mut metrics = raft.metrics();
    while metrics.changed().await.is_ok() {
        let view = raft_view(&raft);
        changed.send_if_modified(|last| {
            if view.leader.is_some_and(|leader| leader != me) {
                raft.runtime_config().heartbeat(true);
            }
            std::mem::replace(last, view) != view
        });
    }
}
