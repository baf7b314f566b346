//! What the driver hears.

use tokio::sync::oneshot;

use super::executor::Report;
use crate::{
    api::status::StatusReport,
    cluster::{
        core::OrderRefused,
        entry::Entry,
        ids::{Index, Nanos, VoterId},
        message::{Message, Order},
        state::State,
    },
    netlink::watch::Event,
    telemetry::metrics::Snapshot,
};

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
    /// A message of another core.
    Message(VoterId, Message),
    /// An entry could not be proposed, or its fate is unknown.
    ProposalFailed(Entry),
    /// Raft's leader or term changed.
    Raft,
    /// Raft has stopped by itself: its disk failed.
    RaftEnded,
    /// The executor has done something.
    Executor(Report),
    /// A device or an address changed.
    Network(Event),
    /// Somebody asks.
    Request(Request),
}

/// What an operator, or the process itself, asks of the driver.
#[derive(Debug)]
pub enum Request {
    /// An order for the cluster.
    Order(Order, oneshot::Sender<Result<(), OrderRefused>>),
    /// The status.
    Status(oneshot::Sender<StatusReport>),
    /// What the metrics show.
    Metrics(oneshot::Sender<Snapshot>),
    /// Give everything up, then end.
    Stop {
        /// Told when it is done.
        done: oneshot::Sender<()>,
        /// How long it may take, ns.
        within: Nanos,
    },
}
