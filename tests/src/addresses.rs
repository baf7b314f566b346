//! The address recorder: which node held which address when, from the kernels' own events (rtnetlink(7)).

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

use crate::{overlap::Tenure, realtime, topology::Lab};

const EVENTS_MAX: usize = 1 << 20;

/// An address that came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it was read, in nanoseconds.
    pub at: Nanos,
    /// The node's position in the lab.
    pub node: usize,
    /// The address.
    pub address: IpAddr,
    /// Came, or went.
    pub added: bool,
}

/// A running recorder; it ends when dropped. Start it before the system under test.
#[derive(Debug)]
pub struct AddressRecorder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    events: Mutex<Vec<Event>>,
}

impl AddressRecorder {
    /// Starts to record the address events of all nodes.
    pub fn start(lab: &Lab) -> Result<Self> {
        let sockets = lab.nodes.iter().map(|node| node.ns.run(subscribe)?).collect::<Result<Vec<_>>>()?;
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), events: Mutex::default() });
        let inside = shared.clone();
        let thread = realtime::spawn("addresses", realtime::PROBE, move || Ok(move || inside.run(&sockets)))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Event> {
        self.shared.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From when to when each node held `address`; what is still held counts until `now`.
    pub fn tenures(&self, address: IpAddr, now: Nanos) -> Vec<Tenure> {
        tenures(&self.events(), address, now)
    }
}

fn tenures(events: &[Event], address: IpAddr, now: Nanos) -> Vec<Tenure> {
    let mut held = std::collections::BTreeMap::<usize, Nanos>::new();
    let mut tenures = Vec::new();
    for event in events.iter().filter(|e| e.address == address) {
        if event.added {
            held.entry(event.node).or_insert(event.at);
        } else if let Some(first) = held.remove(&event.node) {
            tenures.push(Tenure { holder: event.node, first, last: event.at });
        }
    }
    tenures.extend(held.into_iter().map(|(holder, first)| Tenure { holder, first, last: now.max(first) }));
    tenures
}

impl AddressRecorder {
    /// Ends the recording; what was recorded stays. For experiments with so many addresses that telling an
    /// observer of each, which is work of the one that adds it, would be part of what is measured.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Drop for AddressRecorder {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn run(&self, sockets: &[OwnedFd]) {
        let mut buffer = vec![0u8; 1 << 16];
        while !self.stop.load(Ordering::Relaxed) {
            let mut fds: Vec<_> = sockets.iter().map(|s| PollFd::new(s, PollFlags::IN)).collect();
            let timeout = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            if poll(&mut fds, Some(&timeout)).is_err() {
                continue;
            }
            for (node, socket) in sockets.iter().enumerate() {
                let (fd, data) = (socket.as_raw_fd(), buffer.as_mut_ptr().cast());
                // SAFETY: the buffer is alive and its length is given.
                let length = unsafe { libc::recv(fd, data, buffer.len(), libc::MSG_DONTWAIT) };
                let Ok(length) = usize::try_from(length) else {
                    continue;
                };
                let at = clock::now();
                let found = parse(&buffer[..length]);
                let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
                let room = EVENTS_MAX - events.len().min(EVENTS_MAX);
                events.extend(found.into_iter().take(room).map(|(address, added)| Event { at, node, address, added }));
            }
        }
    }
}

/// A netlink socket in the calling thread's namespace that hears of addresses.
fn subscribe() -> Result<OwnedFd> {
    // SAFETY: plain system calls; the address is zeroed plain data, and the descriptor is owned at once.
    unsafe {
        let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE);
        if fd < 0 {
            return Err(io::Error::last_os_error()).context("cannot open a netlink socket");
        }
        let socket = OwnedFd::from_raw_fd(fd);
        let mut address: libc::sockaddr_nl = std::mem::zeroed();
        address.nl_family = libc::AF_NETLINK as u16;
        address.nl_groups = (libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR) as u32;
        let length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        if libc::bind(fd, (&raw const address).cast(), length) != 0 {
            return Err(io::Error::last_os_error()).context("cannot subscribe to address events");
        }
        Ok(socket)
    }
}

/// The addresses in a datagram of rtnetlink: nlmsghdr (16 bytes), ifaddrmsg (8), attributes.
fn parse(mut bytes: &[u8]) -> Vec<(IpAddr, bool)> {
    let mut found = Vec::new();
    while let Some((message, rest)) = split(bytes, 16) {
        bytes = rest;
        let added = match u16::from_ne_bytes([message[4], message[5]]) {
            libc::RTM_NEWADDR => true,
            libc::RTM_DELADDR => false,
            _ => continue,
        };
        let mut attributes = message.get(24..).unwrap_or_default();
        let mut address = None;
        while let Some((attribute, rest)) = split_attribute(attributes) {
            attributes = rest;
            let kind = u16::from_ne_bytes([attribute[2], attribute[3]]);
            let value = match attribute.len() {
                8 => <[u8; 4]>::try_from(&attribute[4..]).ok().map(IpAddr::from),
                20 => <[u8; 16]>::try_from(&attribute[4..]).ok().map(IpAddr::from),
                _ => None,
            };
            // IFA_LOCAL is the address itself; IFA_ADDRESS is the peer's on point-to-point links, and all that IPv6 has.
            if value.is_some() && (kind == libc::IFA_LOCAL || (kind == libc::IFA_ADDRESS && address.is_none())) {
                address = value;
            }
        }
        found.extend(address.map(|a| (a, added)));
    }
    found
}

/// The first message (its length is in its first four bytes, padded to four) and what follows it.
fn split(bytes: &[u8], least: usize) -> Option<(&[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    cut(bytes, length, least)
}

fn split_attribute(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
    cut(bytes, length, 4)
}

fn cut(bytes: &[u8], length: usize, least: usize) -> Option<(&[u8], &[u8])> {
    let head = bytes.get(..length).filter(|head| head.len() >= least)?;
    let padded = length.div_ceil(4) * 4;
    Some((head, bytes.get(padded..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{topology::Spec, wait};
    use std::time::Duration;

    #[test]
    fn addresses_that_come_and_go_are_recorded() {
        let lab = Lab::new(Spec { arbiter: false, clients: 0, ..Spec::usual("addresses-test") }).unwrap();
        let recorder = AddressRecorder::start(&lab).unwrap();
        lab.nodes[1].ns.ip("address add 192.0.2.77/24 dev front0\naddress add 2001:db8::77/64 dev front0").unwrap();
        lab.nodes[1].ns.ip("address del 192.0.2.77/24 dev front0").unwrap();
        let last = |e: &Event| !e.added && e.address.is_ipv4();
        wait::until(Duration::from_secs(5), "the last event", || Ok(recorder.events().iter().any(last))).unwrap();
        let v4 = recorder.tenures("192.0.2.77".parse().unwrap(), clock::now());
        let v6 = recorder.tenures("2001:db8::77".parse().unwrap(), clock::now());
        assert_eq!((v4.len(), v4[0].holder), (1, 1));
        assert_eq!((v6.len(), v6[0].holder), (1, 1));
        assert!(v6[0].last > v4[0].last);
    }

    #[test]
    fn cut_short_messages_are_no_events() {
        for length in 0..40u8 {
            let mut bytes = vec![length; 40];
            bytes[..4].copy_from_slice(&u32::from(length).to_ne_bytes());
            bytes[4..6].copy_from_slice(&libc::RTM_NEWADDR.to_ne_bytes());
            assert!(parse(&bytes).is_empty());
            assert!(parse(&bytes[..usize::from(length)]).is_empty());
        }
    }
}
