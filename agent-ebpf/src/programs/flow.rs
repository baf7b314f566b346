//! Which flow a packet belongs to, and what is recorded of flows and of fragments.

use aya_ebpf::programs::TcContext;
use baton_ebpf::steering::{FLOW_AGE_NS, FRAGMENT_AGE_NS, FlowKey, FlowState, FragmentKey, HOME_LOCAL};

use super::{
    blank::blank,
    frame::{Frame, ICMP, ICMPV6, TCP, UDP},
    maps::{FLOWS, FRAGMENTS},
    vip::{Address, Found, LATER, WHOLE, mapped, walk},
};

/// What a packet is to its flow. Numbers rather than an enumeration, so that they can be blurred.
pub mod kind {
    /// A TCP SYN without ACK: it opens a flow.
    pub const SYN: u32 = 0;
    /// Any other TCP segment.
    pub const SEGMENT: u32 = 1;
    /// A packet of a protocol without connections.
    pub const DATAGRAM: u32 = 2;
    /// An echo request and the like: every owner can answer it.
    pub const QUERY: u32 = 3;
    /// An ICMP error about a TCP segment.
    pub const SEGMENT_ERROR: u32 = 4;
    /// An ICMP error about a datagram.
    pub const DATAGRAM_ERROR: u32 = 5;
    /// A later fragment: its ports are elsewhere.
    pub const LATER: u32 = 6;
}

/// No home is recorded.
pub const HOME_UNKNOWN: u32 = 0;

/// The protocols that begin with a source and a destination port, beside TCP and UDP: DCCP, SCTP, UDP-Lite (IANA).
const WITH_PORTS: [u8; 3] = [33, 132, 136];

/// The two ends of a flow as they stand in a packet whose transport header follows its IP header.
#[derive(Clone, Copy)]
#[repr(C)]
struct Ends6 {
    addresses: [Address; 2],
    ports: [u16; 2],
}

/// The same of IPv4.
#[derive(Clone, Copy)]
#[repr(C)]
struct Ends4 {
    addresses: [[u8; 4]; 2],
    ports: [u16; 2],
}

/// Reads the flow's ends at once where nothing stands between them; false where it takes more.
#[inline(always)]
fn ends(frame: &TcContext, found: &Found, key: &mut FlowKey) -> bool {
    if found.ipv6 != 0 {
        if found.transport != found.network + 40 {
            return false;
        }
        let Some(ends) = frame.get::<Ends6>(found.network + 8) else {
            return false;
        };
        [key.source, key.destination] = ends.addresses;
        [key.source_port, key.destination_port] = ends.ports;
        return true;
    }
    if found.transport != found.network + 20 {
        return false;
    }
    let Some(ends) = frame.get::<Ends4>(found.network + 12) else {
        return false;
    };
    let [source, destination] = ends.addresses;
    (key.source, key.destination) = (mapped(source), mapped(destination));
    [key.source_port, key.destination_port] = ends.ports;
    true
}

/// What the packet is, and in `key` its flow.
#[inline(always)]
pub fn classify(frame: &TcContext, found: &Found, key: &mut FlowKey) -> u32 {
    if (found.protocol == TCP || found.protocol == UDP) && found.fragment != LATER && ends(frame, found, key) {
        key.protocol = found.protocol;
        return by_ports(found);
    }
    if found.ipv6 != 0 {
        // SAFETY: plain words.
        let mut addresses: [Address; 2] = unsafe { blank() };
        if !frame.fill(found.network + 8, &mut addresses) {
            return kind::QUERY;
        }
        [key.source, key.destination] = addresses;
    } else {
        let Some([source, destination]) = frame.get::<[[u8; 4]; 2]>(found.network + 12) else {
            return kind::QUERY;
        };
        (key.source, key.destination) = (mapped(source), mapped(destination));
    }
    key.protocol = found.protocol;
    if found.fragment == LATER {
        return kind::LATER;
    }
    if found.protocol == TCP || has_ports(found.protocol) {
        let Some([source, destination]) = frame.get::<[u16; 2]>(found.transport) else {
            return kind::QUERY;
        };
        (key.source_port, key.destination_port) = (source, destination);
        return by_ports(found);
    }
    if found.ipv6 == 0 && found.protocol == ICMP {
        return match frame.get::<u8>(found.transport) {
            // Unreachable, time exceeded, parameter problem (RFC 792).
            Some(3 | 11 | 12) => quoted4(frame, found.transport + 8, key),
            _ => kind::QUERY,
        };
    }
    if found.ipv6 != 0 && found.protocol == ICMPV6 {
        return match frame.get::<u8>(found.transport) {
            // Unreachable, too big, time exceeded, parameter problem (RFC 4443).
            Some(1..=4) => quoted6(frame, found.transport + 8, key),
            _ => kind::QUERY,
        };
    }
    kind::DATAGRAM
}

#[inline(always)]
fn by_ports(found: &Found) -> u32 {
    match (found.protocol == TCP, found.counts != 0) {
        (true, true) => kind::SYN,
        (true, false) => kind::SEGMENT,
        _ => kind::DATAGRAM,
    }
}

#[inline(always)]
fn has_ports(protocol: u8) -> bool {
    protocol == UDP || WITH_PORTS.contains(&protocol)
}

