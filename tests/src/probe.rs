//! The client probe: a UDP question to the VIP every millisecond, and what became of each.
//!
//! Each question is a flow of its own, from a port that was not used within the last minute: it tells who takes *new* flows. The
//! old owner of a planned move goes on serving those that it has.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::Result;
use baton::{clock, cluster::ids::Nanos};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    time::{ClockId, clock_gettime},
};

use crate::{
    netns::NetNs,
    realtime,
    responder::{PORT, PROBE_BYTES},
};

/// Probes that are remembered: over four minutes at 1 ms.
const REMEMBERED: usize = 1 << 18;

/// The ports that questions are asked from, one after the other: at 1 ms each comes again after 64 s, longer than an agent remembers
/// a flow.
const PORTS: std::ops::RangeInclusive<u16> = 1_025..=65_500;
/// How far apart two probes begin.
const APART: u64 = 16_411;
/// How many of the last questions are listened for: a quarter of a second at 1 ms.
const LISTENED: usize = 256;

/// A running probe; it ends when dropped.
#[derive(Debug)]
pub struct Probe {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    interval_ns: Nanos,
    /// Number of the next probe.
    next: AtomicU64,
    slots: Box<[Slot]>,
}

/// What is known of one probe. `sent` is 0 while the slot is rewritten.
#[derive(Debug, Default)]
struct Slot {
    number: AtomicU64,
    sent: AtomicU64,
    /// Arrival of the answer at the client's kernel; 0 for none.
    answered: AtomicU64,
    by: AtomicU8,
}

/// An answered probe: who answered, and when the answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When it arrived, in nanoseconds.
    pub at: Nanos,
    /// The number of the node that answered.
    pub by: u8,
}

/// What a client saw in a window of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Probes sent.
    pub sent: u64,
    /// Probes never answered.
    pub lost: u64,
    /// The longest time without an answer, the window's ends included, in nanoseconds.
    pub gap_ns: Nanos,
    /// Who answered, in order of arrival, without repetitions of the same.
    pub owners: Vec<u8>,
}

