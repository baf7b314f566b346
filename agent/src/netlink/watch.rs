//! Watching the kernel's network configuration: links that come and go, addresses that somebody removes.
//!
//! The watch keeps the state that it has reported, and reports differences to it. When the kernel's queue overflows
//! (ENOBUFS) it reads the whole state afresh and reports what changed meanwhile, so a reader that was late ends right.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::IpAddr,
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    address::{self, Present},
    error::NetlinkError,
    link::{self, Link},
    socket::{RequestSocket, errno_of, force_receive_queue},
    wire,
};

/// Groups of linux/rtnetlink.h (RTNLGRP_*).
const GROUPS: [u32; 3] = [1, 5, 9];
/// A thousand addresses that change at once, both ways, while the reader is held up: about 1 KiB each.
const RECEIVE_QUEUE_BYTES: usize = 8 << 20;
const BUFFER_BYTES: usize = 64 << 10;
/// Datagrams read at most in one turn, so that a storm of changes does not starve the other tasks of the thread.
const READS_PER_TURN: usize = 64;
/// Datagrams thrown away at most before a resync: what the queue can hold.
const DRAIN_MAX: usize = 1 << 16;

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A device is new, or its state, name or Ethernet address changed. A device that is made again has a new index.
    Link {
        /// As it is now.
        now: Link,
        /// As it was.
        before: Option<Link>,
    },
    /// A device is gone, and its addresses with it.
    LinkGone(Link),
    /// An address was added.
    Address(Present),
    /// An address was removed.
    AddressGone(Present),
    /// The queue overflowed, the differences were reported before this. What came and went unseen was not: whoever depends
    /// on something checks it now.
    Resynced,
}

/// The watch.
#[derive(Debug)]
pub struct Watch {
    socket: AsyncFd<Watched>,
    requests: RequestSocket,
    links: BTreeMap<u32, Link>,
    addresses: BTreeMap<(u32, IpAddr), Present>,
    queue: VecDeque<Event>,
    resyncs: u64,
    buffer: Vec<u8>,
}

/// The socket, with a Debug form.
struct Watched(Socket);

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watched")
    }
}

impl std::os::fd::AsRawFd for Watched {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

impl Watch {
    /// Begin to watch in the calling thread's network namespace. The state of now is known at once ([`Self::links`]) and
    /// gives no events.
    ///
    /// # Errors
    /// [`NetlinkError::Setup`] for the sockets, or an error of the first dump. Must be called within a tokio runtime.
    pub fn open() -> Result<Self, NetlinkError> {
        let setup = |what| move |e: io::Error| NetlinkError::Setup { what, errno: errno_of(&e) };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(setup("the watching netlink socket"))?;
        socket.bind(&SocketAddr::new(0, 0)).map_err(setup("the watching netlink socket's address"))?;
        socket.set_non_blocking(true).map_err(setup("the watching netlink socket"))?;
        force_receive_queue(&socket, RECEIVE_QUEUE_BYTES)?;
        // Subscribe first and read the state after: a change in between is seen twice rather than never.
        for group in GROUPS {
            socket.add_membership(group).map_err(setup("the netlink subscription"))?;
        }
        // SAFETY: `Watched` owns the socket, never swaps or closes it, and gives the same descriptor each time until dropped.
        let socket = unsafe { AsyncFd::register_with_interest(Watched(socket), Interest::READABLE) }
            .map_err(|e| setup("the watching netlink socket's readiness")(e.into()))?;
        let mut watch = Self {
            socket,
            requests: RequestSocket::open()?,
            links: BTreeMap::new(),
            addresses: BTreeMap::new(),
            queue: VecDeque::new(),
            resyncs: 0,
            buffer: vec![0; BUFFER_BYTES],
        };
        watch.resync()?;
        watch.queue.clear();
        Ok(watch)
    }

    /// The devices as last reported, by ifindex.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// A device as last reported.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// Whether an address stands on a device, as last reported.
    pub fn has_address(&self, index: u32, ip: IpAddr) -> bool {
        self.addresses.contains_key(&(index, ip))
    }

    /// How often the queue overflowed and the whole state was read afresh.
    pub fn resyncs(&self) -> u64 {
        self.resyncs
    }

