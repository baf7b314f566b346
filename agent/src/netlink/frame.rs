//! The frames that announce an address, byte by byte: gratuitous ARP and unsolicited neighbour advertisement.
//!
//! Sources: RFC 826 and RFC 5227 (ARP), RFC 4861 7.2.6 and 4.4 (neighbour advertisement), RFC 8200 8.1 (checksum).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::link::Mac;

/// Ethernet header and ARP packet.
pub const ARP_LEN: usize = 14 + 28;
/// Ethernet header, IPv6 header, neighbour advertisement and target link-layer address option.
pub const ADVERTISEMENT_LEN: usize = 14 + 40 + 24 + 8;
/// All nodes of the link, ff02::1: RFC 4861 7.2.6 sends unsolicited advertisements there; routers listen to it as well, so
/// that those of RFC 9131 (which creates entries in routers) learn from the same packet.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// 33:33 and the last four bytes of ff02::1 (RFC 2464, 7).
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const BROADCAST_MAC: [u8; 6] = [0xff; 6];
/// Where the ICMPv6 message begins in the frame, and its length.
const ICMPV6_AT: usize = 14 + 40;
const ICMPV6_LEN: u8 = 24 + 8;
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const NEXT_HEADER_ICMPV6: u8 = 58;
const TYPE_ADVERTISEMENT: u8 = 136;
/// Receivers drop neighbour discovery with any other hop limit: it proves that no router forwarded it (RFC 4861, 7.1.2).
const HOP_LIMIT: u8 = 255;
const FLAG_ROUTER: u8 = 0x80;
/// "Replace what you have cached": the reason for sending it at all (RFC 4861, 4.4).
const FLAG_OVERRIDE: u8 = 0x20;
const OPTION_TARGET_LINK_LAYER: u8 = 2;

/// A frame in a fixed buffer, so that none is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    bytes: [u8; ADVERTISEMENT_LEN],
    len: usize,
}

impl Frame {
    /// The frame that announces `address` at `mac`. `router` says whether the node forwards IPv6 (RFC 4861, 7.2.6: a
    /// router that says otherwise loses its place as its neighbours' default router).
    pub fn announcement(address: IpAddr, mac: Mac, router: bool) -> Self {
        match address {
            IpAddr::V4(address) => Self::arp(address, mac),
            IpAddr::V6(address) => Self::advertisement(address, mac, router),
        }
    }

    /// What goes on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }

    /// A gratuitous ARP *request*: Linux takes it over at once even within the neighbour locktime (1 s), in which it
    /// ignores replies whose target differs from their sender.
    fn arp(address: Ipv4Addr, mac: Mac) -> Self {
        let mut frame = Self::empty();
        frame.put(&BROADCAST_MAC).put(&mac.0).put(&ETHERTYPE_ARP);
        // Ethernet, IPv4, their address lengths, operation "request".
        frame.put(&[0, 1, 0x08, 0, 6, 4, 0, 1]);
        frame.put(&mac.0).put(&address.octets()).put(&[0; 6]).put(&address.octets());
        frame
    }

    fn advertisement(address: Ipv6Addr, mac: Mac, router: bool) -> Self {
        let flags = FLAG_OVERRIDE | if router { FLAG_ROUTER } else { 0 };
        let mut frame = Self::empty();
        frame.put(&ALL_NODES_MAC).put(&mac.0).put(&ETHERTYPE_IPV6);
        frame.put(&[0x60, 0, 0, 0, 0, ICMPV6_LEN, NEXT_HEADER_ICMPV6, HOP_LIMIT]);
        frame.put(&address.octets()).put(&ALL_NODES.octets());
        frame.put(&[TYPE_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0]).put(&address.octets());
        // The option's length is in units of eight bytes.
        frame.put(&[OPTION_TARGET_LINK_LAYER, 1]).put(&mac.0);
        let sum = checksum(address, ALL_NODES, &frame.bytes[ICMPV6_AT..]);
        frame.bytes[ICMPV6_AT + 2..ICMPV6_AT + 4].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    const fn empty() -> Self {
        Self { bytes: [0; ADVERTISEMENT_LEN], len: 0 }
    }

    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        let end = self.len + bytes.len();
        debug_assert!(end <= ADVERTISEMENT_LEN, "the two frames are built of constants");
        if let Some(place) = self.bytes.get_mut(self.len..end) {
            place.copy_from_slice(bytes);
            self.len = end;
        }
        self
    }
}

/// The internet checksum of an ICMPv6 message with its pseudo-header (RFC 8200, 8.1).
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | c.get(1).map_or(0, |&b| u32::from(b))).sum()
    };
    let length = u32::try_from(message.len()).unwrap_or(0);
    let mut sum = words(&source.octets()) + words(&destination.octets()) + words(message);
    sum += length + u32::from(NEXT_HEADER_ICMPV6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use etherparse::{Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 0x2a]);

    #[test]
    fn arp_is_a_request_for_its_own_address() {
        let frame = Frame::announcement("192.0.2.10".parse().unwrap(), MAC, false);
        assert_eq!(frame.as_bytes().len(), ARP_LEN);
        let packet = SlicedPacket::from_ethernet(frame.as_bytes()).unwrap();
        let Some(NetSlice::Arp(arp)) = packet.net else { panic!("not ARP: {packet:?}") };
        assert_eq!(arp.operation(), etherparse::ArpOperation::REQUEST);
        assert_eq!(arp.sender_hw_addr(), MAC.0);
        assert_eq!(arp.sender_protocol_addr(), [192, 0, 2, 10]);
        assert_eq!(arp.target_protocol_addr(), [192, 0, 2, 10]);
        assert_eq!(&frame.as_bytes()[..6], [0xff; 6]);
    }

    #[test]
    fn advertisement_overrides_and_its_checksum_is_right() {
        let vip: Ipv6Addr = "2001:db8::ff:10".parse().unwrap();
        for router in [false, true] {
            let frame = Frame::announcement(vip.into(), MAC, router);
            let packet = SlicedPacket::from_ethernet(frame.as_bytes()).unwrap();
            let Some(NetSlice::Ipv6(ip)) = &packet.net else { panic!("not IPv6: {packet:?}") };
            assert_eq!(ip.header().hop_limit(), 255);
            assert_eq!(ip.header().source_addr(), vip);
            assert_eq!(ip.header().destination_addr(), ALL_NODES);
            let Some(TransportSlice::Icmpv6(icmp)) = &packet.transport else { panic!("not ICMPv6: {packet:?}") };
            assert!(icmp.is_checksum_valid(vip.octets(), ALL_NODES.octets()));
            let Icmpv6Type::NeighborAdvertisement(advertisement) = icmp.icmp_type() else {
                panic!("not an advertisement: {:?}", icmp.icmp_type())
            };
            assert!(advertisement.r#override);
            assert!(!advertisement.solicited);
            assert_eq!(advertisement.router, router);
            let payload = icmp.payload();
            assert_eq!(payload[..16], vip.octets());
            assert_eq!(payload[16..], [2, 1, 2, 0, 0, 0, 0, 0x2a]);
        }
    }
}
