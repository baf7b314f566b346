//! Clusters of quorums on the loopback interface, each with its own addresses and data folders.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use baton::{
    backplane::channel::{Channel, ChannelConfig, Incoming},
    cluster::{
        entry::Entry,
        ids::{Incarnation, Index, MILLISECOND, VoterId},
    },
    quorum::{
        Quorum, QuorumConfig, QuorumError, incarnation,
        machine::{AppliedEvents, Replicated},
    },
};
use serde::{Deserialize, Serialize};

/// A state that knows barriers alone; the cluster's own state has its own tests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barriers {
    pub incarnations: BTreeMap<VoterId, Incarnation>,
}

impl Replicated for Barriers {
    fn apply(&mut self, _index: Index, entry: &Entry) -> Result<(), String> {
        let Entry::Barrier { voter, incarnation } = entry else {
            return Err("not a barrier".to_owned());
        };
        if *incarnation <= self.incarnation(*voter) {
            return Err("an older incarnation".to_owned());
        }
        self.incarnations.insert(*voter, *incarnation);
        Ok(())
    }

    fn skip(&mut self, _index: Index) {}

    fn incarnation(&self, voter: VoterId) -> Incarnation {
        self.incarnations.get(&voter).copied().unwrap_or(0)
    }
}

pub fn barrier(voter: u8, incarnation: Incarnation) -> Entry {
    Entry::Barrier { voter: VoterId(voter), incarnation }
}

/// Waits for a condition, for a generous time.
pub async fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub struct Voter {
    pub me: VoterId,
    pub quorum: Quorum<Barriers>,
    pub events: AppliedEvents<Barriers>,
    pub channel: Arc<Channel>,
    pub incoming: Incoming,
}

pub struct Cluster {
    pub voters: Vec<VoterId>,
    running: BTreeMap<u8, Voter>,
    folder: tempfile::TempDir,
    /// Makes the addresses of this cluster its own: 127.a.b.(link * 10 + voter).
    net: (u8, u8),
    port: u16,
}

pub struct Launch {
    me: VoterId,
    data_dir: PathBuf,
    voters: Vec<(VoterId, Vec<IpAddr>)>,
    links: Vec<IpAddr>,
    port: u16,
    pub snapshot_entries: Option<u64>,
}

impl Launch {
    pub async fn start(self) -> Result<Voter, QuorumError> {
        let me = self.me;
        let voters = self.voters.iter().map(|(id, _)| *id).collect();
        let channel = Channel::start(ChannelConfig {
            me,
            cluster: "test".to_owned(),
            key: b"a key for tests".to_vec(),
            incarnation: incarnation::advance(&self.data_dir).expect("incarnation"),
            links: self.links,
            port: self.port,
            peers: self.voters,
        });
        let (channel, incoming) = channel.expect("channel");
        let config = QuorumConfig {
            data_dir: self.data_dir.join("quorum"),
            cluster: "test".to_owned(),
            me,
            voters,
            lease_ns: 4 * MILLISECOND,
            snapshot_entries: self.snapshot_entries,
            on_log_thread: None,
        };
        let (quorum, events) = Quorum::start(config, Arc::clone(&channel)).await?;
        Ok(Voter { me, quorum, events, channel, incoming })
    }
}

static CLUSTERS: AtomicU16 = AtomicU16::new(0);

impl Cluster {
    /// The addresses and folders of a cluster that does not run yet.
    pub fn new(voters: u8) -> Self {
        let number = CLUSTERS.fetch_add(1, Relaxed);
        let pid = std::process::id();
        Self {
            voters: (1..=voters).map(VoterId).collect(),
            running: BTreeMap::new(),
            // On a disk, unlike /tmp on some machines.
            folder: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary folder"),
            net: ((pid % 200) as u8 + 20, number as u8),
            port: 20_000 + (pid / 200 % 5_000) as u16,
        }
    }

    pub async fn start(voters: u8) -> Self {
        let mut cluster = Self::new(voters);
        let starting: Vec<_> = (1..=voters).map(|id| cluster.launcher(id).start()).collect();
        for (id, started) in (1..=voters).zip(futures::future::join_all(starting).await) {
            cluster.running.insert(id, started.expect("started"));
        }
        cluster
    }

    fn ip(&self, id: u8, link: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(127, self.net.0, self.net.1, link * 10 + id))
    }

    pub fn address(&self, id: u8, link: u8) -> SocketAddr {
        SocketAddr::new(self.ip(id, link), self.port)
    }

    pub fn source(&self, id: u8, link: u8) -> SocketAddr {
        SocketAddr::new(self.ip(id, link), 0)
    }

    fn data_dir(&self, id: u8) -> PathBuf {
        self.folder.path().join(id.to_string())
    }

    /// What it takes to start a voter, on any thread.
    pub fn launcher(&self, id: u8) -> Launch {
        let links = |of: VoterId| vec![self.ip(of.0, 1), self.ip(of.0, 2)];
        Launch {
            me: VoterId(id),
            data_dir: self.data_dir(id),
            voters: self.voters.iter().map(|peer| (*peer, links(*peer))).collect(),
            links: links(VoterId(id)),
            port: self.port,
            // Small, so that the tests see snapshots.
            snapshot_entries: Some(32),
        }
    }

    /// Starts a voter on the data that it has.
    pub async fn try_start(&mut self, id: u8) -> Result<(), QuorumError> {
        let voter = self.launcher(id).start().await?;
        self.running.insert(id, voter);
        Ok(())
    }

    /// Starts a stopped voter again, once the tasks of its former self have let go of the log.
    pub async fn restart(&mut self, id: u8) {
        let start = Instant::now();
        while let Err(error) = self.try_start(id).await {
            let in_use = matches!(&error, QuorumError::Log(baton::quorum::log::LogError::InUse { .. }));
            assert!(in_use && start.elapsed() < Duration::from_secs(30), "{error}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn stop(&mut self, id: u8) {
        let voter = self.running.remove(&id).expect("it runs");
        voter.quorum.stop().await;
    }

    /// Whether nobody holds a stopped voter's log any more.
    pub fn is_closed(&self, id: u8) -> bool {
        let lock = std::fs::File::open(self.data_dir(id).join("quorum/lock")).expect("opened");
        lock.try_lock().is_ok()
    }

    pub fn wipe(&self, id: u8) {
        std::fs::remove_dir_all(self.data_dir(id)).expect("wiped");
    }

    pub fn voter(&self, id: u8) -> &Voter {
        &self.running[&id]
    }

    pub fn voter_mut(&mut self, id: u8) -> &mut Voter {
        self.running.get_mut(&id).expect("it runs")
    }

    pub fn leader(&self) -> Option<u8> {
        self.running.iter().find(|(_, voter)| voter.quorum.is_leader()).map(|(id, _)| *id)
    }

    /// Calls elections at one voter until everybody knows it as the leader.
    pub async fn elect(&self, id: u8) {
        let start = Instant::now();
        loop {
            // It may lack a majority yet: the connections are young.
            drop(self.voter(id).quorum.elect().await);
            let patience = Instant::now();
            while patience.elapsed() < Duration::from_millis(200) {
                if self.running.values().all(|voter| voter.quorum.view().leader == Some(VoterId(id))) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "voter {id} is never elected");
        }
    }

    pub async fn applied(&self, id: u8, index: Index) {
        wait("an entry is applied", || self.voter(id).quorum.state().1 >= index).await;
    }
}
