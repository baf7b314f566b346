//! The pulse: a thread that sends one heartbeat a peer and link every interval, notices its own lateness, and wakes the core when
//! what the heartbeats show has changed. It allocates nothing and takes no lock after its start.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU32, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    thread::JoinHandle,
};

use baton_ebpf::wire;
use rustix::{
    event::{EventfdFlags, eventfd},
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime},
};
use thiserror::Error;

use crate::{
    clock,
    cluster::ids::{Incarnation, Nanos, VoterId},
    kernel::{PeerView, Said, Tables},
    realtime,
};

/// What the core tells the pulse, and the pulse the core. All fields are single words: no lock, no tearing that matters.
#[derive(Debug, Default)]
pub struct PulseShared {
    /// The core's token of progress; it grows while the core runs.
    pub token: AtomicU32,
    /// The raft leader that the core knows, 0 if none.
    pub leader: AtomicU32,
    /// Raft's term.
    pub term: AtomicU64,
    /// The last log index.
    pub log_index: AtomicU64,
    /// The links on which each voter's beats arrive; row = voter number, bit = link.
    links: [AtomicU32; VoterId::MAX as usize + 1],
    /// The voters whose hold has run out here (bit id - 1).
    pub silent: AtomicU32,
    /// When the pulse last ran.
    last_tick: AtomicU64,
    /// Since when it has run on time.
    punctual_since: AtomicU64,
    /// How often it was late by more than half an interval.
    pub late: AtomicU64,
    /// The worst lateness, ns.
    pub late_max: AtomicU64,
    /// Heartbeats that the kernel refused to send.
    pub unsent: AtomicU64,
    /// How often the own lease lapsed.
    pub lapses: AtomicU64,
    /// While a keeper beats for this machine, the pulse sends nothing.
    pub quiet: AtomicBool,
    /// The sequence number of the last beat; set before the start, the first one is above it.
    pub sequence: AtomicU64,
    stop: AtomicBool,
}

impl PulseShared {
    /// Whether a voter's beats arrive on a link.
    pub fn hears(&self, voter: VoterId, link: usize) -> bool {
        self.links.get(usize::from(voter.0)).is_some_and(|links| links.load(Relaxed) >> link & 1 == 1)
    }

    /// Since when this machine's pulse has been punctual, judged at `now`: a pulse that has not run for an interval and a half is
    /// late already, whether or not it has noticed (rule 2).
    pub fn punctual_since(&self, now: Nanos, interval: Nanos) -> Nanos {
        // Whoever sees the tick that ended a stall sees the stall as well.
        let overdue = now.saturating_sub(self.last_tick.load(Acquire)) > interval + interval / 2;
        if overdue { now } else { self.punctual_since.load(Relaxed) }
    }
}

/// What the pulse needs to know.
#[derive(Debug)]
pub struct PulseConfig {
    /// This voter.
    pub me: VoterId,
    /// Whose beats these are.
    pub incarnation: Incarnation,
    /// Whether it is a node.
    pub is_node: bool,
    /// The digest of the shared configuration.
    pub digest: u32,
    /// Between two beats.
    pub interval: Nanos,
    /// A link on which nothing came for this long is dead.
    pub hold: Nanos,
    /// The sockets, one a link (see [`bind`]).
    pub sockets: Vec<UdpSocket>,
    /// Each peer's address on each link.
    pub peers: Vec<(VoterId, Vec<SocketAddr>)>,
    /// Whether to run with realtime priority.
    pub realtime: bool,
}