/// The flow of the packet that an ICMP error quotes: it left from the VIP, so its ends change places.
#[inline(always)]
fn quoted4(frame: &TcContext, at: u32, key: &mut FlowKey) -> u32 {
    let Some(ip) = frame.get::<[u8; 20]>(at) else {
        return kind::QUERY;
    };
    let later = u16::from_be_bytes([ip[6], ip[7]]) & 0x1fff != 0;
    let from = mapped([ip[12], ip[13], ip[14], ip[15]]);
    if ip[0] >> 4 != 4 || later || from != key.destination {
        return kind::QUERY;
    }
    key.source = mapped([ip[16], ip[17], ip[18], ip[19]]);
    quoted(frame, ip[9], at + u32::from(ip[0] & 0x0f) * 4, key)
}

/// The same of IPv6, whose quoted packet may have extension headers.
#[inline(always)]
fn quoted6(frame: &TcContext, at: u32, key: &mut FlowKey) -> u32 {
    let Some(next) = frame.get::<u8>(at + 6) else {
        return kind::QUERY;
    };
    // SAFETY: plain words.
    let mut addresses: [Address; 2] = unsafe { blank() };
    if !frame.fill(at + 8, &mut addresses) || addresses[0] != key.destination {
        return kind::QUERY;
    }
    key.source = addresses[1];
    let end = walk(frame, next, at + 40);
    if end.fragment == LATER {
        return kind::QUERY;
    }
    quoted(frame, end.protocol, end.at, key)
}

#[inline(always)]
fn quoted(frame: &TcContext, protocol: u8, at: u32, key: &mut FlowKey) -> u32 {
    key.protocol = protocol;
    if protocol == ICMP || protocol == ICMPV6 {
        return kind::QUERY;
    }
    if protocol == TCP || has_ports(protocol) {
        let Some([ours, theirs]) = frame.get::<[u16; 2]>(at) else {
            return kind::QUERY;
        };
        (key.source_port, key.destination_port) = (theirs, ours);
    }
    if protocol == TCP { kind::SEGMENT_ERROR } else { kind::DATAGRAM_ERROR }
}

/// Whose a flow is by the record. TCP: if it was opened since `since`. Others: if they were seen of late.
#[inline(always)]
pub fn home(key: &FlowKey, since: u64, now: u64) -> u32 {
    // SAFETY: the row is read at once; a writer in between writes one field at a time.
    let Some(state) = (unsafe { FLOWS.get(key) }) else {
        return HOME_UNKNOWN;
    };
    let alive =
        if key.protocol == TCP { state.last_seen >= since } else { now.saturating_sub(state.last_seen) < FLOW_AGE_NS };
    if alive { state.home } else { HOME_UNKNOWN }
}

/// Records whose a flow is, and that it was seen now.
#[inline(always)]
pub fn note(key: &FlowKey, slot: u32, home: u32, now: u64) {
    if let Some(state) = FLOWS.get_ptr_mut(key) {
        // SAFETY: a row of the map, which outlives the program's run; of two writers the last one wins.
        unsafe {
            (*state).last_seen = now;
            (*state).home = home;
            (*state).slot = slot;
        }
        return;
    }
    note_new(key, slot, home, now);
}

/// The flow's record says `theirs`, and is kept.
pub const KEPT: u32 = 0;
/// It said `ours` before.
pub const KNOWN: u32 = 1;
/// It says `ours` from now on.
pub const NEW: u32 = 2;

/// A packet of a flow without connections came: a living record of `theirs` stays, else it becomes one of `ours`.
#[inline(always)]
pub fn settle(key: &FlowKey, slot: u32, theirs: u32, ours: u32, now: u64) -> u32 {
    let Some(state) = FLOWS.get_ptr_mut(key) else {
        note_new(key, slot, ours, now);
        return NEW;
    };
    // SAFETY: a row of the map, which outlives the program's run; of two writers the last one wins.
    unsafe {
        let alive = now.saturating_sub((*state).last_seen) < FLOW_AGE_NS;
        let home = (*state).home;
        (*state).last_seen = now;
        if alive && home == theirs {
            return KEPT;
        }
        (*state).home = ours;
        (*state).slot = slot;
        if alive && home == ours { KNOWN } else { NEW }
    }
}

#[inline(always)]
fn note_new(key: &FlowKey, slot: u32, home: u32, now: u64) {
    // A full table makes room by itself; a failure leaves the flow unknown, which costs its packets one way more.
    if FLOWS.insert(key, FlowState { last_seen: now, home, slot }, 0).is_err() {}
}

#[inline(always)]
fn fragment_key(key: &FlowKey, found: &Found) -> FragmentKey {
    FragmentKey { source: key.source, destination: key.destination, id: found.id, protocol: u32::from(found.protocol) }
}

/// Where the first fragment of a later one's packet went.
#[inline(always)]
pub fn fragment_home(key: &FlowKey, found: &Found, now: u64) -> u32 {
    // SAFETY: as in `home`.
    match unsafe { FRAGMENTS.get(fragment_key(key, found)) } {
        Some(state) if now.saturating_sub(state.last_seen) < FRAGMENT_AGE_NS => state.home,
        _ => HOME_UNKNOWN,
    }
}

/// Records where a first fragment went.
#[inline(always)]
pub fn note_fragment(key: &FlowKey, found: &Found, home: u32, now: u64) {
    if found.fragment == WHOLE {
        return;
    }
    let state = FlowState { last_seen: now, home, slot: found.slot() };
    // Without the record the later fragments go both ways.
    if FRAGMENTS.insert(fragment_key(key, found), state, 0).is_err() {}
}

/// Whether the record names this node.
#[inline(always)]
pub fn is_local(home: u32) -> bool {
    home == HOME_LOCAL
}
