//! What the driver hears.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use tokio::sync::{mpsc, oneshot};

use super::{driver::Answer, executor::Report, mail::Mail};
use crate::{
    api::{mend::Mend, status::StatusReport},
    cluster::{
        core::OrderRefused,
        entry::{DrainSummary, Entry},
        ids::{Epoch, GroupId, Index, Nanos, VoterId},
        message::Order,
        state::State,
    },
    keeper::Left,
    netlink::watch::Event,
    quorum::Complete,
    resources::ResourceEvent,
    telemetry::metrics::Snapshot,
};

/// How long a release waits for the core to name the next owner.
const COMPLETE_LIMIT: Duration = Duration::from_millis(20);

/// One input of the driver.
#[derive(Debug)]
pub enum Input {
    /// An entry was applied; `None` is one of raft's own.
    Applied {
        /// Its index.
        index: Index,
        /// The entry.
        entry: Option<Entry>,
    },
    /// The state was replaced by a snapshot.
    Restored(State),
    /// A letter of another agent.
    Mail(VoterId, Mail),
    /// An entry could not be proposed, or its fate is unknown.
    ProposalFailed(Entry),
    /// Another voter gives a group up through this one: what shall go into the log?
    Release(Entry, oneshot::Sender<Entry>),
    /// Raft's leader or term changed.
    Raft,
    /// Raft has stopped by itself: its disk failed.
    RaftEnded,
    /// The executor has done something.
    Executor(Report),
    /// The flows that drained here have ended.
    Drained(GroupId, Epoch, DrainSummary),
    /// A device or an address changed.
    Network(Event),
    /// A resource reports by itself.
    Resource(ResourceEvent),
    /// The keeper of the agent before this one has ended.
    KeeperGone,
    /// Somebody asks.
    Request(Request),
}

/// What a move of a group would do.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Why open connections would break; `None`: they go on.
    pub breaks: Option<String>,
    /// The group's VIPs, if it is served on this machine, so that its connections can be counted here.
    pub here: Option<BTreeSet<IpAddr>>,
}

/// What an operator, or the process itself, asks of the driver.
#[derive(Debug)]
pub enum Request {
    /// An order for the cluster.
    Order(Order, oneshot::Sender<Result<(), OrderRefused>>),
    /// What an order would do; nothing is done.
    Plan(Order, oneshot::Sender<Result<Plan, OrderRefused>>),
    /// Something of the nodes of a group.
    Mend(Mend, oneshot::Sender<Answer>),
    /// The status.
    Status(oneshot::Sender<StatusReport>),
    /// What the metrics show.
    Metrics(oneshot::Sender<Snapshot>),
    /// Whether the agent may be restarted now; the text says why not.
    MayRestart(oneshot::Sender<Result<(), String>>),
    /// Give the leadership up alone, then leave the rest to this keeper and end.
    Restart(Left),
    /// Give everything up, then end.
    Stop {
        /// Told when it is done.
        done: oneshot::Sender<()>,
        /// How long it may take, ns.
        within: Nanos,
    },
}

/// Lets the core name the next owner in releases of other voters, if it can at once.
pub fn completing(sender: mpsc::UnboundedSender<Input>) -> Complete {
    Box::new(move |entry| {
        let sender = sender.clone();
        Box::pin(async move {
            if !matches!(entry, Entry::Release { .. }) {
                return entry;
            }
            let (reply, answer) = oneshot::channel();
            // Without a driver, or with one that is busy, the release goes as it is.
            drop(sender.send(Input::Release(entry.clone(), reply)));
            tokio::time::timeout(COMPLETE_LIMIT, answer).await.ok().and_then(Result::ok).unwrap_or(entry)
        })
    })
}
