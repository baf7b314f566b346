//! Announcements as the other end of the wire sees them, and what its neighbour cache makes of them.

use std::net::{IpAddr, Ipv6Addr};

use baton::netlink::{
    RequestSocket,
    address::{Address, AddressSet},
    announce::{Announced, Announcer},
    link::{self, Mac},
    membership::{Membership, solicited_node},
};
use etherparse::{Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};

use crate::lab;

/// The address and Ethernet address that a frame announces.
fn announced(frame: &[u8]) -> Option<(IpAddr, Mac)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    match (packet.net?, packet.transport) {
        (NetSlice::Arp(arp), _) => {
            let own = arp.sender_protocol_addr();
            if own != arp.target_protocol_addr() || frame[..6] != [0xff; 6] {
                return None;
            }
            Some((<[u8; 4]>::try_from(own).ok()?.into(), Mac(arp.sender_hw_addr().try_into().ok()?)))
        }
        (NetSlice::Ipv6(ip), Some(TransportSlice::Icmpv6(icmp))) => {
            let header = ip.header();
            let Icmpv6Type::NeighborAdvertisement(flags) = icmp.icmp_type() else {
                return None;
            };
            assert!(icmp.is_checksum_valid(header.source(), header.destination()));
            assert!(flags.r#override && !flags.solicited && header.hop_limit() == 255);
            let target = Ipv6Addr::from(<[u8; 16]>::try_from(icmp.payload().get(..16)?).ok()?);
            Some((target.into(), Mac(icmp.payload().get(18..24)?.try_into().ok()?)))
        }
        _ => None,
    }
}

#[test]
fn the_other_end_sees_every_announcement() {
    lab::run(|lab| {
        let peer = lab.there(|| {
            let index = link::by_name(&mut RequestSocket::open().unwrap(), "peer").unwrap().index;
            lab::listen(index)
        });
        let front = lab::link();
        // More than one system call's worth.
        let ips: Vec<IpAddr> = (0..300u16)
            .map(|i| {
                if i.is_multiple_of(2) {
                    [198, 51, 100, (i / 2) as u8].into()
                } else {
                    [0x2001, 0xdb8, 0, 0, 0, 0, 7, i].into()
                }
            })
            .collect();
        let announcer = Announcer::new(&front, &ips).unwrap();
        assert_eq!(announcer.send(), Announced { sent: 300, unsent: 0, failures: vec![] });
        for ip in ips {
            // In order, each with our Ethernet address.
            let heard = lab::hear(&peer, |frame| announced(frame).filter(|(heard, _)| !heard.is_loopback()));
            assert_eq!(heard, (ip, front.mac.unwrap()));
        }
    });
}

#[test]
fn a_neighbour_follows_at_once_even_within_its_locktime() {
    lab::run(|lab| {
        // A minute instead of a second, so that a slow machine cannot leave it by accident. In hundredths of a second.
        lab.there(|| lab::write_sysctl("ipv4/neigh/peer/locktime", "6000"));
        let ips: [IpAddr; 2] = ["192.0.2.10".parse().unwrap(), "2001:db8::ff:10".parse().unwrap()];
        let before = lab::link();
        let all = ips.map(|ip| Address::vip(ip, if ip.is_ipv4() { 32 } else { 128 }, "front", before.index));
        let mut set = AddressSet::new(all.to_vec()).unwrap();
        assert!(set.add(&mut RequestSocket::open().unwrap()).unwrap().failures.is_empty());
        for ip in ips {
            lab.resolve(ip, before.mac.unwrap());
        }

        // An ordinary reply is ignored within the locktime, which shows that it is in force.
        let new = Mac([2, 0, 0, 0, 0xba, 0x10]);
        reply_that_is_not_gratuitous(&before, new, lab);
        assert!(lab.neighbour(ips[0]).contains(&before.mac.unwrap().to_string()), "{}", lab.neighbour(ips[0]));

        let mut announcer = Announcer::new(&before, &ips).unwrap();
        announcer.set_mac(new);
        assert_eq!(announcer.mac(), new);
        assert_eq!(announcer.send().sent, 2);
        for ip in ips {
            lab::until("the neighbour learns the new place", || lab.neighbour(ip).contains(&new.to_string()));
        }
    });
}

/// An ARP reply for 192.0.2.10 to the peer alone, whose target is the peer: what a plain answer looks like.
fn reply_that_is_not_gratuitous(front: &link::Link, mac: Mac, lab: &lab::Lab) {
    let (there, heard) = lab.there(|| {
        let link = link::by_name(&mut RequestSocket::open().unwrap(), "peer").unwrap();
        (link.mac.unwrap(), lab::listen(link.index))
    });
    let mut frame = Vec::new();
    frame.extend(there.0);
    frame.extend(mac.0);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    frame.extend(mac.0);
    frame.extend([192, 0, 2, 10]);
    frame.extend(there.0);
    frame.extend([192, 0, 2, 2]);
    let socket = lab::listen(front.index);
    rustix::net::send(&socket, &frame, rustix::net::SendFlags::empty()).unwrap();
    lab::hear(&heard, |f| (f == frame).then_some(()));
}

#[test]
fn a_device_without_ethernet_is_refused_by_name() {
    lab::run(|_| {
        let lo = link::by_name(&mut RequestSocket::open().unwrap(), "lo").unwrap();
        let refused = Announcer::new(&lo, &["192.0.2.10".parse().unwrap()]).unwrap_err().to_string();
        assert!(refused.contains("lo cannot announce"), "{refused}");
    });
}

#[test]
fn a_device_that_is_down_says_so() {
    lab::run(|_| {
        let announcer = Announcer::new(&lab::link(), &["192.0.2.10".parse().unwrap()]).unwrap();
        lab::ip("link set front down");
        let outcome = announcer.send();
        assert_eq!((outcome.sent, outcome.unsent), (0, 1));
        assert_eq!(outcome.failures[0].errno(), Some(rustix::io::Errno::NETDOWN));
    });
}

#[test]
fn solicited_node_groups_are_joined_in_advance() {
    lab::run(|_| {
        let all: Vec<Ipv6Addr> = (0..300).map(|i| [0x2001, 0xdb8, 0, 0, 0, 0, 9, i].into()).collect();
        let shared: Ipv6Addr = "2001:db8:5::9:0".parse().unwrap();
        assert_eq!(solicited_node(shared), solicited_node(all[0]));
        let index = lab::link().index;
        let joined = || lab::ip("-6 maddress show dev front").matches("inet6 ff02::1:ff09:").count();
        let membership = Membership::join("front", index, &[&all[..], &[shared]].concat()).unwrap();
        assert_eq!(membership.groups(), 300);
        assert_eq!(joined(), 300);
        drop(membership);
        lab::until("the groups are left", || joined() == 0);
        assert!(Membership::join("ghost", 4_000, &all).unwrap_err().to_string().contains("on ghost"));
    });
}
