//! What becomes of a packet to a VIP that may concern two nodes: the old owner of a move, which keeps the flows it has, and
//! the new one. The table of docs/moves.md, row by row.
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
    blank::blank,
    flow::{self, classify, fragment_home, home, is_local, kind, note, note_fragment, settle},
    frame::{Frame, is_plain, mark},
    gate::record,
    maps::{CONTROL, GATE},
    socket,
    steer::{came, copy, origin, send},
    vip::{FIRST, Found, LATER},
};

/// What is to become of the packet. Numbers rather than an enumeration, so that they can be blurred.
const PASS: u32 = 0;
const DROP: u32 = 1;
const TO_PEER: u32 = 2;
/// It passes, and the peer gets a copy.
const BOTH: u32 = 3;

/// Zero, which the verifier takes for any three bits: the boot clock needs 73 years to get there. What is blurred by it is
/// checked once, and not once more for each way in which it was found: the ways multiply.
#[inline(always)]
pub fn blur(now: u64) -> u64 {
    now >> 61
}

/// A packet under judgement.
struct Case<'a> {
    frame: &'a TcContext,
    found: &'a Found,
    group: &'static GateGroup,
    key: &'a FlowKey,
    kind: u32,
    word: u64,
    now: u64,
}

/// Decides about a packet to a VIP that came by a front, or was handed in there. The role is not the closed one, and the lease
/// holds.
#[inline(always)]
pub fn arrive(frame: &TcContext, found: &Found, word: u64, now: u64) -> i32 {
    let (Some(group), Some(control)) = (GATE.get(found.slot()), CONTROL.get(0)) else {
        return frame.drop();
    };
    let peer = gate_peer(word);
    let marked = mark(frame);
    if marked == MARK_TAKEN || marked == MARK_FINAL {
        frame.set_mark(0);
    }
    // SAFETY: plain integers.
    let mut key: FlowKey = unsafe { blank() };
    let kind = classify(frame, found, &mut key) ^ blur(now) as u32;
    let case = Case { frame, found, group, key: &key, kind, word, now };
    if gate_role(word) == ROLE_OWNER && peer == 0 {
        if matches!(kind, kind::SYN | kind::DATAGRAM) {
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
    let origin = origin(frame, control, peer, marked) ^ (blur(now) as u32 & 3);
    let verdict = match (origin, gate_role(word)) {
        (came::FRONT, ROLE_OWNER) => case.owner(),
        // The next owner may have flows of its own, from before an earlier move; it takes nothing new by its front.
        (came::FRONT, _) => case.drain(),
        (_, ROLE_DRAIN) => case.returned(),
        (came::FINAL, _) => PASS,
        _ => case.taken(),
    } ^ (blur(now) as u32 & 3);
    case.carry_out(control, peer, origin, verdict)
}

impl Case<'_> {
    /// Notes that a flow was accepted.
    #[inline(always)]
    fn tenure(&self) {
        if self.found.counts != 0 {
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
    fn settle(&self, theirs: u32, ours: u32) -> u32 {
        settle(self.key, self.found.slot(), theirs, ours, self.now)
    }

    #[inline(always)]
    fn socket(&self) -> u32 {
        socket::lookup(self.frame, self.found, self.key, matches!(self.kind, kind::SEGMENT))
    }

    /// Whether a flow of TCP is this node's: by its record, or by a socket.
    #[inline(always)]
    fn known(&self) -> bool {
        is_local(self.home()) || self.socket() >= socket::FLOW
    }

    /// This node takes the packet as one of a flow of its own.
    #[inline(always)]
    fn accept(&self) -> u32 {
        if matches!(self.kind, kind::SYN | kind::DATAGRAM) {
            self.note(HOME_LOCAL);
        }
        self.tenure();
        PASS
    }

    /// By the front of the new owner.
    #[inline(always)]
    fn owner(&self) -> u32 {
        match self.kind {
            kind::SYN | kind::QUERY => self.accept(),
            kind::SEGMENT | kind::SEGMENT_ERROR if self.known() => PASS,
            kind::SEGMENT | kind::SEGMENT_ERROR => TO_PEER,
            kind::DATAGRAM if self.settle(HOME_PEER, HOME_LOCAL) == flow::KEPT => TO_PEER,
            kind::DATAGRAM => {
                self.tenure();
                PASS
            }
            kind::DATAGRAM_ERROR if self.home() == HOME_PEER => TO_PEER,
            kind::DATAGRAM_ERROR => PASS,
            _ => self.later(),
        }
    }

    /// By the front of the old owner.
    #[inline(always)]
    fn drain(&self) -> u32 {
        match self.kind {
            // It is repeated because the answer was lost: the handshake ends where it began.
            kind::SYN if self.socket() == socket::HALF_OPEN => PASS,
            // A new flow is the new owner's.
            kind::SYN => {
                self.group.new_steered.add(1);
                self.note(HOME_PEER);
                TO_PEER
            }
            kind::SEGMENT | kind::SEGMENT_ERROR => {
                let home = self.home();
                if home == HOME_PEER {
                    return TO_PEER;
                }
                let socket = self.socket();
                if socket >= socket::FLOW || home == HOME_LOCAL && socket == socket::ENDED {
                    PASS
                } else if home == HOME_LOCAL {
                    self.socketless()
                } else {
                    TO_PEER
                }
            }
            kind::DATAGRAM => match self.settle(HOME_LOCAL, HOME_PEER) {
                flow::KEPT => self.socketless(),
                flow::KNOWN => TO_PEER,
                _ => {
                    self.group.new_steered.add(1);
                    TO_PEER
                }
            },
            kind::DATAGRAM_ERROR if is_local(self.home()) => PASS,
            kind::DATAGRAM_ERROR | kind::QUERY => TO_PEER,
            _ => self.later(),
        }
    }

    /// Over the backplane, from the old owner to the next one.
    #[inline(always)]
    fn taken(&self) -> u32 {
        match self.kind {
            kind::SYN | kind::DATAGRAM | kind::QUERY => self.accept(),
            kind::SEGMENT | kind::SEGMENT_ERROR if self.known() => PASS,
            kind::SEGMENT | kind::SEGMENT_ERROR => TO_PEER,
            kind::DATAGRAM_ERROR => PASS,
            kind::LATER if self.fragment() == HOME_PEER => TO_PEER,
            _ => PASS,
        }
    }

    /// Over the backplane, from the new owner to the old one: the home of what is known to neither.
    #[inline(always)]
    fn returned(&self) -> u32 {
        match self.kind {
            kind::SYN => DROP,
            kind::SEGMENT if self.socket() != socket::NONE => PASS,
            kind::SEGMENT => self.socketless(),
            kind::DATAGRAM => {
                self.note(HOME_LOCAL);
                self.socketless()
            }
            _ => PASS,
        }
    }

    /// A packet of a drain that no socket's end will tell of.
    #[inline(always)]
    fn socketless(&self) -> u32 {
        self.group.drained_at.store(self.now);
        PASS
    }

    #[inline(always)]
    fn fragment(&self) -> u32 {
        fragment_home(self.key, self.found, self.now)
    }

    /// A later fragment follows its first one; where that has not come by, both nodes get it, and one can use it.
    #[inline(always)]
    fn later(&self) -> u32 {
        match self.fragment() {
            HOME_PEER => TO_PEER,
            HOME_LOCAL => PASS,
            _ => BOTH,
        }
    }

    #[inline(always)]
    fn carry_out(&self, control: &Control, peer: u8, origin: u32, verdict: u32) -> i32 {
        if self.found.fragment == FIRST {
            let home = if verdict == TO_PEER { HOME_PEER } else { HOME_LOCAL };
            note_fragment(self.key, self.found, home, self.now);
        }
        if verdict == DROP {
            self.group.dropped_ingress.add(1);
            return self.frame.drop();
        }
        if verdict == BOTH && copy(self.frame, control, peer, self.now) {
            self.group.steered.add(1);
        }
        if verdict == TO_PEER {
            let back = origin != came::FRONT;
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
        if origin != came::FRONT {
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
