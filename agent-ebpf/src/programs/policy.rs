//! What becomes of a packet to a VIP that may concern two nodes: the old owner of a move, which keeps the flows it has, and
//! the new one. The tables of docs/architecture.md, row by row.
//!
//! ```text
//!              client ──► front of the new owner ──── not known ───► backplane ──► old owner: passes
//!              client ──► front of the old owner ──── new, or not known ─► backplane ──► new owner: passes if new or known,
//!                                                                                        else back, as final: passes
//! ```

use aya_ebpf::programs::TcContext;
use baton_ebpf::{
    layout::{Control, GateGroup, ROLE_DRAIN, ROLE_OWNER, TenureKey, gate_epoch, gate_peer, gate_role},
    steering::{FlowKey, HOME_LOCAL, HOME_PEER, MARK_FINAL, MARK_TAKEN},
};

use super::{
    flow::{Kind, classify, fragment_home, home, is_local, note, note_fragment},
    frame::{Frame, is_plain, mark},
    gate::record,
    maps::{CONTROL, GATE},
    socket::{self, Socket},
    steer::{Came, came, copy, send},
    vip::{FIRST, Found, LATER},
};

/// What is to become of the packet.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Verdict {
    Pass,
    Drop,
    ToPeer,
    /// It passes, and the peer gets a copy.
    Both,
}

/// A packet under judgement.
struct Case<'a> {
    frame: &'a TcContext,
    found: &'a Found,
    group: &'static GateGroup,
    key: &'a FlowKey,
    kind: Kind,
    word: u64,
    now: u64,
}

/// Decides about a packet to a VIP that came by a front, or was handed in there. The role is not the closed one, and the lease
/// holds.
#[inline(never)]
pub fn arrive(frame: &TcContext, found: &Found, word: u64, now: u64) -> i32 {
    let (Some(group), Some(control)) = (GATE.get(found.slot()), CONTROL.get(0)) else {
        return frame.drop();
    };
    let peer = gate_peer(word);
    let marked = mark(frame);
    if marked == MARK_TAKEN || marked == MARK_FINAL {
        frame.set_mark(0);
    }
    let mut key = FlowKey::default();
    let kind = classify(frame, found, &mut key);
    let case = Case { frame, found, group, key: &key, kind, word, now };
    if gate_role(word) == ROLE_OWNER && peer == 0 {
        if matches!(kind, Kind::Syn | Kind::Datagram) {
            note(&key, found.slot(), HOME_LOCAL, now);
        }
        case.tenure();
        return frame.pass();
    }
    // What is tagged, or not for this machine alone, is not steered.
    if found.network != 14 || !is_plain(frame) {
        if gate_role(word) == ROLE_OWNER {
            case.tenure();
            return frame.pass();
        }
        group.dropped_ingress.add(1);
        return frame.drop();
    }
    let origin = came(frame, control, peer, marked);
    let verdict = match (origin, gate_role(word)) {
        (Came::Front, ROLE_OWNER) => case.owner(),
        (Came::Front, ROLE_DRAIN) => case.drain(),
        (Came::Front, _) => Verdict::Drop,
        (_, ROLE_DRAIN) => case.returned(),
        (Came::Final, _) => Verdict::Pass,
        (Came::Peer, _) => case.taken(),
    };
    case.carry_out(control, peer, origin, verdict)
}

