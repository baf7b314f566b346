//! Whether a packet concerns a VIP, and what kind of packet it is.

use aya_ebpf::programs::TcContext;
use baton_ebpf::{layout::vip_bit, steering::vip_slot};

use super::{
    blank::blank,
    frame::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, Head, ICMPV6, TCP, UDP, head},
    maps::{CONTROL, VIPS},
    neighbour::{self, Claim},
};

/// Extension headers that are looked past.
const EXTENSIONS_MAX: usize = 6;

/// An address as the VIP map has it: IPv4 as ::ffff:a.b.c.d, network byte order.
pub type Address = [u32; 4];

/// No VIP. A sentinel rather than an `Option`: the compiler may leave the payload of a `None` unset, and the verifier
/// refuses to see an unset register saved.
pub const NO_VIP: u32 = u32::MAX;

/// A packet that is no fragment.
pub const WHOLE: u8 = 0;
/// The first fragment, which has the transport header.
pub const FIRST: u8 = 1;
/// A later fragment.
pub const LATER: u8 = 2;

/// What a packet is to the gate.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Found {
    /// The VIP's value in its map, or [`NO_VIP`].
    pub vip: u32,
    /// Where the IP header begins.
    pub network: u32,
    /// Where the transport header begins.
    pub transport: u32,
    /// Of a fragment: its packet's identification.
    pub id: u32,
    /// The transport protocol.
    pub protocol: u8,
    /// [`WHOLE`], [`FIRST`] or [`LATER`].
    pub fragment: u8,
    /// 1: IPv6, 0: IPv4.
    pub ipv6: u8,
    /// ARP or ND rather than traffic.
    pub neighbour: bool,
    /// Of ARP or ND: it answers for the VIP or announces it. Of traffic: it opens a flow, or has no connections. 1 or 0.
    pub counts: u8,
}

/// A packet that concerns no VIP.
pub const NOTHING: Found = Found {
    vip: NO_VIP,
    network: 0,
    transport: 0,
    id: 0,
    protocol: 0,
    fragment: WHOLE,
    ipv6: 0,
    neighbour: false,
    counts: 0,
};

impl Found {
    /// The group's slot.
    #[inline(always)]
    pub fn slot(&self) -> u32 {
        vip_slot(self.vip)
    }

    /// The same, for a verifier that shall not follow every way of finding it through all that comes after.
    #[inline(always)]
    pub fn blurred(self, zero: u64) -> Self {
        Self {
            fragment: self.fragment ^ (zero as u8 & 3),
            ipv6: self.ipv6 ^ (zero as u8 & 1),
            counts: self.counts ^ (zero as u8 & 1),
            ..self
        }
    }
}

/// An IPv4 address as the VIP map has it.
#[inline(always)]
pub fn mapped(address: [u8; 4]) -> Address {
    [0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]), u32::from_ne_bytes(address)]
}

/// The value of an address in the VIP map, or [`NO_VIP`].
#[inline(always)]
pub fn vip(address: &Address) -> u32 {
    let (word, bit) = vip_bit(address);
    let Some(control) = CONTROL.get(0) else {
        return NO_VIP;
    };
    if let Some(filter) = control.vip_filter.get(word)
        && filter.load() & bit == 0
    {
        return NO_VIP;
    }
    // SAFETY: the value is copied at once; a slot that is re-used meanwhile is a change of configuration.
    match unsafe { VIPS.get(address) } {
        Some(value) => *value,
        None => NO_VIP,
    }
}

