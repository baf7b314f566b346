//! The validated configuration: what the agent runs on. Every rule of docs/configuration.md holds for a [`Config`].

use std::{collections::BTreeMap, net::IpAddr, net::SocketAddr, path::PathBuf, sync::Arc};

use serde::Serialize;

use super::{constraints::Capacity, key::ClusterKey, kinds::Kind};
use crate::cluster::{
    ids::{GroupId, MILLISECOND, Nanos, Role, VoterId},
    placement::Constraints,
    timing::Timing,
};

/// A configuration without mistakes, as seen from this machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// What is the same on all machines.
    pub shared: Shared,
    /// What is this machine's own.
    pub this: This,
    /// The cluster's key.
    pub key: ClusterKey,
    /// A digest over [`Shared`]: equal on machines whose files say the same (comments, order and layout apart).
    pub digest: u64,
    /// Doubts that do not stop the agent, for the log and the status.
    pub warnings: Vec<String>,
}

/// The part of the configuration that must be equal on all machines.
#[derive(Clone, Debug, Serialize)]
pub struct Shared {
    /// The cluster's name.
    pub name: String,
    /// Interval, lease and what follows from them.
    pub timing: Timing,
    /// The UDP port of the beats and the TCP port of the RPC, on the backplane.
    pub port: u16,
    /// The voters, by id.
    pub voters: BTreeMap<VoterId, Voter>,
    /// The groups, by name.
    pub groups: BTreeMap<GroupId, Group>,
}

/// This machine's own part.
#[derive(Clone, Debug)]
pub struct This {
    /// Which voter this machine is.
    pub id: VoterId,
    /// Its name.
    pub name: Arc<str>,
    /// Where the durable log, the state and the failover records are kept.
    pub data_dir: PathBuf,
    /// Where the control socket is.
    pub run_dir: PathBuf,
    /// Where bpffs is mounted.
    pub bpffs: PathBuf,
    /// Where HTTP (metrics, status) listens; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Go on without BPF: the lease is then kept by the agent alone, which the status warns of.
    pub unenforced_lease: bool,
    /// Ask for SCHED_FIFO and locked memory.
    pub realtime: bool,
    /// How many groups with resources may be starting at once.
    pub starts_at_once: usize,
}

/// One voter.
#[derive(Clone, Debug, Serialize)]
pub struct Voter {
    /// Its number.
    pub id: VoterId,
    /// Its name.
    pub name: Arc<str>,
    /// Node or arbiter.
    pub role: Role,
    /// Its links, in the order that all voters share.
    pub links: Vec<Link>,
    /// Its front devices; none on an arbiter.
    pub front: Vec<String>,
    /// What it offers to groups that say what they need; `None`: as much as is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
}

/// One voter's end of one backplane link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// The address.
    pub address: IpAddr,
    /// Which BPF hook measures the beats.
    pub hook: Hook,
}

/// Which BPF hook a link uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// The agent decides.
    #[default]
    Auto,
    /// TCX, or clsact below 6.6.
    Tc,
    /// Native XDP.
    Xdp,
}

/// One group.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// Its name.
    pub id: GroupId,
    /// The nodes that may run it; never empty.
    pub nodes: Vec<VoterId>,
    /// Scores, higher is better; nodes not named score 0.
    pub prefer: BTreeMap<VoterId, i32>,
    /// The score of staying where it is.
    pub stickiness: i32,
    /// Whether it goes back to a better node that returns.
    pub failback: bool,
    /// How long open flows may go on on the old owner after a planned move, ns. Not in the digest where it is the default:
    /// earlier versions know none.
    #[serde(skip_serializing_if = "is_default_drain")]
    pub drain_timeout_ns: Nanos,
    /// Its virtual addresses, in the file's order.
    pub vips: Vec<Vip>,
    /// Its HAProxys, in the file's order. Not in the digest of a file that has none: earlier versions know none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub haproxies: Vec<Haproxy>,
    /// Its other resources, in the file's order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Resource>,
    /// So many failures of one resource on one node move the group.
    #[serde(skip_serializing_if = "is_default_threshold")]
    pub migration_threshold: u32,
    /// After how long a failure is forgotten, ns.
    #[serde(skip_serializing_if = "is_default_failure")]
    pub failure_timeout_ns: Nanos,
    /// What binds it to other groups and to its node.
    #[serde(skip_serializing_if = "Constraints::is_empty")]
    pub constraints: Constraints,
}

impl Group {
    /// The names by which its resources are called, in the order in which they start.
    pub fn resource_names(&self) -> Vec<&str> {
        let haproxy = (!self.haproxies.is_empty()).then_some("haproxy");
        let addresses = (!self.vips.is_empty()).then_some(super::ADDRESSES);
        self.resources.iter().map(|r| r.name.as_str()).chain(haproxy).chain(addresses).collect()
    }

    /// How long its resources may take to stop, one after the other at worst; `None` for a group of addresses and HAProxys alone.
    pub fn stop_limit(&self) -> Option<Nanos> {
        let limits = self.resources.iter().map(|r| r.stop_timeout_ns);
        (!self.resources.is_empty()).then(|| limits.fold(0, Nanos::saturating_add))
    }
}

