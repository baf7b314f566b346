//! The backplane's programs: ingress (tc and XDP) checks, records and answers heartbeats; egress stamps and signs them.

use core::mem::MaybeUninit;

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_boot_ns,
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use baton_ebpf::{
    layout::{Control, Counters},
    receive::{Verdict, receive},
    steering::mac_number,
    wire::{BYTES, KIND_BEAT, LINKS_MAX, MAGIC, Words, tag},
};

use super::{
    frame::{
        ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN, Frame, Head, UDP, difference, head,
        is_forwarded,
    },
    maps::{CONTROL, COUNTERS, PEER},
    vip::{Address, NO_VIP, mapped, vip},
};

/// A UDP header with a heartbeat behind it: written back in one piece.
#[derive(Clone, Copy)]
#[repr(C)]
struct Datagram {
    ports: [[u8; 2]; 2],
    length: [u8; 2],
    check: u16,
    words: Words,
}

/// The length field of a heartbeat's UDP header.
const UDP_LENGTH: [u8; 2] = ((BYTES + 8) as u16).to_be_bytes();

/// Where an unfragmented UDP packet has its headers.
struct Udp {
    network: u32,
    transport: u32,
    ipv6: bool,
    head: Head,
    /// Source port, destination port, length, checksum.
    header: [[u8; 2]; 4],
}

/// Finds the UDP header. `None`: the packet is something else, a fragment included.
#[inline(always)]
fn udp<F: Frame>(frame: &F) -> Option<Udp> {
    let (network, head) = head(frame)?;
    let (transport, ipv6) = if head.ethertype == ETHERTYPE_IPV4 {
        let fragment = u16::from_be_bytes([head.ip[6], head.ip[7]]) & 0x3fff;
        if head.ip[9] != UDP || fragment != 0 {
            return None;
        }
        (network + u32::from(head.ip[0] & 0x0f) * 4, false)
    } else if head.ethertype == ETHERTYPE_IPV6 && head.ip[6] == UDP {
        (network + 40, true)
    } else {
        return None;
    };
    let header = frame.get(transport)?;
    Some(Udp { network, transport, ipv6, head, header })
}

/// The link that an interface is; 0 when user space named none.
#[inline(always)]
fn link(control: &Control, ifindex: u32) -> usize {
    let mut found = 0;
    for (link, known) in control.link_ifindex.iter().enumerate() {
        if known.load() == u64::from(ifindex) {
            found = link;
        }
    }
    found & (LINKS_MAX - 1)
}

/// Whether the packet surely is no heartbeat, told without a copy. `port_at` is 0 for the source port, 2 for the
/// destination's. What takes more than a look (VLAN tags, IP options, packets in pieces) is left to [`udp`].
#[inline(always)]
fn foreign<F: Frame>(frame: &F, control: &Control, port_at: usize) -> bool {
    let Some(packet) = frame.linear::<38>() else {
        return false;
    };
    let ethertype = [packet[12], packet[13]];
    let port = if ethertype == ETHERTYPE_IPV4 {
        if packet[23] != UDP {
            return true;
        }
        if packet[14] != 0x45 {
            return false;
        }
        [packet[34 + port_at], packet[35 + port_at]]
    } else if ethertype == ETHERTYPE_IPV6 {
        if packet[20] != UDP {
            return true;
        }
        let Some(packet) = frame.linear::<58>() else {
            return false;
        };
        [packet[54 + port_at], packet[55 + port_at]]
    } else {
        return ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ;
    };
    u64::from(u16::from_be_bytes(port)) != control.port.load()
}

#[inline(always)]
fn ingress<F: Frame>(frame: &F) -> F::Action {
    let Some(control) = CONTROL.get(0) else {
        return frame.pass();
    };
    if foreign(frame, control, 2) {
        return frame.pass();
    }
    let Some(udp) = udp(frame) else {
        return frame.pass();
    };
    let port = u64::from(u16::from_be_bytes(udp.header[1]));
    if port != control.port.load() || port == 0 || to_vip(frame, &udp) {
        return frame.pass();
    }
    let arrival = link(control, frame.ifindex());
    let Some(counters) = COUNTERS.get(arrival as u32) else {
        return frame.pass();
    };
    // Not zeroed before: that would be a call, for which the kernels before 6.6 have no stack left.
    let mut datagram = MaybeUninit::<Datagram>::uninit();
    if udp.header[2] != UDP_LENGTH || !frame.fill(udp.transport, &mut datagram) {
        counters.malformed.add(1);
        return frame.drop();
    }
    // SAFETY: it was filled as a whole, and any bytes will do.
    let datagram = unsafe { datagram.assume_init_mut() };
    // Answering a broadcast would make a multicast address our source.
    if udp.head.macs[0][0] & 1 != 0 {
        counters.stray.add(1);
        return frame.drop();
    }
    let source = mac_number(udp.head.macs[1]);
    let changed = [datagram.words[1], datagram.words[8]];
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let verdict = receive(control, counters, arrival, source, |node| PEER.get(node as u32), &mut datagram.words, now);
    match verdict {
        Verdict::Pass => frame.pass(),
        Verdict::Consumed => frame.drop(),
        Verdict::Answer => match answer(frame, &udp, datagram, changed) {
            Some(()) => frame.bounce(),
            None => frame.drop(),
        },
    }
}

