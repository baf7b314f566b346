//! The authenticated, encrypted RPC channel between voters.
//!
//! One TCP connection a peer and link, dialled by the voter with the smaller id. Every request goes over all connected
//! links at once and is carried out once; so does every reply, and the first one wins. The death of a link therefore
//! costs nothing, and a caller sees one future with one deadline.

mod counters;
mod handshake;
mod limits;
mod link;
mod message;
mod peer;
mod run;
mod socket;
mod window;

use std::{
    collections::BTreeMap,
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Semaphore, mpsc},
    task::AbortHandle,
};

pub use counters::Counters;
use handshake::Secret;
pub use limits::MESSAGE_BYTES_MAX;
use peer::Peer;

use crate::cluster::ids::{Incarnation, VoterId};

/// What a channel needs to know.
pub struct ChannelConfig {
    /// This voter.
    pub me: VoterId,
    /// The cluster's name.
    pub cluster: String,
    /// The cluster key, of any length; the channel derives its own key from it.
    pub key: Vec<u8>,
    /// This start's incarnation ([`crate::quorum::incarnation`]); peers drop what older ones send.
    pub incarnation: Incarnation,
    /// This machine's address on each backplane link.
    pub links: Vec<IpAddr>,
    /// The TCP port, the same on all machines.
    pub port: u16,
    /// The other voters, with their addresses in the same order of links.
    pub peers: Vec<(VoterId, Vec<IpAddr>)>,
}

/// Why a channel could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The configuration names no backplane link.
    #[error("no backplane link is configured: name at least one address of this machine on the backplane")]
    NoLinks,
    /// A peer has another number of addresses than this machine has links.
    #[error(
        "voter {peer} has {theirs} backplane addresses, this machine {mine}: give one for each link, in the same order"
    )]
    Links {
        /// The peer.
        peer: VoterId,
        /// How many it has.
        theirs: usize,
        /// How many this machine has.
        mine: usize,
    },
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// The peer is no voter of the configuration, or this very voter.
    #[error("voter {0} is no peer of this one")]
    Unknown(VoterId),
    /// No link to the peer is connected: nothing was sent.
    #[error("no link to voter {0} is connected")]
    NotConnected(VoterId),
    /// Too many calls wait for the peer: nothing was sent.
    #[error("too many calls wait for voter {0}")]
    Busy(VoterId),
    /// The body is larger than a message may be: nothing was sent.
    #[error("a message of {0} bytes is larger than {MESSAGE_BYTES_MAX}")]
    TooLarge(usize),
    /// The deadline passed without a reply: the peer may or may not have carried the request out.
    #[error("voter {0} did not answer in time")]
    Deadline(VoterId),
    /// The peer restarted meanwhile: it may or may not have carried the request out.
    #[error("voter {0} restarted before it answered")]
    Restarted(VoterId),
    /// The peer says that it could not answer.
    #[error("voter {peer} answered with an error: {reason}")]
    Failed {
        /// The peer.
        peer: VoterId,
        /// Its reason.
        reason: String,
    },
}

impl RpcError {
    /// Whether the request certainly had no effect.
    pub fn had_no_effect(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::NotConnected(_) | Self::Busy(_) | Self::TooLarge(_))
    }
}

/// What answers the requests of peers: caller, method, body → body, or the reason why not.
pub type Handler = Arc<dyn Fn(VoterId, u8, Bytes) -> HandlerFuture + Send + Sync>;
/// The answer to come.
pub type HandlerFuture = Pin<Box<dyn Future<Output = Result<Bytes, String>> + Send>>;

/// One-way messages as they arrive, with their senders.
pub type Incoming = mpsc::Receiver<(VoterId, Bytes)>;

/// The channel; dropping it closes every connection and stops listening.
pub struct Channel {
    inner: Arc<Inner>,
}