impl Probe {
    /// Starts to ask `vip` from within `ns`, once every `interval_ns`.
    pub fn start(ns: &NetNs, vip: IpAddr, interval_ns: Nanos) -> Result<Self> {
        // That a socket can be had is seen here rather than in the thread.
        ns.run(move || open(vip, 0).map(drop))??;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            interval_ns,
            next: AtomicU64::new(1),
            slots: (0..REMEMBERED).map(|_| Slot::default()).collect(),
        });
        let inside = shared.clone();
        let target = SocketAddr::new(vip, PORT);
        let ns = ns.clone();
        let thread = realtime::spawn("probe", realtime::PROBE, move || {
            ns.enter()?;
            Ok(move || inside.run(target))
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What was seen of the probes sent in a window. Its end should be old enough for the last answers to have come.
    pub fn report(&self, from: Nanos, to: Nanos) -> Report {
        let mut report = Report::default();
        let mut answers = Vec::new();
        for (sent, answer) in self.window(from, to) {
            report.sent += 1;
            match answer {
                Some(answer) => answers.push((answer.at, answer.by)),
                None => {
                    report.lost += 1;
                    // Nothing is lost twice; the number sent stays in `sent`.
                    debug_assert!(sent >= from);
                }
            }
        }
        answers.sort_unstable();
        let mut last = from;
        for (at, by) in answers {
            report.gap_ns = report.gap_ns.max(at.saturating_sub(last));
            last = last.max(at);
            if report.owners.last() != Some(&by) {
                report.owners.push(by);
            }
        }
        report.gap_ns = report.gap_ns.max(to.saturating_sub(last));
        report
    }

    /// The node that answered all probes of the last `span_ns` (the youngest 3 intervals may be on their way).
    pub fn steady_owner(&self, span_ns: Nanos) -> Option<u8> {
        let now = clock::now();
        let to = now.saturating_sub(3 * self.shared.interval_ns);
        let mut owner = None;
        for (_, answer) in self.window(to.saturating_sub(span_ns), to) {
            let by = answer?.by;
            if owner.is_some_and(|o| o != by) {
                return None;
            }
            owner = Some(by);
        }
        owner
    }

    /// The first answer that arrived at or after `instant`.
    pub fn first_answer(&self, instant: Nanos) -> Option<Answer> {
        // An answer may belong to a probe sent a little earlier.
        let from = instant.saturating_sub(10 * self.shared.interval_ns);
        let answers = self.window(from, Nanos::MAX).into_iter().filter_map(|(_, answer)| answer);
        answers.filter(|a| a.at >= instant).min_by_key(|a| a.at)
    }

    /// When the first answer by a node other than `than` arrived, from `instant` on.
    pub fn first_answer_by_another(&self, instant: Nanos, than: usize) -> Option<Nanos> {
        let answers = self.window(instant, Nanos::MAX).into_iter().filter_map(|(_, answer)| answer);
        answers.filter(|a| usize::from(a.by) != than).map(|a| a.at).min()
    }

    /// The probes sent in a window, oldest first: when, and the answer if one came.
    fn window(&self, from: Nanos, to: Nanos) -> Vec<(Nanos, Option<Answer>)> {
        let next = self.shared.next.load(Ordering::Acquire);
        let oldest = next.saturating_sub(REMEMBERED as u64).max(1);
        let mut found = Vec::new();
        for number in (oldest..next).rev() {
            let slot = self.shared.slot(number);
            let (sent, at) = (slot.sent.load(Ordering::Acquire), slot.answered.load(Ordering::Acquire));
            if slot.number.load(Ordering::Acquire) != number || sent == 0 || sent > to {
                continue;
            }
            if sent < from {
                break;
            }
            let answer = (at != 0).then(|| Answer { at, by: slot.by.load(Ordering::Relaxed) });
            found.push((sent, answer));
        }
        found.reverse();
        found
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn slot(&self, number: u64) -> &Slot {
        &self.slots[number as usize % REMEMBERED]
    }

    fn run(&self, target: SocketAddr) {
        let mut due = clock::now();
        // Probes side by side begin at ports of their own.
        static BEGIN: AtomicU64 = AtomicU64::new(0);
        let begin = BEGIN.fetch_add(APART, Ordering::Relaxed) % PORTS.len() as u64;
        let mut ports = PORTS.cycle().skip(begin as usize);
        let mut sockets: VecDeque<UdpSocket> = VecDeque::with_capacity(LISTENED);
        while !self.stop.load(Ordering::Relaxed) {
            let now = clock::now();
            if now >= due {
                // A port that somebody else uses is passed over.
                let fresh = ports.by_ref().take(64).find_map(|port| open(target.ip(), port).ok());
                if let Some(fresh) = fresh {
                    self.send(&fresh, target, now);
                    if sockets.len() == LISTENED {
                        sockets.pop_front();
                    }
                    sockets.push_back(fresh);
                }
                // After a stall, go on from now: probes that were never sent are not lost ones.
                due = (due + self.interval_ns).max(now);
            }
            let left = due.saturating_sub(clock::now());
            let timeout = Timespec { tv_sec: 0, tv_nsec: left.min(999_999_999) as i64 };
            let mut fds: Vec<PollFd<'_>> = sockets.iter().map(|s| PollFd::new(s, PollFlags::IN)).collect();
            // Interrupted or timed out alike: the loop looks at the clock again.
            if poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0) {
                let ready = fds.iter().zip(&sockets).filter(|(fd, _)| !fd.revents().is_empty());
                for (_, socket) in ready {
                    while let Some((number, answer)) = receive(socket) {
                        self.take(number, answer);
                    }
                }
            }
        }
    }

    fn send(&self, socket: &UdpSocket, target: SocketAddr, now: Nanos) {
        let number = self.next.load(Ordering::Relaxed);
        let slot = self.slot(number);
        slot.sent.store(0, Ordering::Release);
        slot.answered.store(0, Ordering::Release);
        slot.number.store(number, Ordering::Release);
        slot.sent.store(now, Ordering::Release);
        self.next.store(number + 1, Ordering::Release);
        // A refusal (no neighbour, no route) is a probe that is never answered.
        socket.send_to(&number.to_le_bytes(), target).ok();
    }

    fn take(&self, number: u64, answer: Answer) {
        let slot = self.slot(number);
        if slot.number.load(Ordering::Relaxed) == number && slot.answered.load(Ordering::Relaxed) == 0 {
            slot.by.store(answer.by, Ordering::Relaxed);
            slot.answered.store(answer.at, Ordering::Release);
        }
    }
}

/// A socket of the calling thread's network namespace on a port, of the address family of `like`.
fn open(like: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let any: IpAddr = if like.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, port))?;
    socket.set_nonblocking(true)?;
    stamp_arrivals(&socket)?;
    Ok(socket)
}

/// Asks the kernel to stamp each datagram at its arrival, so that the gap is not the probe's own delay.
fn stamp_arrivals(socket: &UdpSocket) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option's value outlives the call and its length is given.
    let result = unsafe {
        let value = (&raw const on).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, value, length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The next answer that waits in the socket; errors that the network reports on it are skipped.
fn receive(socket: &UdpSocket) -> Option<(u64, Answer)> {
    for _ in 0..64 {
        let mut bytes = [0u8; PROBE_BYTES + 1];
        let mut control = [0u64; 8];
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: msghdr is plain data for which zero is valid.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: the message points at buffers of this frame, with their lengths.
        let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        if length < 0 {
            if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock {
                return None;
            }
            continue;
        }
        if length == bytes.len() as isize {
            let mut number = [0; PROBE_BYTES];
            number.copy_from_slice(&bytes[..PROBE_BYTES]);
            let at = arrival(&message).unwrap_or_else(clock::now);
            return Some((u64::from_le_bytes(number), Answer { at, by: bytes[PROBE_BYTES] }));
        }
    }
    None
}

/// The kernel's stamp (CLOCK_REALTIME), carried over to the project's clock.
fn arrival(message: &libc::msghdr) -> Option<Nanos> {
    // SAFETY: the message was filled in by recvmsg(2) and its control buffer is alive.
    let stamp = unsafe {
        let header = libc::CMSG_FIRSTHDR(message);
        if header.is_null() || (*header).cmsg_type != libc::SCM_TIMESTAMPNS {
            return None;
        }
        libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned()
    };
    let wall = clock_gettime(ClockId::Realtime);
    let age = (wall.tv_sec - stamp.tv_sec) * 1_000_000_000 + (wall.tv_nsec - stamp.tv_nsec);
    // A wall clock that was set in between gives nonsense: then the age is taken as none.
    let age = u64::try_from(age).unwrap_or(0).min(1_000_000_000);
    Some(clock::now().saturating_sub(age))
}