/// Why the pulse could not start.
#[derive(Debug, Error)]
pub enum PulseError {
    /// A heartbeat socket.
    #[error("cannot open the heartbeat socket on {address}: is the address on this machine and the port free?")]
    Bind {
        /// The link's local address.
        address: SocketAddr,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Timer or thread.
    #[error("cannot start the pulse thread")]
    Start(#[source] io::Error),
    /// Realtime priority.
    #[error(transparent)]
    Realtime(#[from] realtime::RealtimeError),
}

/// Opens the heartbeat socket of one link: no UDP checksum (the programs rewrite the payload), highest ordinary priority, CS6.
///
/// The address need not be on the machine yet (IP_FREEBIND): a backplane that comes up later is used then.
pub fn bind(address: SocketAddr) -> Result<UdpSocket, PulseError> {
    let open = || -> io::Result<UdpSocket> {
        use socket2::{Domain, Protocol, Socket, Type};
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        let on: libc::c_int = 1;
        match address {
            SocketAddr::V4(_) => {
                socket.set_freebind_v4(true)?;
                socket.set_tos_v4(0xc0)?;
                set_option(&socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, on)?;
            }
            SocketAddr::V6(_) => {
                socket.set_only_v6(true)?;
                socket.set_freebind_v6(true)?;
                // UDP_NO_CHECK6_TX and UDP_NO_CHECK6_RX (linux/udp.h).
                set_option(&socket, libc::IPPROTO_UDP, 101, on)?;
                set_option(&socket, libc::IPPROTO_UDP, 102, on)?;
            }
        }
        set_option(&socket, libc::SOL_SOCKET, libc::SO_PRIORITY, 6)?;
        // An agent that restarts and its keeper beat from the same port, one after the other.
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    open().map_err(|source| PulseError::Bind { address, source })
}

fn set_option(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the value outlives the call and its size is given.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The running pulse; it stops when dropped.
#[derive(Debug)]
pub struct Pulse {
    shared: Arc<PulseShared>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Pulse {
    /// Starts the thread. Its first beat leaves at once.
    pub fn start(config: PulseConfig, tables: Arc<Tables>, shared: Arc<PulseShared>) -> Result<Self, PulseError> {
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).map_err(started)?);
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC).map_err(started)?;
        let now = clock::now();
        shared.last_tick.store(now, Relaxed);
        shared.punctual_since.store(now, Relaxed);
        let (verdict, priority) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("pulse".into())
            .spawn({
                let (shared, wake) = (Arc::clone(&shared), Arc::clone(&wake));
                move || {
                    let realtime =
                        if config.realtime { realtime::become_fifo(realtime::PULSE_PRIORITY) } else { Ok(()) };
                    let go = realtime.is_ok();
                    if verdict.send(realtime).is_ok() && go {
                        Loop::new(config, tables, shared, wake).run(&timer);
                    }
                }
            })
            .map_err(PulseError::Start)?;
        let pulse = Self { shared, wake, thread: Some(thread) };
        priority.recv().map_err(|_| PulseError::Start(io::Error::other("the thread ended")))??;
        Ok(pulse)
    }

    /// The event that is raised when the heartbeats show something new.
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.wake.as_fd()
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // An error here is a panic of the thread, which has been reported already.
            drop(thread.join());
        }
    }
}

fn started(error: rustix::io::Errno) -> PulseError {
    PulseError::Start(error.into())
}

/// One destination of beats.
struct Destination {
    peer: VoterId,
    link: usize,
    address: socket2::SockAddr,
}

struct Loop {
    config: PulseConfig,
    tables: Arc<Tables>,
    shared: Arc<PulseShared>,
    wake: Arc<OwnedFd>,
    destinations: Vec<Destination>,
    seen: [u64; VoterId::MAX as usize + 1],
    held_lease: bool,
}

impl Loop {
    fn new(config: PulseConfig, tables: Arc<Tables>, shared: Arc<PulseShared>, wake: Arc<OwnedFd>) -> Self {
        let destinations = config
            .peers
            .iter()
            .flat_map(|(peer, addresses)| {
                addresses.iter().enumerate().map(|(link, address)| Destination {
                    peer: *peer,
                    link,
                    address: (*address).into(),
                })
            })
            .collect();
        Self { config, tables, shared, wake, destinations, seen: [0; VoterId::MAX as usize + 1], held_lease: false }
    }

    fn run(&mut self, timer: &OwnedFd) {
        let interval = self.config.interval;
        let mut due = clock::now();
        while !self.shared.stop.load(Relaxed) {
            let now = clock::now();
            self.shared.late_max.fetch_max(now.saturating_sub(due), Relaxed);
            if now.saturating_sub(due) > interval / 2 {
                self.shared.late.fetch_add(1, Relaxed);
                self.shared.punctual_since.store(now, Relaxed);
            }
            self.shared.last_tick.store(now, Release);
            if !self.shared.quiet.load(Acquire) {
                self.beat(now);
            }
            self.look(now);
            // A missed instant is not made up for: the next one is a whole interval after the last that was due, or after now.
            due = if now.saturating_sub(due) > interval { now + interval } else { due + interval };
            if arm(timer, due).is_err() || wait(timer).is_err() {
                self.shared.unsent.fetch_add(1, Relaxed);
                std::thread::sleep(std::time::Duration::from_nanos(interval));
            }
        }
    }

