//! The channel's tasks: listening, dialling, and what happens to each message.

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError},
};

use bytes::Bytes;
use snow::StatelessTransportState;
use socket2::SockRef;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Inner, RpcError,
    counters::count,
    handshake::{self, Hello},
    limits::{CONNECT_PAUSE, HANDSHAKE_TIMEOUT, LISTEN_PAUSE, REQUESTS_MAX},
    link::{Link, LinkEnd, pause},
    message::{self, Kind},
    peer::{Arrival, Peer},
    socket,
};
use crate::cluster::ids::Incarnation;

/// Starts the listeners and the diallers. The voter with the smaller id dials, so that there is one connection a link.
pub(super) fn start(inner: &Arc<Inner>) {
    let mut tasks = Vec::new();
    for (index, local) in inner.links.iter().enumerate() {
        tasks.push(tokio::spawn(listen(Arc::clone(inner), index, *local)).abort_handle());
        for peer in inner.peers.values().filter(|peer| inner.me < peer.id) {
            tasks.push(tokio::spawn(dial(Arc::clone(inner), Arc::clone(peer), index, *local)).abort_handle());
        }
    }
    inner.tasks.lock().unwrap_or_else(PoisonError::into_inner).extend(tasks);
}

async fn listen(inner: Arc<Inner>, index: usize, local: SocketAddr) {
    // Dropped with this task, and the connections with it.
    let mut connections = JoinSet::new();
    loop {
        let listener = match socket::listen(local) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::warn!(%local, %error, "cannot listen for voters on this link yet");
                sleep(LISTEN_PAUSE).await;
                continue;
            }
        };
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) => accept(&inner, index, stream, from, &mut connections),
                    Err(error) => {
                        // Out of descriptors or memory: wait, the connections in the queue stay there.
                        tracing::warn!(%local, %error, "cannot accept a connection");
                        sleep(CONNECT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

fn accept(inner: &Arc<Inner>, index: usize, stream: TcpStream, from: SocketAddr, connections: &mut JoinSet<()>) {
    let known = inner.peers.values().any(|peer| peer.addresses.get(index).is_some_and(|at| at.ip() == from.ip()));
    if !known {
        count(&inner.counters.strangers);
        return;
    }
    let Ok(permit) = Arc::clone(&inner.handshakes).try_acquire_owned() else {
        count(&inner.counters.crowded);
        return;
    };
    let inner = Arc::clone(inner);
    connections.spawn(async move {
        let mut stream = stream;
        let answer = |theirs: &Hello| Hello {
            cluster: inner.secret.cluster,
            from: inner.me,
            to: theirs.from,
            link: theirs.link,
            incarnation: inner.incarnation,
        };
        let shaken = timeout(HANDSHAKE_TIMEOUT, handshake::respond(&mut stream, &inner.secret, answer)).await;
        drop(permit);
        let Some((noise, theirs)) = settled(&inner, shaken, from) else {
            return;
        };
        // The address must be that voter's, on that link: a voter speaks only for itself.
        let peer = inner.peers.get(&theirs.from).filter(|peer| {
            usize::from(theirs.link) == index && peer.addresses.get(index).is_some_and(|at| at.ip() == from.ip())
        });
        let Some(peer) = peer else {
            count(&inner.counters.strangers);
            return;
        };
        let peer = Arc::clone(peer);
        let link = Link::new(stream, noise, 0);
        connection(&inner, &peer, index, theirs.incarnation, link, 1).await;
    });
}

async fn dial(inner: Arc<Inner>, peer: Arc<Peer>, index: usize, local: SocketAddr) {
    let (Some(remote), Ok(link)) = (peer.addresses.get(index).copied(), u8::try_from(index)) else {
        return;
    };
    let hello =
        Hello { cluster: inner.secret.cluster, from: inner.me, to: peer.id, link, incarnation: inner.incarnation };
    loop {
        let mut wait = CONNECT_PAUSE;
        let attempt = async {
            let mut stream = socket::connect(local, remote).await.ok()?;
            let handshake = handshake::initiate(&mut stream, &inner.secret, hello);
            let shaken = timeout(HANDSHAKE_TIMEOUT, handshake).await;
            settled(&inner, shaken, remote).map(|(noise, theirs)| (stream, noise, theirs))
        };
        let connected = tokio::select! {
            connected = attempt => connected,
            // The first packet of an attempt that began while the link was dead is lost, and TCP repeats it after a second.
            () = peer.heard(index) => continue,
        };
        if let Some((stream, noise, theirs)) = connected {
            let link = Link::new(stream, noise, 1);
            let end = connection(&inner, &peer, index, theirs.incarnation, link, 0).await;
            wait = pause(&end, CONNECT_PAUSE);
        }
        tokio::select! {
            () = sleep(wait) => {}
            () = peer.heard(index) => {}
        }
    }
}

type Shaken = Result<(StatelessTransportState, Hello), handshake::HandshakeError>;

/// Counts and logs a handshake that failed.
fn settled(
    inner: &Inner,
    shaken: Result<Shaken, tokio::time::error::Elapsed>,
    other: SocketAddr,
) -> Option<(StatelessTransportState, Hello)> {
    match shaken {
        Ok(Ok(good)) => Some(good),
        Ok(Err(error)) => {
            count(&inner.counters.bad_handshakes);
            tracing::debug!(%other, %error, "a handshake failed");
            None
        }
        Err(_) => {
            count(&inner.counters.slow_handshakes);
            None
        }
    }
}

/// Runs one connection to its end.
async fn connection(
    inner: &Arc<Inner>,
    peer: &Arc<Peer>,
    index: usize,
    incarnation: Incarnation,
    link: Link,
    received: u64,
) -> LinkEnd {
    let link = Arc::new(link);
    if let Err(error) = socket::tune(&SockRef::from(link.stream())) {
        return LinkEnd::Io(error);
    }
    if !peer.join(index, incarnation, &link, &inner.counters) {
        count(&inner.counters.bad_handshakes);
        return LinkEnd::Replaced;
    }
    count(&inner.counters.connections);
    tracing::debug!(peer = %peer.id, link = index, incarnation, "connected");
    let end = link.run(received, |message| receive(inner, peer, incarnation, &link, message)).await;
    peer.leave(index, &link);
    count(&inner.counters.disconnections);
    match &end {
        LinkEnd::Ciphertext | LinkEnd::Message => count(&inner.counters.bad_frames),
        LinkEnd::Stuck => count(&inner.counters.stuck),
        _ => {}
    }
    tracing::debug!(peer = %peer.id, link = index, reason = %end, "disconnected");
    end
}

/// One message of a peer; `false` when it makes no sense.
fn receive(inner: &Arc<Inner>, peer: &Arc<Peer>, incarnation: Incarnation, link: &Link, message: Bytes) -> bool {
    let Some(message) = message::decode(message) else {
        return false;
    };
    match message.kind {
        Kind::Reply => settle(inner, peer, message.id, Ok(message.body)),
        Kind::Failure => {
            let reason = String::from_utf8_lossy(&message.body).into_owned();
            settle(inner, peer, message.id, Err(RpcError::Failed { peer: peer.id, reason }));
        }
        Kind::OneWay => match peer.arrive(incarnation, message.id, false) {
            Arrival::New => {
                if inner.one_way.try_send((peer.id, message.body)).is_err() {
                    count(&inner.counters.one_way_dropped);
                }
            }
            _ => count(&inner.counters.duplicates),
        },
        Kind::Request | Kind::Again => match peer.arrive(incarnation, message.id, message.kind == Kind::Again) {
            Arrival::New => work(inner, peer, incarnation, message.method, message.id, message.body),
            Arrival::Copy => count(&inner.counters.duplicates),
            Arrival::Answered(reply) => {
                link.send(&reply);
            }
        },
    }
    true
}

fn settle(inner: &Inner, peer: &Peer, id: u64, result: Result<Bytes, RpcError>) {
    if !peer.finish(id, result) {
        count(&inner.counters.late_replies);
    }
}

/// Carries a request out, in a task of its own.
fn work(inner: &Arc<Inner>, peer: &Arc<Peer>, incarnation: Incarnation, method: u8, id: u64, body: Bytes) {
    let Some(place) = peer.take_place(REQUESTS_MAX) else {
        count(&inner.counters.requests_dropped);
        return;
    };
    let Some(handler) = inner.handler.get() else {
        peer.reply(incarnation, id, &Err("not ready yet".to_owned()));
        return;
    };
    let answer = handler(peer.id, method, body);
    let peer = Arc::clone(peer);
    tokio::spawn(async move {
        let answer = answer.await;
        peer.reply(incarnation, id, &answer);
        drop(place);
    });
}
