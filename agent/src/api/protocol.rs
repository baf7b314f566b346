//! The words of the control socket: one JSON object a line, a request up, one or more responses down.

use serde::{Deserialize, Serialize};

use super::status::StatusReport;
use crate::{cluster::ids::Nanos, telemetry::record::Record};

/// No request is longer than this, in bytes, its newline included.
pub const REQUEST_BYTES_MAX: usize = 4096;
/// No response is longer than this, in bytes: 4,096 VIPs fit.
pub const RESPONSE_BYTES_MAX: usize = 4 << 20;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The state of the cluster as this agent sees it. Answer: [`Response::Status`].
    Status {},
    /// The failover records. Answer: one [`Response::Event`] each, then [`Response::End`]; with `follow`, no end.
    Events {
        /// Go on with each new record.
        #[serde(default)]
        follow: bool,
        /// Only records with a larger `seq`.
        #[serde(default)]
        since: u64,
    },
    /// Move a group. Answer: [`Response::Done`] when the order was accepted.
    Move {
        /// The group.
        group: String,
        /// The node that shall own it.
        node: String,
        /// Also where open connections break by it.
        #[serde(default)]
        force: bool,
        /// Say what would happen, and do nothing.
        #[serde(default)]
        dry_run: bool,
    },
    /// Take all groups off a node, or let it own groups again. Answer: [`Response::Done`].
    Standby {
        /// The node.
        node: String,
        /// On, or off again.
        on: bool,
    },
    /// Maintenance of the cluster, or of a node or a group, if one is named. Answer: [`Response::Done`].
    Maintenance {
        /// The node.
        #[serde(default)]
        node: Option<String>,
        /// The group.
        #[serde(default)]
        group: Option<String>,
        /// On, or off again.
        on: bool,
    },
    /// Stop a group wherever it runs, or let it be started again. Answer: [`Response::Done`].
    Stopped {
        /// The group.
        group: String,
        /// Stopped, or no longer.
        on: bool,
    },
    /// Take a resource out of Baton's hands, or give it back. Answer: [`Response::Done`].
    Unmanaged {
        /// The group.
        group: String,
        /// The resource.
        resource: String,
        /// Unmanaged, or managed again.
        on: bool,
    },
    /// Stop a resource and what requires it, and start them again. Answer: [`Response::Done`] when it begins.
    RestartResource {
        /// The group.
        group: String,
        /// The resource.
        resource: String,
    },
    /// Forget what failed of a group, on all of its nodes. Answer: [`Response::Done`].
    Cleanup {
        /// The group.
        group: String,
        /// One resource of it alone.
        #[serde(default)]
        resource: Option<String>,
    },
    /// Restart this agent without a gap. Answer: [`Response::Done`] when it begins.
    Restart {
        /// For how long its heartbeats go on without it, ns.
        within_ns: Nanos,
        /// End the process instead of replacing it.
        #[serde(default)]
        exit: bool,
    },
}

/// What the agent answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "snake_case")]
pub enum Response {
    /// The status.
    Status {
        /// The report.
        status: Box<StatusReport>,
    },
    /// One failover record.
    Event {
        /// The record.
        event: Record,
    },
    /// The client was too slow: this many records were left out of the stream.
    Skipped {
        /// How many.
        records: u64,
    },
    /// No more records.
    End {},
    /// The order was accepted.
    Done {
        /// What happens now.
        message: String,
    },
    /// The request was not carried out.
    Error {
        /// Which kind of no.
        kind: ErrorKind,
        /// What, why, and what to do.
        message: String,
    },
}

/// The kinds of no; the command line turns them into exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request was not understood.
    BadRequest,
    /// It was understood, and the cluster says no.
    Refused,
    /// There is no quorum to decide.
    NoQuorum,
    /// No answer came in time; the order may still be carried out.
    Timeout,
    /// The agent serves too many clients already.
    Busy,
}