    /// Sends one beat to every peer on every link.
    fn beat(&self, now: Nanos) {
        let holds_lease = self.tables.lease_end() > now;
        let leader = self.shared.leader.load(Relaxed) as u8;
        let sequence = self.shared.sequence.fetch_add(1, Relaxed) + 1;
        let said = Said {
            incarnation: Some(self.config.incarnation),
            flags: if holds_lease { wire::FLAG_LEASE } else { 0 }
                | if self.config.is_node { wire::FLAG_NODE } else { 0 },
            leader: (leader != 0).then_some(VoterId(leader)),
            silent: self.shared.silent.load(Relaxed) as u8,
            token: self.shared.token.load(Relaxed),
            digest: self.config.digest,
            term: self.shared.term.load(Relaxed),
            log_index: self.shared.log_index.load(Relaxed),
        };
        for destination in &self.destinations {
            let Some(socket) = self.config.sockets.get(destination.link) else { continue };
            let beat = self.tables.beat(destination.peer, destination.link as u8, sequence, &said);
            let sent = socket2::SockRef::from(socket).send_to(&beat, &destination.address);
            if sent.is_err() {
                self.shared.unsent.fetch_add(1, Relaxed);
            }
        }
    }

    /// Wakes the core when a peer's beats, or the own lease, say something new. Silence needs no waking: the core has a timer.
    fn look(&mut self, now: Nanos) {
        let mut changed = false;
        // A link is dead when nothing came for a hold; what a stall of this machine held up does not count.
        let patience = self.config.hold;
        let punctual = self.shared.punctual_since.load(Relaxed);
        for (peer, addresses) in &self.config.peers {
            let heard = |link: usize| {
                let seen = self.tables.peer(*peer).links.get(link).map_or(0, |row| row.last_seen.load());
                seen != 0 && now.saturating_sub(seen.max(punctual)) <= patience
            };
            let links = (0..addresses.len()).fold(0, |mask, link| mask | u32::from(heard(link)) << link);
            if let Some(word) = self.shared.links.get(usize::from(peer.0)) {
                word.store(links, Relaxed);
            }
            let word = condition(&self.tables.peer_view(*peer)) ^ u64::from(links);
            if let Some(seen) = self.seen.get_mut(peer.0 as usize)
                && *seen != word
            {
                *seen = word;
                changed = true;
            }
        }
        let holds = self.tables.lease_end() > now;
        if holds != self.held_lease {
            if !holds {
                self.shared.lapses.fetch_add(1, Relaxed);
            }
            self.held_lease = holds;
            changed = true;
        }
        if changed {
            // A full counter is a pending wake-up already.
            rustix::io::write(&*self.wake, &1u64.to_ne_bytes()).ok();
        }
    }
}

/// All of a peer's beat that the core wants to hear of at once, folded into a word: equal words mean no news.
fn condition(peer: &PeerView) -> u64 {
    let leader = peer.leader.map_or(0, |l| u64::from(l.0));
    let parts =
        [peer.incarnation, u64::from(peer.holds_lease), leader, peer.term, peer.log_index, u64::from(peer.digest)];
    parts
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |word, part| (word ^ part).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23))
}

fn arm(timer: &OwnedFd, due: Nanos) -> rustix::io::Result<()> {
    let value = Timespec { tv_sec: (due / 1_000_000_000) as i64, tv_nsec: (due % 1_000_000_000) as _ };
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &Itimerspec { it_interval: zero, it_value: value }).map(drop)
}

fn wait(timer: &OwnedFd) -> rustix::io::Result<()> {
    let mut expirations = [0u8; 8];
    rustix::io::retry_on_intr(|| rustix::io::read(timer, &mut expirations)).map(drop)
}
