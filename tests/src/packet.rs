//! The few frames that the wire observer speaks: ARP (RFC 826) and neighbour discovery (RFC 4861), built and read by hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::topology::Mac;

const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// The override flag of an advertisement; unsolicited ones carry it without the solicited flag (RFC 4861, 4.4).
const SOLICITED: u8 = 0x40;

/// What a frame says about who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The address that is claimed.
    pub address: IpAddr,
    /// By whom.
    pub mac: Mac,
    /// True for an answer to a question, false for an announcement that nobody asked for.
    pub answer: bool,
}

/// The question "who has `target`?" for either family, to the whole link or the solicited-node group.
pub fn question(mac: Mac, source: (Ipv4Addr, Ipv6Addr), target: IpAddr) -> Vec<u8> {
    match target {
        IpAddr::V4(target) => arp_request(mac, source.0, target),
        IpAddr::V6(target) => solicitation(mac, source.1, target),
    }
}

fn arp_request(mac: Mac, source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend([0xff; 6]);
    frame.extend(mac);
    frame.extend(ETHERTYPE_ARP);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(source.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

fn solicitation(mac: Mac, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let t = target.octets();
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, t[13], t[14], t[15]];
    let mut body = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    body.extend(t);
    body.extend([1, 1]);
    body.extend(mac);
    let sum = checksum(&source.octets(), &group, &body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut frame = vec![0x33, 0x33, 0xff, t[13], t[14], t[15]];
    frame.extend(mac);
    frame.extend(ETHERTYPE_IPV6);
    frame.extend([0x60, 0, 0, 0, 0, body.len() as u8, ICMPV6, 255]);
    frame.extend(source.octets());
    frame.extend(group);
    frame.extend(body);
    frame
}

/// The internet checksum over the IPv6 pseudo header and `body` (RFC 8200, 8.1).
fn checksum(source: &[u8; 16], target: &[u8; 16], body: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c.get(1).copied().unwrap_or(0))).sum()
    };
    let mut sum = words(source) + words(target) + body.len() as u32 + u32::from(ICMPV6) + words(body);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// What a frame claims, if it is an ARP or neighbour advertisement frame that claims anything.
pub fn claim(frame: &[u8]) -> Option<Claim> {
    match frame.get(12..14)?.try_into().ok()? {
        ETHERTYPE_ARP => arp_claim(frame.get(14..42)?),
        ETHERTYPE_IPV6 => nd_claim(frame),
        _ => None,
    }
}

fn arp_claim(arp: &[u8]) -> Option<Claim> {
    if arp[..6] != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let mac: Mac = arp[8..14].try_into().ok()?;
    let sender: [u8; 4] = arp[14..18].try_into().ok()?;
    let target: [u8; 4] = arp[24..28].try_into().ok()?;
    let gratuitous = sender == target;
    match arp[6..8] {
        [0, 1] if gratuitous => {}
        [0, 2] => {}
        _ => return None,
    }
    Some(Claim { address: Ipv4Addr::from(sender).into(), mac, answer: !gratuitous })
}

fn nd_claim(frame: &[u8]) -> Option<Claim> {
    let ip = frame.get(14..54)?;
    let body = frame.get(54..)?;
    if ip[6] != ICMPV6 || *body.first()? != ADVERTISEMENT {
        return None;
    }
    let target: [u8; 16] = body.get(8..24)?.try_into().ok()?;
    // The target link-layer address option if it is there, else the frame's sender.
    let mac = match body.get(24..32) {
        Some([2, 1, mac @ ..]) => mac.try_into().ok()?,
        _ => frame[6..12].try_into().ok()?,
    };
    Some(Claim { address: Ipv6Addr::from(target).into(), mac, answer: body[4] & SOLICITED != 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arp_answer_is_read() {
        let asker = ([2; 6], (Ipv4Addr::new(192, 0, 2, 9), Ipv6Addr::LOCALHOST));
        let mut frame = question(asker.0, asker.1, Ipv4Addr::new(192, 0, 2, 100).into());
        assert_eq!(claim(&frame), None, "a question claims nothing");
        frame[21] = 2;
        let read = claim(&frame).unwrap();
        assert_eq!(read, Claim { address: asker.1.0.into(), mac: [2; 6], answer: true });
    }

    #[test]
    fn the_solicitation_is_what_etherparse_expects() {
        use etherparse::{NetSlice, SlicedPacket, TransportSlice};
        let (source, target) = ("2001:db8::9".parse().unwrap(), "2001:db8::100".parse().unwrap());
        let frame = solicitation([2; 6], source, target);
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Ipv6(ip)) = packet.net else { panic!("not IPv6") };
        let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("not ICMPv6") };
        let header = ip.header();
        assert!(icmp.is_checksum_valid(header.source(), header.destination()));
        assert_eq!(header.destination_addr(), "ff02::1:ff00:100".parse::<Ipv6Addr>().unwrap());
    }

    #[test]
    fn short_frames_are_no_claims() {
        for length in 0..60 {
            assert_eq!(claim(&vec![0xff; length]), None);
            let mut arp = vec![0; length];
            if length > 13 {
                arp[12..14].copy_from_slice(&ETHERTYPE_ARP);
            }
            assert_eq!(claim(&arp), None);
        }
    }
}