    /// The next change. Cancel-safe: a change that was read is kept for the next call.
    ///
    /// # Errors
    /// A transport error; the caller opens a new watch.
    pub async fn next(&mut self) -> Result<Event, NetlinkError> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Ok(event);
            }
            let ready = self.socket.readable().await;
            let mut guard = ready.map_err(|e| NetlinkError::Transport { action: "wait", errno: errno_of(&e) })?;
            let mut overflow = false;
            for _ in 0..READS_PER_TURN {
                match recv(&guard.get_inner().0, &mut self.buffer[..], RecvFlags::empty()) {
                    Ok((length, _)) => {
                        let datagram = self.buffer.get(..length).unwrap_or(&[]);
                        let state = State { links: &mut self.links, addresses: &mut self.addresses };
                        state.apply(datagram, &mut self.queue);
                    }
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => {
                        guard.clear_ready();
                        break;
                    }
                    Err(Errno::NOBUFS) => {
                        overflow = true;
                        break;
                    }
                    Err(errno) => {
                        return Err(NetlinkError::Transport { action: "receive", errno });
                    }
                }
            }
            if overflow {
                self.resyncs += 1;
                self.resync()?;
                self.queue.push_back(Event::Resynced);
            }
        }
    }

    /// Read the whole state and queue the differences.
    fn resync(&mut self) -> Result<(), NetlinkError> {
        // What is still queued is older than the dump.
        for _ in 0..DRAIN_MAX {
            match recv(&self.socket.get_ref().0, &mut self.buffer[..], RecvFlags::empty()) {
                Ok(_) | Err(Errno::INTR | Errno::NOBUFS) => {}
                Err(Errno::AGAIN) => break,
                Err(errno) => {
                    return Err(NetlinkError::Transport { action: "receive", errno });
                }
            }
        }
        let links = link::list(&mut self.requests)?;
        let addresses = address::list(&mut self.requests, 0)?;
        let mut state = State { links: &mut self.links, addresses: &mut self.addresses };
        let known: BTreeSet<u32> = links.iter().map(|l| l.index).collect();
        let gone: Vec<u32> = state.links.keys().copied().filter(|index| !known.contains(index)).collect();
        for index in gone {
            state.link_gone(index, &mut self.queue);
        }
        for link in links {
            state.link(link, &mut self.queue);
        }
        let present: BTreeSet<(u32, IpAddr)> = addresses.iter().map(|a| (a.index, a.ip)).collect();
        let lost: Vec<Present> =
            state.addresses.iter().filter(|(key, _)| !present.contains(key)).map(|(_, value)| *value).collect();
        for address in lost {
            state.address_gone(address, &mut self.queue);
        }
        for address in addresses {
            state.address(address, &mut self.queue);
        }
        Ok(())
    }
}

/// What the watch has reported so far.
struct State<'a> {
    links: &'a mut BTreeMap<u32, Link>,
    addresses: &'a mut BTreeMap<(u32, IpAddr), Present>,
}

impl State<'_> {
    fn apply(mut self, datagram: &[u8], queue: &mut VecDeque<Event>) {
        for message in wire::messages(datagram) {
            match message.kind {
                link::RTM_NEWLINK => {
                    if let Some(link) = link::parse(message.payload) {
                        self.link(link, queue);
                    }
                }
                link::RTM_DELLINK => {
                    if let Some(link) = link::parse(message.payload) {
                        self.link_gone(link.index, queue);
                    }
                }
                address::RTM_NEWADDR => {
                    if let Some(address) = address::parse(message.payload) {
                        self.address(address, queue);
                    }
                }
                address::RTM_DELADDR => {
                    if let Some(address) = address::parse(message.payload) {
                        self.address_gone(address, queue);
                    }
                }
                _ => {}
            }
        }
    }

    fn link(&mut self, now: Link, queue: &mut VecDeque<Event>) {
        let before = self.links.insert(now.index, now.clone());
        if before.as_ref() != Some(&now) {
            queue.push_back(Event::Link { now, before });
        }
    }

    fn link_gone(&mut self, index: u32, queue: &mut VecDeque<Event>) {
        self.addresses.retain(|(of, _), _| *of != index);
        if let Some(link) = self.links.remove(&index) {
            queue.push_back(Event::LinkGone(link));
        }
    }

    fn address(&mut self, address: Present, queue: &mut VecDeque<Event>) {
        if self.addresses.insert((address.index, address.ip), address) != Some(address) {
            queue.push_back(Event::Address(address));
        }
    }

    fn address_gone(&mut self, address: Present, queue: &mut VecDeque<Event>) {
        // Reported even when it was never seen: the kernel announces a new IPv6 address from a workqueue, and an address
        // that is removed before that gives this message alone.
        let known = self.addresses.remove(&(address.index, address.ip));
        queue.push_back(Event::AddressGone(known.unwrap_or(address)));
    }
}