/// Whether the datagram is for a VIP: a client's, which the peer of a move sent on.
#[inline(always)]
fn to_vip<F: Frame>(frame: &F, udp: &Udp) -> bool {
    let address = if udp.ipv6 {
        frame.get::<Address>(udp.network + 24)
    } else {
        let ip = &udp.head.ip;
        Some(mapped([ip[16], ip[17], ip[18], ip[19]]))
    };
    match address {
        Some(address) => vip(&address) != NO_VIP,
        None => false,
    }
}

/// Turns the packet around in place: addresses and ports change sides, so the IP checksum stands and the UDP checksum
/// changes by the payload alone, of which `changed` were the two words that are others now.
#[inline(always)]
fn answer<F: Frame>(frame: &F, udp: &Udp, datagram: &mut Datagram, changed: [u64; 2]) -> Option<()> {
    let done = if udp.ipv6 {
        let [from, to]: [[u32; 4]; 2] = frame.get(udp.network + 8)?;
        frame.put(udp.network + 8, &[to, from])
    } else {
        let [from, to]: [[u8; 4]; 2] = frame.get(udp.network + 12)?;
        frame.put(udp.network + 12, &[to, from])
    };
    let [to, from] = udp.head.macs;
    datagram.ports.swap(0, 1);
    if !done || !frame.put(0, &[from, to]) || !frame.put(udp.transport, datagram) {
        return None;
    }
    let now = [datagram.words[1], datagram.words[8]];
    fix(frame, udp, datagram.check, changed, now)
}

/// Fixes the UDP checksum after the payload changed; a packet without one stays without.
#[inline(always)]
fn fix<F: Frame>(frame: &F, udp: &Udp, check: u16, mut from: [u64; 2], mut to: [u64; 2]) -> Option<()> {
    if check == 0 || frame.fix_checksum(udp.transport + 6, check, difference(&mut from, &mut to)) {
        Some(())
    } else {
        None
    }
}

#[inline(always)]
fn egress(frame: &TcContext) -> i32 {
    match sign(frame) {
        Some(counters) => {
            counters.signed.add(1);
            frame.pass()
        }
        None => frame.pass(),
    }
}

/// Stamps and signs a beat of ours that has no stamp yet. `None`: there was nothing to do, or the packet is too short.
/// What only passes through (a client's packet that is steered to the peer) is never signed, whatever it looks like.
#[inline(always)]
fn sign(frame: &TcContext) -> Option<&'static Counters> {
    let control = CONTROL.get(0)?;
    if foreign(frame, control, 0) || is_forwarded(frame) {
        return None;
    }
    let udp = udp(frame)?;
    let port = u64::from(u16::from_be_bytes(udp.header[0]));
    if port != control.port.load() || udp.header[2] != UDP_LENGTH {
        return None;
    }
    let mut words = MaybeUninit::<Words>::uninit();
    if !frame.fill(udp.transport + 8, &mut words) {
        return None;
    }
    // SAFETY: it was filled as a whole, and any bytes will do.
    let words = unsafe { words.assume_init_mut() };
    if words[0] as u32 != MAGIC || words[1] as u8 != KIND_BEAT || words[3] != 0 {
        return None;
    }
    let old_tag = words[8];
    // SAFETY: no arguments.
    words[3] = unsafe { bpf_ktime_get_boot_ns() };
    let key = [control.key[0].load(), control.key[1].load()];
    words[8] = tag(key, words);
    if !frame.put(udp.transport + 8 + 24, &words[3]) || !frame.put(udp.transport + 8 + 64, &words[8]) {
        return None;
    }
    fix(frame, &udp, u16::from_ne_bytes(udp.header[3]), [0, old_tag], [words[3], words[8]])?;
    COUNTERS.get(link(control, frame.ifindex()) as u32)
}

/// tc ingress of a backplane link.
#[classifier]
pub fn beat_ingress(ctx: TcContext) -> i32 {
    ingress(&ctx)
}

/// XDP on a backplane link: the same at the driver.
#[xdp]
pub fn beat_xdp(ctx: XdpContext) -> u32 {
    ingress(&ctx)
}

/// tc egress of a backplane link.
#[classifier]
pub fn beat_egress(ctx: TcContext) -> i32 {
    egress(&ctx)
}
