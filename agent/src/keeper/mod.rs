//! The keeper: a small process that beats on for an agent that restarts, with what the gates hold (docs/safety.md, rule 10).
//!
//! ```text
//! agent ──spawn──► keeper: prepares, says "ready"
//!   │ its pulse ends                │
//!   ├──"go", the last sequence────► │ beats in the agent's incarnation, says "beating"
//!   │ execve, or its end            │
//! next agent ──keeper.sock────────► │ says who it is
//!   │ its barrier is applied        │
//!   └──"end"──────────────────────► ends (also after its time, or when the maps are another incarnation's)
//! ```
//!
//! It reads the pinned maps alone, decides nothing, and owns nothing but its sockets.

mod held;
mod leave;
mod run;
#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use self::{
    held::Held,
    leave::{LeaveError, Left},
    run::run,
};
use crate::cluster::ids::{GroupId, Incarnation, Nanos, VoterId};

/// What a keeper writes when it could beat, and when it does.
const READY: &str = "ready";
const BEATING: &str = "beating";
/// What ends a keeper.
const END: &str = "end";

/// What a keeper is to do; the first line on its standard input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// The agent that it beats for.
    pub hello: Hello,
    /// Where bpffs is.
    pub bpffs: PathBuf,
    /// The cluster's name.
    pub cluster: String,
    /// The node's name.
    pub node: String,
    /// This voter.
    pub me: VoterId,
    /// Whether it is a node.
    pub is_node: bool,
    /// The digest of the shared configuration.
    pub digest: u32,
    /// Between two beats, ns.
    pub interval: Nanos,
    /// A link on which nothing came for this long is dead, ns.
    pub hold: Nanos,
    /// This machine's end of each backplane link.
    pub links: Vec<SocketAddr>,
    /// The peers' addresses on each link.
    pub peers: Vec<(VoterId, Vec<SocketAddr>)>,
    /// Whether to run with realtime priority.
    pub realtime: bool,
    /// How long it beats at most, ns.
    pub within: Nanos,
    /// Where it listens.
    pub socket: PathBuf,
}

/// Whom a keeper beats for; what it says to whoever connects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The incarnation.
    pub incarnation: Incarnation,
    /// The groups, in the order of their rows in the gate.
    pub groups: Vec<GroupId>,
    /// The keeper's process.
    pub pid: u32,
}

/// What the agent's pulse last said; the second line on a keeper's standard input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// The sequence of its last beat.
    pub sequence: u64,
    /// Its token of progress.
    pub token: u32,
    /// Raft's term.
    pub term: u64,
    /// The last log index.
    pub log_index: u64,
}

/// Where a keeper listens.
pub fn socket_in(run_dir: &Path) -> PathBuf {
    run_dir.join("keeper.sock")
}
