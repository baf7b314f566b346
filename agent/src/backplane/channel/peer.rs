//! What the channel knows of one peer: its connections, the calls that wait for it, and what it has sent already.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use super::{
    RpcError,
    counters::{Counters, count},
    limits::PENDING_MAX,
    link::Link,
    message::{self, Kind},
    window::{Replies, Window},
};
use crate::cluster::ids::{Incarnation, VoterId};

/// A peer.
pub(super) struct Peer {
    pub id: VoterId,
    /// Its address on each link.
    pub addresses: Vec<SocketAddr>,
    /// Its requests that are being worked on.
    pub working: AtomicUsize,
    /// Raised when the heartbeats come back on a link.
    heard: Vec<Notify>,
    state: Mutex<State>,
}

struct State {
    incarnation: Incarnation,
    links: Vec<Option<Arc<Link>>>,
    next: u64,
    pending: BTreeMap<u64, Pending>,
    window: Window,
    replies: Replies,
}

struct Pending {
    method: u8,
    body: Bytes,
    reply: oneshot::Sender<Result<Bytes, RpcError>>,
}

/// What to do with a request.
pub(super) enum Arrival {
    New,
    Copy,
    /// It was answered already, over a connection that may have died: answer again.
    Answered(Bytes),
}

impl Peer {
    pub fn new(id: VoterId, addresses: Vec<SocketAddr>) -> Self {
        let links = addresses.iter().map(|_| None).collect();
        let heard = addresses.iter().map(|_| Notify::new()).collect();
        Self {
            id,
            addresses,
            working: AtomicUsize::new(0),
            heard,
            state: Mutex::new(State {
                incarnation: 0,
                links,
                next: 1,
                pending: BTreeMap::new(),
                window: Window::default(),
                replies: Replies::default(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a new connection into use; `false` when it belongs to an incarnation that has ended.
    pub fn join(&self, index: usize, incarnation: Incarnation, link: &Arc<Link>, counters: &Counters) -> bool {
        let mut state = self.state();
        if incarnation < state.incarnation || index >= state.links.len() {
            return false;
        }
        if incarnation > state.incarnation {
            state.incarnation = incarnation;
            state.window = Window::default();
            state.replies = Replies::default();
            for old in state.links.iter_mut().filter_map(Option::take) {
                old.close();
            }
            // The old incarnation may have carried them out: only the caller can tell whether to ask again.
            for (_, call) in std::mem::take(&mut state.pending) {
                answer(call.reply, Err(RpcError::Restarted(self.id)));
            }
        }
        if let Some(old) = state.links[index].replace(Arc::clone(link)) {
            old.close();
        }
        for (id, call) in &state.pending {
            if let Some(again) = message::encode(Kind::Again, call.method, *id, &call.body) {
                link.send(&again);
                count(&counters.sent_again);
            }
        }
        true
    }

    /// Takes a connection out of use, unless another took its place already.
    pub fn leave(&self, index: usize, link: &Arc<Link>) {
        let mut state = self.state();
        if let Some(slot) = state.links.get_mut(index)
            && slot.as_ref().is_some_and(|now| Arc::ptr_eq(now, link))
        {
            *slot = None;
        }
    }

    /// Which links are connected.
    pub fn connected(&self) -> Vec<bool> {
        self.state().links.iter().map(Option::is_some).collect()
    }

    /// The incarnation that the newest handshake named; 0 before the first.
    pub fn incarnation(&self) -> Incarnation {
        self.state().incarnation
    }

    /// Closes every connection.
    pub fn close(&self) {
        for link in self.state().links.iter_mut().filter_map(Option::take) {
            link.close();
        }
    }

    /// The heartbeats are back on a link.
    pub fn hear(&self, index: usize) {
        if let Some(heard) = self.heard.get(index) {
            heard.notify_one();
        }
    }

    /// Waits until the heartbeats come back on a link; for ever on a link that there is not.
    pub async fn heard(&self, index: usize) {
        match self.heard.get(index) {
            Some(heard) => heard.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Closes the connection over one link, if there is one.
    pub fn cut(&self, index: usize) {
        if let Some(link) = self.state().links.get(index).and_then(Option::as_ref) {
            link.close();
        }
    }

    /// Sends a message over all connected links; returns how many took it.
    fn broadcast(state: &State, message: &[u8]) -> usize {
        state.links.iter().flatten().filter(|link| link.send(message)).count()
    }

    /// Begins a call: the request is on its way over all connected links.
    pub fn begin(
        &self,
        method: u8,
        body: Bytes,
    ) -> Result<(u64, oneshot::Receiver<Result<Bytes, RpcError>>), RpcError> {
        let mut state = self.state();
        if state.pending.len() >= PENDING_MAX {
            return Err(RpcError::Busy(self.id));
        }
        let id = state.next;
        let request = message::encode(Kind::Request, method, id, &body).ok_or(RpcError::TooLarge(body.len()))?;
        if Self::broadcast(&state, &request) == 0 {
            return Err(RpcError::NotConnected(self.id));
        }
        state.next += 1;
        let (reply, receiver) = oneshot::channel();
        state.pending.insert(id, Pending { method, body, reply });
        Ok((id, receiver))
    }

    /// Forgets a call whose caller no longer waits.
    pub fn forget(&self, id: u64) {
        self.state().pending.remove(&id);
    }

    /// A reply arrived; returns whether somebody waited for it.
    pub fn finish(&self, id: u64, result: Result<Bytes, RpcError>) -> bool {
        let call = self.state().pending.remove(&id);
        call.is_some_and(|call| answer(call.reply, result))
    }

    /// Sends a one-way message over all connected links.
    pub fn send(&self, body: &[u8]) -> Result<(), RpcError> {
        let mut state = self.state();
        let message = message::encode(Kind::OneWay, 0, state.next, body).ok_or(RpcError::TooLarge(body.len()))?;
        state.next += 1;
        if Self::broadcast(&state, &message) == 0 { Err(RpcError::NotConnected(self.id)) } else { Ok(()) }
    }

    /// Sends the answer to a request over all connected links, and keeps it for a while.
    pub fn reply(&self, incarnation: Incarnation, id: u64, answer: &Result<Bytes, String>) {
        let message = match answer {
            Ok(body) => message::encode(Kind::Reply, 0, id, body),
            Err(reason) => message::encode(Kind::Failure, 0, id, reason.as_bytes()),
        };
        let Some(message) = message.or_else(|| message::encode(Kind::Failure, 0, id, b"the reply is too large")) else {
            return;
        };
        let mut state = self.state();
        if state.incarnation == incarnation {
            Self::broadcast(&state, &message);
            state.replies.keep(id, message);
        }
    }

    /// Notes that a message came; the id space of requests and one-way messages is one.
    pub fn arrive(&self, incarnation: Incarnation, id: u64, again: bool) -> Arrival {
        let mut state = self.state();
        if state.incarnation != incarnation {
            return Arrival::Copy;
        }
        if state.window.is_new(id) {
            return Arrival::New;
        }
        match state.replies.find(id) {
            Some(reply) if again => Arrival::Answered(reply),
            _ => Arrival::Copy,
        }
    }

    /// Takes a place among the requests that are worked on, up to `limit`.
    pub fn take_place(self: &Arc<Self>, limit: usize) -> Option<Place> {
        if self.working.fetch_add(1, Relaxed) >= limit {
            self.working.fetch_sub(1, Relaxed);
            return None;
        }
        Some(Place(Arc::clone(self)))
    }
}

fn answer(reply: oneshot::Sender<Result<Bytes, RpcError>>, result: Result<Bytes, RpcError>) -> bool {
    reply.send(result).is_ok()
}

/// A request that is being worked on.
pub(super) struct Place(Arc<Peer>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.working.fetch_sub(1, Relaxed);
    }
}
