//! The gate: a VIP's packets pass only while this node owns its group and holds the lease, at every packet.
//!
//! At ingress a packet *to* a VIP is held, and a question for it; at egress a packet *from* a VIP, and an answer or
//! announcement of it. Packets of VIPs that this gate does not know pass untouched.

use aya_ebpf::{helpers::generated::bpf_ktime_get_boot_ns, macros::classifier, programs::TcContext};
use baton_ebpf::layout::{GateGroup, ROLE_OWNER, Tenure, TenureKey, gate_epoch, gate_role, vip_bit};
use baton_ebpf::steering::vip_slot;

use super::{
    frame::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, Head, ICMPV6, TCP, UDP, head},
    maps::{CONTROL, GATE, TENURES, VIPS},
    neighbour::{self, Claim},
};

/// Which way, and on what kind of device.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    FrontIngress,
    FrontEgress,
    OtherEgress,
}

/// Extension headers that are looked past.
const EXTENSIONS_MAX: usize = 6;

/// An address as the VIP map has it: IPv4 as ::ffff:a.b.c.d, network byte order.
pub type Address = [u32; 4];

/// No slot. A sentinel rather than an `Option`: the compiler may leave the payload of a `None` unset, and the verifier
/// refuses to see an unset register saved.
const NO_SLOT: u32 = u32::MAX;

/// What a packet is to the gate.
#[derive(Clone, Copy)]
struct Found {
    /// The group's slot, or [`NO_SLOT`].
    slot: u32,
    /// ARP or ND rather than traffic.
    neighbour: bool,
    /// Of ARP or ND: it answers for the VIP or announces it. Of traffic: it opens a flow, or has no connections.
    counts: bool,
}

const NOTHING: Found = Found { slot: NO_SLOT, neighbour: false, counts: false };

/// An IPv4 address as the VIP map has it.
#[inline(always)]
pub fn mapped(address: [u8; 4]) -> Address {
    [0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]), u32::from_ne_bytes(address)]
}

#[inline(always)]
fn slot(address: &Address) -> u32 {
    let (word, bit) = vip_bit(address);
    let Some(control) = CONTROL.get(0) else {
        return NO_SLOT;
    };
    if let Some(filter) = control.vip_filter.get(word)
        && filter.load() & bit == 0
    {
        return NO_SLOT;
    }
    // SAFETY: the value is copied at once; a slot that is re-used meanwhile is a change of configuration.
    match unsafe { VIPS.get(address) } {
        Some(value) => vip_slot(*value),
        None => NO_SLOT,
    }
}

#[inline(always)]
fn gate(frame: &TcContext, side: Side) -> i32 {
    let ingress = side == Side::FrontIngress;
    if foreign(frame, ingress) {
        return frame.pass();
    }
    let Some((network, head)) = head(frame) else {
        return frame.pass();
    };
    let found = if head.ethertype == ETHERTYPE_IPV4 {
        ipv4(frame, network, &head, ingress)
    } else if head.ethertype == ETHERTYPE_IPV6 {
        ipv6(frame, network, head.ip[6], ingress)
    } else if head.ethertype == ETHERTYPE_ARP {
        let mut address = [0; 4];
        match neighbour::arp(frame, network, ingress, &mut address) {
            Claim::None => NOTHING,
            claim => Found { slot: slot(&address), neighbour: true, counts: claim == Claim::Answer },
        }
    } else {
        NOTHING
    };
    if found.slot == NO_SLOT {
        return frame.pass();
    }
    decide(frame, side, found)
}