/// What a first look says of a packet.
pub mod look {
    /// It surely concerns no VIP.
    pub const FOREIGN: u32 = 0;
    /// It is for a VIP, and all is known.
    pub const FOUND: u32 = 1;
    /// It takes more than a look.
    pub const UNSURE: u32 = 2;
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// The first look, without a copy: at IPv4 without tags and options, and at TCP and UDP right behind an IPv6 header.
#[inline(always)]
pub fn quick(frame: &TcContext, ingress: bool, found: &mut Found) -> u32 {
    let Some(packet) = frame.linear::<34>() else {
        return look::UNSURE;
    };
    if [packet[12], packet[13]] == ETHERTYPE_IPV4 {
        let at = if ingress { 30 } else { 26 };
        let vip = vip(&mapped([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]));
        if vip == NO_VIP {
            return look::FOREIGN;
        }
        if packet[14] != 0x45 {
            return look::UNSURE;
        }
        let protocol = packet[23];
        let fragment = fragment4([packet[20], packet[21]]);
        let id = u32::from(u16::from_ne_bytes([packet[18], packet[19]]));
        let opens = if protocol == TCP && fragment != LATER {
            let Some(packet) = frame.linear::<54>() else {
                return look::UNSURE;
            };
            packet[47] & (SYN | ACK) == SYN
        } else {
            fragment != LATER
        };
        let counts = u8::from(opens);
        *found = Found { vip, network: 14, transport: 34, id, protocol, fragment, counts, ..NOTHING };
        return look::FOUND;
    }
    if [packet[12], packet[13]] == ETHERTYPE_IPV6 && (packet[20] == TCP || packet[20] == UDP) {
        let protocol = packet[20];
        let Some(packet) = frame.linear::<54>() else {
            return look::UNSURE;
        };
        let at = if ingress { 38 } else { 22 };
        // SAFETY: plain words.
        let mut address: Address = unsafe { blank() };
        for (word, bytes) in address.iter_mut().zip(packet[at..at + 16].chunks_exact(4)) {
            *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        let vip = vip(&address);
        if vip == NO_VIP {
            return look::FOREIGN;
        }
        let opens = if protocol == TCP {
            let Some(packet) = frame.linear::<68>() else {
                return look::UNSURE;
            };
            packet[67] & (SYN | ACK) == SYN
        } else {
            true
        };
        *found = Found { vip, network: 14, transport: 54, protocol, ipv6: 1, counts: u8::from(opens), ..NOTHING };
        return look::FOUND;
    }
    look::UNSURE
}

/// What kind of fragment the flags and the offset of an IPv4 header tell of.
#[inline(always)]
fn fragment4(bits: [u8; 2]) -> u8 {
    match u16::from_be_bytes(bits) & 0x3fff {
        0 => WHOLE,
        0x2000 => FIRST,
        _ => LATER,
    }
}

/// Which VIP the packet concerns, and what it is to it.
#[inline(always)]
pub fn find(frame: &TcContext, ingress: bool) -> Found {
    let Some((network, head)) = head(frame) else {
        return NOTHING;
    };
    // With and without VLAN tags it goes on alike: no packet is 2^27 bytes long.
    let network = network ^ (frame.len() >> 27);
    if head.ethertype == ETHERTYPE_IPV4 {
        ipv4(frame, network, &head, ingress)
    } else if head.ethertype == ETHERTYPE_IPV6 {
        ipv6(frame, network, head.ip[6], ingress)
    } else if head.ethertype == ETHERTYPE_ARP {
        // SAFETY: plain words.
        let mut address: Address = unsafe { blank() };
        match neighbour::arp(frame, network, ingress, &mut address) {
            Claim::None => NOTHING,
            claim => Found { vip: vip(&address), neighbour: true, counts: u8::from(claim == Claim::Answer), ..NOTHING },
        }
    } else {
        NOTHING
    }
}

#[inline(always)]
fn ipv4(frame: &TcContext, network: u32, head: &Head, ingress: bool) -> Found {
    let at = if ingress { 16 } else { 12 };
    let vip = vip(&mapped([head.ip[at], head.ip[at + 1], head.ip[at + 2], head.ip[at + 3]]));
    if vip == NO_VIP {
        return NOTHING;
    }
    let protocol = head.ip[9];
    let transport = network + u32::from(head.ip[0] & 0x0f) * 4;
    let fragment = fragment4([head.ip[6], head.ip[7]]);
    Found {
        vip,
        network,
        transport,
        id: u32::from(u16::from_ne_bytes([head.ip[4], head.ip[5]])),
        protocol,
        fragment,
        counts: u8::from(fragment != LATER && opens_flow(frame, protocol, transport)),
        ..NOTHING
    }
}

/// IPv6: by address, and ND by its target. ND may hide behind extension headers, so they are walked.
#[inline(always)]
fn ipv6(frame: &TcContext, network: u32, next: u8, ingress: bool) -> Found {
    // SAFETY: plain words.
    let mut addresses: [Address; 2] = unsafe { blank() };
    if !frame.fill(network + 8, &mut addresses) {
        return NOTHING;
    }
    let known = vip(&addresses[usize::from(ingress)]);
    // The common case of foreign traffic costs no walk.
    if known == NO_VIP && (next == TCP || next == UDP) {
        return NOTHING;
    }
    let end = walk(frame, next, network + 40);
    let found = Found {
        vip: known,
        network,
        transport: end.at,
        id: end.id,
        protocol: end.protocol,
        fragment: end.fragment,
        ipv6: 1,
        ..NOTHING
    };
    if end.protocol == ICMPV6 && end.fragment != LATER {
        let [source, target] = &mut addresses;
        let named = source_claims(frame, end.at, ingress) && known != NO_VIP;
        match neighbour::discovery(frame, end.at, ingress, source, target) {
            // Its link-layer address would make its hearers take this node for the VIP's.
            Claim::None if named => return Found { neighbour: true, ..found },
            Claim::None => {}
            claim => {
                let asked = vip(target);
                let vip = if asked == NO_VIP { known } else { asked };
                return Found { vip, neighbour: true, counts: u8::from(claim == Claim::Answer), ..found };
            }
        }
    }
    if known == NO_VIP {
        return NOTHING;
    }
    let counts = u8::from(end.fragment != LATER && opens_flow(frame, end.protocol, end.at));
    Found { counts, ..found }
}

/// Whether a leaving ICMPv6 packet is one of neighbour discovery (RFC 4861), which names its source's link-layer address.
#[inline(always)]
fn source_claims(frame: &TcContext, transport: u32, ingress: bool) -> bool {
    !ingress && matches!(frame.get::<u8>(transport), Some(133..=137))
}

/// Where a chain of extension headers ends.
#[derive(Clone, Copy)]
pub struct End {
    /// The last protocol.
    pub protocol: u8,
    /// [`WHOLE`], [`FIRST`] or [`LATER`].
    pub fragment: u8,
    /// Where it begins.
    pub at: u32,
    /// The identification in the fragment header.
    pub id: u32,
}

/// Walks the extension headers (RFC 8200). A chain that is too long or cut ends the walk where it stands.
#[inline(always)]
pub fn walk(frame: &TcContext, first: u8, start: u32) -> End {
    let mut end = End { protocol: first, fragment: WHOLE, at: start, id: 0 };
    for _ in 0..EXTENSIONS_MAX {
        // Hop-by-hop, routing, destination options, mobility, HIP, shim6; authentication; fragment.
        match end.protocol {
            0 | 43 | 60 | 135 | 139 | 140 => {
                let Some(header) = frame.get::<[u8; 2]>(end.at) else {
                    break;
                };
                end.protocol = header[0];
                end.at += (u32::from(header[1]) + 1) * 8;
            }
            51 => {
                let Some(header) = frame.get::<[u8; 2]>(end.at) else {
                    break;
                };
                end.protocol = header[0];
                end.at += (u32::from(header[1]) + 2) * 4;
            }
            44 => {
                let Some(header) = frame.get::<[u8; 8]>(end.at) else {
                    break;
                };
                end.protocol = header[0];
                end.at += 8;
                end.id = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
                let bits = u16::from_be_bytes([header[2], header[3]]);
                if bits & 0xfff8 != 0 {
                    end.fragment = LATER;
                } else if bits & 1 != 0 {
                    end.fragment = FIRST;
                }
            }
            _ => break,
        }
    }
    end
}

/// Whether a packet opens a flow: a TCP SYN without ACK, or anything that is not TCP.
#[inline(always)]
fn opens_flow(frame: &TcContext, protocol: u8, transport: u32) -> bool {
    if protocol != TCP {
        return true;
    }
    match frame.get::<u8>(transport + 13) {
        Some(flags) => flags & (SYN | ACK) == SYN,
        None => true,
    }
}
