//! The service that the probe asks: in each node's namespace, it answers with the node's number.
//!
//! Bound to the VIP before the node has it (IP_FREEBIND), so that no part of a gap is the service's own start.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};

use crate::{netns::NetNs, realtime};

/// The UDP port that probes ask.
pub const PORT: u16 = 7007;
/// A probe is its number; an answer is the number and the node's byte.
pub const PROBE_BYTES: usize = 8;

/// A running responder; it ends when dropped.
#[derive(Debug)]
pub struct Responder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    /// Answers probes to `vip` in `ns` with `node`.
    pub fn start(ns: &NetNs, vip: IpAddr, node: u8) -> Result<Self> {
        let socket = ns.run(move || bind_early(SocketAddr::new(vip, PORT)))??;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let inside = stop.clone();
        let thread = realtime::spawn("responder", realtime::PROBE, move || {
            Ok(move || {
                let mut buffer = [0; PROBE_BYTES + 1];
                while !inside.load(Ordering::Relaxed) {
                    if let Ok((PROBE_BYTES, asker)) = socket.recv_from(&mut buffer) {
                        buffer[PROBE_BYTES] = node;
                        // An answer that cannot be sent is a probe that is never answered: the client counts it.
                        socket.send_to(&buffer, asker).ok();
                    }
                }
            })
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// A UDP socket bound to an address that this machine need not have yet.
pub fn bind_early(address: SocketAddr) -> Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_freebind_v6(true)?
    } else {
        socket.set_freebind_v4(true)?
    }
    socket.bind(&address.into()).with_context(|| format!("cannot bind {address} early"))?;
    Ok(socket.into())
}
