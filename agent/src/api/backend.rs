//! What the agent offers to the control socket and to HTTP.

use std::future::Future;

use thiserror::Error;

use super::{mend::Mend, protocol::ErrorKind, status::StatusReport};
use crate::{
    cluster::{ids::Nanos, message::Order},
    config::Shared,
    telemetry::{history::History, metrics::Snapshot},
};

/// The running agent, as seen by its servers. They ask from an ordinary runtime, never from the realtime one.
pub trait Backend: Send + Sync + 'static {
    /// The shared configuration: names of voters and groups.
    fn shared(&self) -> &Shared;

    /// The failover records.
    fn history(&self) -> &History;

    /// The state now. The servers give up on it after a few seconds.
    fn status(&self) -> impl Future<Output = StatusReport> + Send;

    /// The numbers now.
    fn metrics(&self) -> impl Future<Output = Snapshot> + Send;

    /// Says what an order would do, or why it would be refused; does nothing.
    fn plan(&self, order: Order) -> impl Future<Output = Result<String, OrderError>> + Send;

    /// Restarts this agent while a keeper beats on for at most `within` ns; with `exit` the process ends instead, to be started by
    /// others. The text says that it begins.
    fn restart(&self, within: Nanos, exit: bool) -> impl Future<Output = Result<String, OrderError>> + Send;

    /// Asks something of the nodes of a group; the text says what they do.
    fn mend(&self, mend: Mend) -> impl Future<Output = Result<String, OrderError>> + Send;

    /// Gives an order to the cluster; the text says what happens next.
    fn order(&self, order: Order) -> impl Future<Output = Result<String, OrderError>> + Send;
}

/// Why an order was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct OrderError {
    /// Which kind of no: `Refused` or `NoQuorum`.
    pub kind: ErrorKind,
    /// What, why, and what to do.
    pub message: String,
}