/// How long open flows may go on, unless the group says otherwise: five minutes.
pub const DRAIN_TIMEOUT: Nanos = 300_000 * MILLISECOND;

/// How many failures move a group, unless it says otherwise.
pub const MIGRATION_THRESHOLD: u32 = 3;
/// After how long a failure is forgotten, unless the group says otherwise: ten minutes.
pub const FAILURE_TIMEOUT: Nanos = 600_000 * MILLISECOND;

fn is_default_threshold(threshold: &u32) -> bool {
    *threshold == MIGRATION_THRESHOLD
}

fn is_default_failure(nanos: &Nanos) -> bool {
    *nanos == FAILURE_TIMEOUT
}

fn is_default_drain(nanos: &Nanos) -> bool {
    *nanos == DRAIN_TIMEOUT
}

/// One virtual address.
#[derive(Clone, Debug, Serialize)]
pub struct Vip {
    /// The address.
    pub address: IpAddr,
    /// The prefix length of its network.
    pub prefix: u8,
    /// The device it stands on, for each node that may own it.
    pub device: BTreeMap<VoterId, String>,
}

/// One resource that is neither an address nor a HAProxy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Resource {
    /// Its name, as no other of its group has.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// What must run before it: names of resources of the group, "haproxy", or [`super::ADDRESSES`].
    pub requires: Vec<String>,
    /// What its failure means.
    pub on_failure: OnFailed,
    /// How long a start may take.
    pub start_timeout_ns: Nanos,
    /// How long a stop may take.
    pub stop_timeout_ns: Nanos,
    /// How long a look at it may take.
    pub monitor_timeout_ns: Nanos,
    /// Between two looks at it; 0: it reports by itself.
    pub monitor_interval_ns: Nanos,
}

/// What a resource's failure means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailed {
    /// It is restarted in place; after [`Group::migration_threshold`] failures the group moves.
    #[default]
    Restart,
    /// The group moves at once.
    Move,
    /// It is reported.
    Ignore,
}

/// One HAProxy, which runs on all nodes of its group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Haproxy {
    /// HAProxy's own configuration file, for each node of the group.
    pub config: BTreeMap<VoterId, PathBuf>,
    /// HAProxy's program: it checks configurations, and runs where Baton starts it.
    pub binary: PathBuf,
    /// Who starts it.
    pub managed: Managed,
    /// Its stats socket; `None`: the one of the `global` section of its configuration.
    pub socket: Option<PathBuf>,
    /// So many servers of each backend must be up before a node may take the group over; 0: backends do not matter.
    pub backends_min: u32,
    /// The section `peers` whose sessions must be in step for a planned move; `None`: all that there are.
    pub peers: Option<String>,
    /// What its death on the owner means.
    pub on_failure: OnFailure,
    /// How often it is started again within [`Self::restart_window`].
    pub restarts: u32,
    /// After how long a restart is forgotten.
    pub restart_window: Nanos,
    /// What happens to it on the old owner after a planned move.
    pub drain: DrainMode,
}

/// Who starts a HAProxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Managed {
    /// Baton does, as master and workers.
    Process,
    /// systemd does, by this unit.
    Systemd(String),
}

/// What a HAProxy's death on the owner means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The group moves at once; HAProxy is started again for the time when it comes back.
    #[default]
    Move,
    /// It is started again in place; the group moves when it has died too often.
    Restart,
}

/// What happens to a HAProxy on the old owner after a planned move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DrainMode {
    /// It is told to stop softly, while a fresh worker takes the listeners over.
    #[default]
    Soft,
    /// It is left alone: its clients stay until they go.
    Leave,
}

impl Config {
    /// This machine as a voter.
    ///
    /// Validation has shown that it is there; the `None` is for the type alone.
    pub fn me(&self) -> Option<&Voter> {
        self.shared.voters.get(&self.this.id)
    }

    /// A short number for the cluster, for the head of the heartbeats: they differ between clusters on one network.
    pub fn cluster_hash(&self) -> u32 {
        super::digest::name_hash(&self.shared.name)
    }

    /// The path of the control socket.
    pub fn socket(&self) -> PathBuf {
        super::socket_in(&self.this.run_dir)
    }
}

impl Shared {
    /// The voters and their roles, by id: what `Entry::Configure` and the core take.
    pub fn roles(&self) -> Vec<(VoterId, Role)> {
        self.voters.values().map(|v| (v.id, v.role)).collect()
    }

    /// A voter's name, or its number if nobody has that number.
    pub fn name_of(&self, id: VoterId) -> Arc<str> {
        self.voters.get(&id).map_or_else(|| Arc::from(id.to_string()), |v| v.name.clone())
    }

    /// The voter with a name.
    pub fn voter_named(&self, name: &str) -> Option<&Voter> {
        self.voters.values().find(|v| &*v.name == name)
    }

    /// How many backplane links there are.
    pub fn links(&self) -> usize {
        self.voters.values().next().map_or(0, |v| v.links.len())
    }
}