/// Whether the packet surely concerns no VIP, told without a copy; what takes more than a look is left to the rest.
#[inline(always)]
fn foreign(frame: &TcContext, ingress: bool) -> bool {
    let Some(packet) = frame.linear::<34>() else {
        return false;
    };
    if [packet[12], packet[13]] == ETHERTYPE_IPV4 {
        let at = if ingress { 30 } else { 26 };
        let address = [packet[at], packet[at + 1], packet[at + 2], packet[at + 3]];
        return slot(&mapped(address)) == NO_SLOT;
    }
    if [packet[12], packet[13]] == ETHERTYPE_IPV6 && (packet[20] == TCP || packet[20] == UDP) {
        let Some(packet) = frame.linear::<54>() else {
            return false;
        };
        let at = if ingress { 38 } else { 22 };
        let mut address: Address = [0; 4];
        for (word, bytes) in address.iter_mut().zip(packet[at..at + 16].chunks_exact(4)) {
            *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        return slot(&address) == NO_SLOT;
    }
    false
}

#[inline(always)]
fn ipv4(frame: &TcContext, network: u32, head: &Head, ingress: bool) -> Found {
    let at = if ingress { 16 } else { 12 };
    let slot = slot(&mapped([head.ip[at], head.ip[at + 1], head.ip[at + 2], head.ip[at + 3]]));
    if slot == NO_SLOT {
        return NOTHING;
    }
    let later = u16::from_be_bytes([head.ip[6], head.ip[7]]) & 0x1fff != 0;
    let transport = network + u32::from(head.ip[0] & 0x0f) * 4;
    Found { slot, neighbour: false, counts: !later && opens_flow(frame, head.ip[9], transport) }
}

/// IPv6: by address, and ND by its target. ND may hide behind extension headers, so they are walked.
#[inline(always)]
fn ipv6(frame: &TcContext, network: u32, next: u8, ingress: bool) -> Found {
    let mut addresses: [Address; 2] = [[0; 4]; 2];
    if !frame.fill(network + 8, &mut addresses) {
        return NOTHING;
    }
    let known = slot(&addresses[usize::from(ingress)]);
    // The common case of foreign traffic costs no walk.
    if known == NO_SLOT && (next == TCP || next == UDP) {
        return NOTHING;
    }
    let (protocol, transport, later) = walk(frame, next, network + 40);
    if protocol == ICMPV6 && !later {
        let [source, target] = &mut addresses;
        match neighbour::discovery(frame, transport, ingress, source, target) {
            Claim::None => {}
            claim => {
                let asked = slot(target);
                return Found {
                    slot: if asked == NO_SLOT { known } else { asked },
                    neighbour: true,
                    counts: claim == Claim::Answer,
                };
            }
        }
    }
    if known == NO_SLOT {
        return NOTHING;
    }
    Found { slot: known, neighbour: false, counts: !later && opens_flow(frame, protocol, transport) }
}

/// Walks the extension headers (RFC 8200): the last protocol, where it begins, and whether this is a later fragment.
/// A chain that is too long or cut ends the walk where it stands.
#[inline(always)]
fn walk(frame: &TcContext, first: u8, start: u32) -> (u8, u32, bool) {
    let mut next = first;
    let mut at = start;
    let mut later = false;
    for _ in 0..EXTENSIONS_MAX {
        // Hop-by-hop, routing, destination options, mobility, HIP, shim6; authentication; fragment.
        let length = match next {
            0 | 43 | 60 | 135 | 139 | 140 => {
                let Some(header) = frame.get::<[u8; 2]>(at) else {
                    return (next, at, later);
                };
                next = header[0];
                (u32::from(header[1]) + 1) * 8
            }
            51 => {
                let Some(header) = frame.get::<[u8; 2]>(at) else {
                    return (next, at, later);
                };
                next = header[0];
                (u32::from(header[1]) + 2) * 4
            }
            44 => {
                let Some(header) = frame.get::<[u8; 4]>(at) else {
                    return (next, at, later);
                };
                next = header[0];
                later |= u16::from_be_bytes([header[2], header[3]]) & 0xfff8 != 0;
                8
            }
            _ => return (next, at, later),
        };
        at += length;
    }
    (next, at, later)
}

/// Whether a packet opens a flow: a TCP SYN without ACK, or anything that is not TCP.
#[inline(always)]
fn opens_flow(frame: &TcContext, protocol: u8, transport: u32) -> bool {
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    if protocol != TCP {
        return true;
    }
    match frame.get::<u8>(transport + 13) {
        Some(flags) => flags & (SYN | ACK) == SYN,
        None => true,
    }
}

#[inline(always)]
fn decide(frame: &TcContext, side: Side, found: Found) -> i32 {
    // A VIP whose group has no row is nobody's: it is held, and there is no counter for it.
    let (Some(group), Some(control)) = (GATE.get(found.slot), CONTROL.get(0)) else {
        return frame.drop();
    };
    let word = group.word.load();
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if gate_role(word) != ROLE_OWNER || now >= control.lease_end.load() {
        count(group, side, found.neighbour);
        return frame.drop();
    }
    // Answers count as they leave, flows as they come.
    if found.counts && found.neighbour != (side == Side::FrontIngress) {
        let key = TenureKey { slot: u64::from(found.slot), epoch: gate_epoch(word) };
        record(&key, found.neighbour, now);
    }
    frame.pass()
}

#[inline(always)]
fn count(group: &GateGroup, side: Side, neighbour: bool) {
    match side {
        Side::FrontIngress => group.dropped_ingress.add(1),
        Side::FrontEgress => group.dropped_egress.add(1),
        Side::OtherEgress => group.dropped_other.add(1),
    }
    if neighbour {
        group.dropped_neighbour.add(1);
    }
}

/// Notes what passed. Two CPUs may overwrite each other by the time between their clocks' readings: microseconds.
#[inline(always)]
fn record(key: &TenureKey, answer: bool, now: u64) {
    let known = TENURES.get_ptr_mut(key).or_else(|| {
        const BPF_NOEXIST: u64 = 1;
        // A failure means that another CPU was first, or that the map is full of younger ones.
        match TENURES.insert(key, Tenure::default(), BPF_NOEXIST) {
            Ok(()) | Err(_) => TENURES.get_ptr_mut(key),
        }
    });
    let Some(tenure) = known else {
        return;
    };
    // SAFETY: a row of the map, which outlives the program's run; racing writers are described above.
    unsafe {
        if answer {
            if (*tenure).first_answer == 0 {
                (*tenure).first_answer = now;
            }
            (*tenure).last_answer = now;
        } else {
            if (*tenure).first_flow == 0 {
                (*tenure).first_flow = now;
            }
            (*tenure).last_flow = now;
        }
    }
}

/// tc ingress of a front link.
#[classifier]
pub fn gate_ingress(ctx: TcContext) -> i32 {
    gate(&ctx, Side::FrontIngress)
}

/// tc egress of a front link.
#[classifier]
pub fn gate_egress(ctx: TcContext) -> i32 {
    gate(&ctx, Side::FrontEgress)
}

/// tc egress of any other device: the same rule, counted apart.
#[classifier]
pub fn gate_other(ctx: TcContext) -> i32 {
    gate(&ctx, Side::OtherEgress)
}
