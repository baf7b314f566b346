//! ARP (RFC 826, RFC 5227) and neighbour discovery (RFC 4861): for which address a packet asks, answers or announces.
//!
//! Asking is never held at egress (a standby may be a client of the VIP), announcements are never held at ingress
//! (a standby must learn of the new owner): only what would make *this* node the address's holder is.

use aya_ebpf::programs::TcContext;

use super::{
    frame::Frame,
    vip::{Address, mapped},
};

const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// ARP for IPv4 over Ethernet, from the hardware type on.
#[derive(Clone, Copy)]
#[repr(C)]
struct Arp {
    types: [u8; 6],
    operation: [u8; 2],
    sender_mac: [u8; 6],
    sender: [u8; 4],
    target_mac: [u8; 6],
    target: [u8; 4],
}

/// What a packet does about an address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Nothing that the gate holds.
    None,
    /// It asks for it, or probes it.
    Question,
    /// It answers for it or announces it.
    Answer,
}

/// What an ARP packet does, and in `address` about which address. Ingress: the one asked for. Egress: the one claimed.
#[inline(always)]
pub fn arp(frame: &TcContext, network: u32, ingress: bool, address: &mut Address) -> Claim {
    const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
    let Some(arp) = frame.get::<Arp>(network) else {
        return Claim::None;
    };
    if arp.types != ETHERNET_IPV4 {
        return Claim::None;
    }
    let announces = arp.sender == arp.target;
    if ingress {
        *address = mapped(arp.target);
        return if announces { Claim::None } else { Claim::Question };
    }
    *address = mapped(arp.sender);
    if announces || arp.operation == [0, 2] { Claim::Answer } else { Claim::Question }
}

/// What a neighbour discovery packet does, and in `target` about which address. Ingress: solicitations are held.
/// Egress: advertisements, and solicitations from :: (duplicate address detection claims the address).
#[inline(always)]
pub fn discovery(frame: &TcContext, transport: u32, ingress: bool, source: &Address, target: &mut Address) -> Claim {
    let Some(kind) = frame.get::<u8>(transport) else {
        return Claim::None;
    };
    let advertisement = kind == NEIGHBOUR_ADVERTISEMENT;
    if !advertisement && kind != NEIGHBOUR_SOLICITATION {
        return Claim::None;
    }
    let unspecified = *source == [0; 4];
    let held = if ingress { !advertisement } else { advertisement || unspecified };
    if !held {
        return Claim::None;
    }
    if !frame.fill(transport + 8, target) {
        return Claim::None;
    }
    if advertisement { Claim::Answer } else { Claim::Question }
}