struct Inner {
    me: VoterId,
    secret: Secret,
    incarnation: Incarnation,
    /// This machine's address and port on each link.
    links: Vec<SocketAddr>,
    peers: BTreeMap<VoterId, Arc<Peer>>,
    handler: OnceLock<Handler>,
    one_way: mpsc::Sender<(VoterId, Bytes)>,
    handshakes: Arc<Semaphore>,
    counters: Counters,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Channel {
    /// Starts listening and dialling on the current tokio runtime.
    pub fn start(config: ChannelConfig) -> Result<(Arc<Self>, Incoming), ChannelError> {
        if config.links.is_empty() {
            return Err(ChannelError::NoLinks);
        }
        let mine = config.links.len();
        let mut peers = BTreeMap::new();
        for (peer, addresses) in config.peers.into_iter().filter(|(peer, _)| *peer != config.me) {
            if addresses.len() != mine {
                return Err(ChannelError::Links { peer, theirs: addresses.len(), mine });
            }
            let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, config.port)).collect();
            peers.insert(peer, Arc::new(Peer::new(peer, addresses)));
        }
        let (one_way, incoming) = mpsc::channel(limits::ONE_WAY_MAX);
        let inner = Arc::new(Inner {
            me: config.me,
            secret: Secret::new(&config.key, &config.cluster),
            incarnation: config.incarnation,
            links: config.links.into_iter().map(|address| SocketAddr::new(address, config.port)).collect(),
            peers,
            handler: OnceLock::new(),
            one_way,
            handshakes: Arc::new(Semaphore::new(limits::HANDSHAKES_MAX)),
            counters: Counters::default(),
            tasks: Mutex::new(Vec::new()),
        });
        run::start(&inner);
        Ok((Arc::new(Self { inner }), incoming))
    }

    /// Sets what answers the requests of peers, once. Until then they are answered "not ready".
    pub fn serve(&self, handler: Handler) {
        if self.inner.handler.set(handler).is_err() {
            tracing::error!("the channel was given a second handler; the first one stays");
        }
    }

    /// Calls a peer over all connected links and waits for the first reply, at most until `deadline` from now.
    pub async fn call(&self, peer: VoterId, method: u8, body: Bytes, deadline: Duration) -> Result<Bytes, RpcError> {
        let peer = self.peer(peer)?;
        let (id, reply) = peer.begin(method, body)?;
        // Also when the caller drops this future.
        let _forget = Forget { peer, id };
        match tokio::time::timeout(deadline, reply).await {
            Ok(Ok(result)) => result,
            // The sender goes only with the channel.
            Ok(Err(_)) => Err(RpcError::NotConnected(peer.id)),
            Err(_) => Err(RpcError::Deadline(peer.id)),
        }
    }

    /// Sends a one-way message over all connected links; it may be lost.
    pub fn send(&self, peer: VoterId, body: &[u8]) -> Result<(), RpcError> {
        self.peer(peer)?.send(body)
    }

    /// What the heartbeats say of a link to a peer. When they stop, its connection is closed at once; when they come back, a new
    /// one is made at once. Without this, TCP would go on with a connection whose retransmission timer has backed off: what
    /// is sent after a healed partition would wait for it.
    pub fn heartbeats(&self, peer: VoterId, link: usize, alive: bool) {
        if let Some(peer) = self.inner.peers.get(&peer) {
            if alive {
                peer.hear(link);
            } else {
                peer.cut(link);
            }
        }
    }

    /// Which links to a peer are connected, in the order of the configuration; empty for an unknown peer.
    pub fn connected(&self, peer: VoterId) -> Vec<bool> {
        self.inner.peers.get(&peer).map(|peer| peer.connected()).unwrap_or_default()
    }

    /// The incarnation that a peer's newest handshake named; 0 before the first.
    pub fn incarnation(&self, peer: VoterId) -> Incarnation {
        self.inner.peers.get(&peer).map_or(0, |peer| peer.incarnation())
    }

    /// The incarnation that this voter names in its handshakes.
    pub fn own_incarnation(&self) -> Incarnation {
        self.inner.incarnation
    }

    /// The other voters.
    pub fn peers(&self) -> impl Iterator<Item = VoterId> {
        self.inner.peers.keys().copied()
    }

    /// The counters.
    pub fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    /// Closes the connection to a peer over one link (a fault for tests); it is made again after the usual pause.
    pub fn cut(&self, peer: VoterId, link: usize) {
        if let Some(peer) = self.inner.peers.get(&peer) {
            peer.cut(link);
        }
    }

    fn peer(&self, peer: VoterId) -> Result<&Arc<Peer>, RpcError> {
        self.inner.peers.get(&peer).ok_or(RpcError::Unknown(peer))
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        for task in self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
        for peer in self.inner.peers.values() {
            peer.close();
        }
    }
}

/// Takes a call off the list of those that wait, however its future ends.
struct Forget<'a> {
    peer: &'a Peer,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.peer.forget(self.id);
    }
}