impl Case<'_> {
    /// Notes that a flow was accepted.
    #[inline(always)]
    fn tenure(&self) {
        if self.found.counts {
            let key = TenureKey { slot: u64::from(self.found.slot()), epoch: gate_epoch(self.word) };
            record(&key, false, self.now);
        }
    }

    #[inline(always)]
    fn home(&self) -> u32 {
        home(self.key, self.group.since.load(), self.now)
    }

    #[inline(always)]
    fn note(&self, home: u32) {
        note(self.key, self.found.slot(), home, self.now);
    }

    #[inline(always)]
    fn socket(&self) -> Socket {
        socket::lookup(self.frame, self.found, self.key, matches!(self.kind, Kind::Segment))
    }

    /// Whether a flow of TCP is this node's: by its record, or by a socket.
    #[inline(always)]
    fn known(&self) -> bool {
        is_local(self.home()) || self.socket() != Socket::None
    }

    /// This node takes the packet as one of a flow of its own.
    #[inline(always)]
    fn accept(&self) -> Verdict {
        if matches!(self.kind, Kind::Syn | Kind::Datagram) {
            self.note(HOME_LOCAL);
        }
        self.tenure();
        Verdict::Pass
    }

    /// By the front of the new owner.
    #[inline(always)]
    fn owner(&self) -> Verdict {
        match self.kind {
            Kind::Syn | Kind::Query => self.accept(),
            Kind::Segment | Kind::SegmentError if self.known() => Verdict::Pass,
            Kind::Segment | Kind::SegmentError => Verdict::ToPeer,
            Kind::Datagram if self.home() == HOME_PEER => {
                self.note(HOME_PEER);
                Verdict::ToPeer
            }
            Kind::Datagram => self.accept(),
            Kind::DatagramError if self.home() == HOME_PEER => Verdict::ToPeer,
            Kind::DatagramError => Verdict::Pass,
            Kind::Later => self.later(),
        }
    }

    /// By the front of the old owner.
    #[inline(always)]
    fn drain(&self) -> Verdict {
        match self.kind {
            // It is repeated because the answer was lost: the handshake ends where it began.
            Kind::Syn if self.socket() == Socket::HalfOpen => Verdict::Pass,
            Kind::Syn => self.refer(),
            Kind::Segment | Kind::SegmentError => {
                let home = self.home();
                if home == HOME_PEER {
                    Verdict::ToPeer
                } else if self.socket() != Socket::None {
                    Verdict::Pass
                } else if home == HOME_LOCAL {
                    self.socketless()
                } else {
                    Verdict::ToPeer
                }
            }
            Kind::Datagram if is_local(self.home()) => {
                self.note(HOME_LOCAL);
                self.socketless()
            }
            Kind::Datagram => self.refer(),
            Kind::DatagramError if is_local(self.home()) => Verdict::Pass,
            Kind::DatagramError | Kind::Query => Verdict::ToPeer,
            Kind::Later => self.later(),
        }
    }

    /// Over the backplane, from the old owner to the next one.
    #[inline(always)]
    fn taken(&self) -> Verdict {
        match self.kind {
            Kind::Syn | Kind::Datagram | Kind::Query => self.accept(),
            Kind::Segment | Kind::SegmentError if self.known() => Verdict::Pass,
            Kind::Segment | Kind::SegmentError => Verdict::ToPeer,
            Kind::DatagramError => Verdict::Pass,
            Kind::Later if self.fragment() == HOME_PEER => Verdict::ToPeer,
            Kind::Later => Verdict::Pass,
        }
    }

    /// Over the backplane, from the new owner to the old one: the home of what is known to neither.
    #[inline(always)]
    fn returned(&self) -> Verdict {
        match self.kind {
            Kind::Syn => Verdict::Drop,
            Kind::Segment if self.socket() != Socket::None => Verdict::Pass,
            Kind::Segment => self.socketless(),
            Kind::Datagram => {
                self.note(HOME_LOCAL);
                self.socketless()
            }
            _ => Verdict::Pass,
        }
    }

    /// A new flow is the new owner's.
    #[inline(always)]
    fn refer(&self) -> Verdict {
        if self.kind == Kind::Syn || self.home() != HOME_PEER {
            self.group.new_steered.add(1);
        }
        self.note(HOME_PEER);
        Verdict::ToPeer
    }

    /// A packet of a drain that no socket's end will tell of.
    #[inline(always)]
    fn socketless(&self) -> Verdict {
        self.group.drained_at.store(self.now);
        Verdict::Pass
    }

    #[inline(always)]
    fn fragment(&self) -> u32 {
        fragment_home(self.key, self.found, self.now)
    }

    /// A later fragment follows its first one; where that has not come by, both nodes get it, and one can use it.
    #[inline(always)]
    fn later(&self) -> Verdict {
        match self.fragment() {
            HOME_PEER => Verdict::ToPeer,
            HOME_LOCAL => Verdict::Pass,
            _ => Verdict::Both,
        }
    }

    #[inline(always)]
    fn carry_out(&self, control: &Control, peer: u8, origin: Came, verdict: Verdict) -> i32 {
        if self.found.fragment == FIRST {
            let home = if verdict == Verdict::ToPeer { HOME_PEER } else { HOME_LOCAL };
            note_fragment(self.key, self.found, home, self.now);
        }
        if verdict == Verdict::Drop {
            self.group.dropped_ingress.add(1);
            return self.frame.drop();
        }
        if verdict == Verdict::Both && copy(self.frame, control, peer, self.now) {
            self.group.steered.add(1);
        }
        if verdict == Verdict::ToPeer {
            let back = origin != Came::Front;
            if let Some(action) = send(self.frame, control, peer, back, self.now) {
                if back {
                    self.group.bounced.add(1);
                } else {
                    self.group.steered.add(1);
                }
                return action;
            }
            self.group.no_path.add(1);
            if gate_role(self.word) == ROLE_DRAIN {
                return self.frame.drop();
            }
        }
        if origin != Came::Front {
            self.group.taken.add(1);
        }
        if gate_role(self.word) == ROLE_DRAIN {
            self.group.drained.add(1);
        }
        self.frame.pass()
    }
}

/// Later fragments have no transport header to be judged by.
const _: () = assert!(FIRST != LATER);
