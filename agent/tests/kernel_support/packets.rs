//! Packets between a client and a VIP, byte by byte, over IPv4 and IPv6; addressed to loopback's MAC, so that the kernel takes
//! them for this machine's in a test run.

#![allow(dead_code, reason = "each test binary uses a part")]

use super::address6;

/// MAC of the client, or of the router before it.
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// The client over IPv4.
pub const CLIENT: [u8; 4] = [192, 0, 2, 50];
/// The VIP over IPv4.
pub const VIP: [u8; 4] = [192, 0, 2, 10];

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// IPv4 or IPv6, here with a hop-by-hop header before what is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
    V6Options,
}

pub const FAMILIES: [Family; 3] = [Family::V4, Family::V6, Family::V6Options];

/// The client over IPv6.
pub fn client6() -> [u8; 16] {
    address6(0x50)
}

/// The VIP over IPv6.
pub fn vip6() -> [u8; 16] {
    address6(0x10)
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToVip,
    FromVip,
}

fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&[0; 6][..], &CLIENT_MAC, &ethertype.to_be_bytes(), payload].concat()
}

/// An IP packet without Ethernet header.
fn ip(family: Family, way: Way, next: u8, payload: &[u8]) -> Vec<u8> {
    let sides = |client: &[u8], vip: &[u8]| match way {
        Way::ToVip => [client, vip].concat(),
        Way::FromVip => [vip, client].concat(),
    };
    if family == Family::V4 {
        let length = (20 + payload.len() as u16).to_be_bytes();
        let head = [0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, next, 0, 0];
        return [&head[..], &sides(&CLIENT, &VIP), payload].concat();
    }
    let options = [next, 0, 1, 4, 0, 0, 0, 0];
    let (first, options) = if family == Family::V6Options { (0, &options[..]) } else { (next, &[][..]) };
    let length = ((options.len() + payload.len()) as u16).to_be_bytes();
    let head = [0x60, 0, 0, 0, length[0], length[1], first, 64];
    [&head[..], &sides(&client6(), &vip6()), options, payload].concat()
}

fn framed(family: Family, packet: &[u8]) -> Vec<u8> {
    ethernet(if family == Family::V4 { 0x0800 } else { 0x86dd }, packet)
}

fn ports(way: Way, client: u16, vip: u16) -> [u8; 4] {
    let (client, vip) = (client.to_be_bytes(), vip.to_be_bytes());
    let [from, to] = if way == Way::ToVip { [client, vip] } else { [vip, client] };
    [from[0], from[1], to[0], to[1]]
}

fn segment(way: Way, client: u16, vip: u16, flags: u8) -> Vec<u8> {
    [&ports(way, client, vip)[..], &[0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]].concat()
}

fn datagram(way: Way, client: u16, vip: u16) -> Vec<u8> {
    [&ports(way, client, vip)[..], &[0, 16, 0, 0], b"datagram"].concat()
}

/// A TCP segment with these flags, on the port 80 of the VIP.
pub fn tcp(family: Family, way: Way, client: u16, flags: u8) -> Vec<u8> {
    framed(family, &ip(family, way, TCP, &segment(way, client, 80, flags)))
}

/// A TCP segment to the VIP.
pub fn to_vip(family: Family, client: u16, flags: u8) -> Vec<u8> {
    tcp(family, Way::ToVip, client, flags)
}

/// A UDP datagram to the VIP's port 53.
pub fn udp(family: Family, client: u16) -> Vec<u8> {
    framed(family, &ip(family, Way::ToVip, UDP, &datagram(Way::ToVip, client, 53)))
}

/// A packet of a protocol without ports (GRE) to the VIP.
pub fn gre(family: Family) -> Vec<u8> {
    framed(family, &ip(family, Way::ToVip, 47, &[0; 16]))
}

/// An echo request to the VIP.
pub fn echo(family: Family) -> Vec<u8> {
    let (protocol, kind) = if family == Family::V4 { (ICMP, 8) } else { (ICMPV6, 128) };
    framed(family, &ip(family, Way::ToVip, protocol, &[kind, 0, 0, 0, 0, 1, 0, 1]))
}

/// "Too big" about a packet that left from the VIP.
fn too_big(family: Family, quoted: &[u8]) -> Vec<u8> {
    let (protocol, kind) = if family == Family::V4 { (ICMP, [3, 4]) } else { (ICMPV6, [2, 0]) };
    let error = [&kind[..], &[0; 6], quoted].concat();
    framed(family, &ip(family, Way::ToVip, protocol, &error))
}

/// The same about a TCP segment: the first 8 bytes of it are quoted.
pub fn segment_error(family: Family, client: u16) -> Vec<u8> {
    let quoted = segment(Way::FromVip, client, 80, ACK);
    too_big(family, &ip(family, Way::FromVip, TCP, &quoted[..8]))
}

/// The same about a UDP datagram.
pub fn datagram_error(family: Family, client: u16) -> Vec<u8> {
    too_big(family, &ip(family, Way::FromVip, UDP, &datagram(Way::FromVip, client, 53)))
}

/// The same about an echo reply.
pub fn echo_error(family: Family) -> Vec<u8> {
    let (protocol, kind) = if family == Family::V4 { (ICMP, 0) } else { (ICMPV6, 129) };
    too_big(family, &ip(family, Way::FromVip, protocol, &[kind, 0, 0, 0, 0, 1, 0, 1]))
}

/// A fragment of a UDP datagram: the first one has the ports, `later` ones have not.
pub fn fragment(family: Family, client: u16, id: u16, later: bool) -> Vec<u8> {
    let payload = if later { vec![0xff; 24] } else { datagram(Way::ToVip, client, 53) };
    let bits: u16 = if later { 2 << 3 } else { 0 };
    if family == Family::V4 {
        let mut packet = ip(family, Way::ToVip, UDP, &payload);
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        let more = if later { 0 } else { 0x2000 };
        packet[6..8].copy_from_slice(&(bits >> 3 | more).to_be_bytes());
        return framed(family, &packet);
    }
    let bits = (bits | u16::from(!later)).to_be_bytes();
    let id = u32::from(id).to_be_bytes();
    let header = [UDP, 0, bits[0], bits[1], id[0], id[1], id[2], id[3]];
    framed(family, &ip(family, Way::ToVip, 44, &[&header[..], &payload].concat()))
}

/// An ARP packet.
pub fn arp(operation: u8, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let body = [&[0, 1, 8, 0, 6, 4, 0, operation][..], &CLIENT_MAC, &sender, &[0; 6], &target].concat();
    ethernet(0x0806, &body)
}

/// Neighbour discovery about a target, from the VIP or to it.
pub fn discovery(way: Way, kind: u8, target: [u8; 16]) -> Vec<u8> {
    let body = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target].concat();
    framed(Family::V6, &ip(Family::V6, way, ICMPV6, &body))
}

/// The frame with a VLAN tag.
pub fn tagged(mut frame: Vec<u8>) -> Vec<u8> {
    frame.splice(12..12, [0x81, 0x00, 0x00, 0x0a]);
    frame
}

/// The frame as from another source.
pub fn from(mut frame: Vec<u8>, source: [u8; 6]) -> Vec<u8> {
    frame[6..12].copy_from_slice(&source);
    frame
}
