//! The wire observer: asks the whole front who has each VIP, every few milliseconds, and notes who claims it.
//!
//! It stands in a namespace of its own: answers to its questions don't touch the neighbour caches of the clients.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::{Context, Result};
use baton::{clock, cluster::ids::Nanos};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    overlap::{Tenure, tenures_of},
    packet::{self, Claim},
    realtime,
    topology::{Lab, Mac},
};

/// Between two questions for the same address.
pub const ASK_EVERY_NS: Nanos = 2_000_000;
/// Answers that are closer than this belong to one tenure: a few questions may get lost.
const JOIN_NS: Nanos = 5 * ASK_EVERY_NS;
const CLAIMS_MAX: usize = 1 << 21;

/// A running observer; it ends when dropped.
#[derive(Debug)]
pub struct WireObserver {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    macs: Vec<Mac>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    claims: Mutex<Vec<(Nanos, Claim)>>,
}

impl WireObserver {
    /// Starts to ask for `vips` on the lab's front.
    pub fn start(lab: &Lab, vips: &[IpAddr]) -> Result<Self> {
        let machine = &lab.observer;
        let source = machine.front.context("the observer stands on the front")?;
        let socket = machine.ns.run(open_front)??;
        let questions: Vec<_> = vips.iter().map(|vip| packet::question(machine.front_mac, source, *vip)).collect();
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), claims: Mutex::new(Vec::with_capacity(1 << 16)) });
        let inside = shared.clone();
        let thread =
            realtime::spawn("wire-observer", realtime::PROBE, move || Ok(move || inside.run(&socket, &questions)))?;
        Ok(Self { shared, thread: Some(thread), macs: lab.nodes.iter().map(|n| n.front_mac).collect() })
    }

    /// All claims of a window, oldest first.
    pub fn claims(&self, from: Nanos, to: Nanos) -> Vec<(Nanos, Claim)> {
        let claims = self.shared.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let start = claims.partition_point(|(at, _)| *at < from);
        claims[start..].iter().take_while(|(at, _)| *at <= to).copied().collect()
    }

    /// From when to when each node answered for `vip`; the holder is the node's position in the lab.
    ///
    /// Holders beyond the lab's nodes are strangers.
    pub fn tenures(&self, vip: IpAddr, from: Nanos, to: Nanos) -> Vec<Tenure> {
        let answers = self.claims(from, to).into_iter().filter(|(_, c)| c.answer && c.address == vip);
        tenures_of(answers.map(|(at, c)| (self.holder(c.mac), at)), JOIN_NS)
    }

    /// The nodes that answered for `vip` within the last `span_ns`, by their position in the lab.
    pub fn answering(&self, vip: IpAddr, span_ns: Nanos) -> Vec<usize> {
        let now = clock::now();
        let mut nodes: Vec<_> = self.tenures(vip, now.saturating_sub(span_ns), now).iter().map(|t| t.holder).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    fn holder(&self, mac: Mac) -> usize {
        self.macs.iter().position(|m| *m == mac).unwrap_or(self.macs.len())
    }
}

impl Drop for WireObserver {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn run(&self, socket: &OwnedFd, questions: &[Vec<u8>]) {
        let mut due = clock::now();
        while !self.stop.load(Ordering::Relaxed) {
            let now = clock::now();
            if now >= due {
                for question in questions {
                    // SAFETY: the buffer is alive and its length is given. A refusal only costs this question.
                    unsafe { libc::send(socket.as_raw_fd(), question.as_ptr().cast(), question.len(), 0) };
                }
                due = (due + ASK_EVERY_NS).max(now);
            }
            let timeout = Timespec { tv_sec: 0, tv_nsec: due.saturating_sub(clock::now()).min(999_999_999) as i64 };
            let mut fds = [PollFd::new(socket, PollFlags::IN)];
            if poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0) {
                self.drain(socket);
            }
        }
    }

    fn drain(&self, socket: &OwnedFd) {
        let mut frame = [0u8; 256];
        for _ in 0..256 {
            let (fd, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT | libc::MSG_TRUNC);
            // SAFETY: the buffer is alive and its length is given.
            let length = unsafe { libc::recv(fd, frame.as_mut_ptr().cast(), frame.len(), flags) };
            let Ok(length) = usize::try_from(length) else {
                return;
            };
            if let Some(claim) = packet::claim(&frame[..length.min(frame.len())]) {
                let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
                if claims.len() < CLAIMS_MAX {
                    claims.push((clock::now(), claim));
                }
            }
        }
    }
}

/// A packet socket on front0 of the calling thread's namespace.
fn open_front() -> Result<OwnedFd> {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: plain system calls; the address is zeroed plain data, and the descriptor is owned at once.
    unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(protocol));
        if fd < 0 {
            return Err(io::Error::last_os_error()).context("cannot open a packet socket; run as root");
        }
        let socket = OwnedFd::from_raw_fd(fd);
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = libc::if_nametoindex(c"front0".as_ptr()) as i32;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        if libc::bind(fd, (&raw const address).cast(), length) != 0 {
            return Err(io::Error::last_os_error()).context("cannot bind a packet socket to front0");
        }
        Ok(socket)
    }
}
