//! The gate's programs on crafted packets, by BPF_PROG_TEST_RUN. Needs root; fails where BPF cannot be had.

mod kernel_support;

use std::net::{Ipv4Addr, Ipv6Addr};

use baton::{
    clock,
    cluster::command::GateRole,
    kernel::{
        Tables,
        run::{GATE_EGRESS, GATE_INGRESS, GATE_OTHER, Programs, TC_DROP, TC_NEXT},
    },
};
use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, PacketBuilder};
use kernel_support::{OUR_MAC, OWNER, PEER_MAC, address6, programs, vip};

const VIP: [u8; 4] = [192, 0, 2, 10];
const OTHER: [u8; 4] = [192, 0, 2, 11];
const CLIENT: [u8; 4] = [198, 51, 100, 1];
const SLOT: u32 = 4;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

fn vip6() -> [u8; 16] {
    address6(0x10)
}

/// Programs whose gate knows both VIPs, closed.
fn gated() -> Programs {
    let mut programs = programs();
    let vips = [vip(Ipv4Addr::from(VIP), SLOT), vip(Ipv6Addr::from(vip6()), SLOT)];
    programs.set_vips(&vips).expect("two VIPs");
    programs
}

fn open(tables: &Tables, epoch: u64) {
    assert!(tables.set_gate(SLOT, epoch, OWNER));
    tables.control().lease_end.store(clock::now() + 3_600_000_000_000);
}

fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&OUR_MAC[..], &PEER_MAC, &ethertype.to_be_bytes(), payload].concat()
}

fn vlan(mut frame: Vec<u8>, tags: usize) -> Vec<u8> {
    for _ in 0..tags {
        frame.splice(12..12, [0x81, 0x00, 0x00, 0x0a]);
    }
    frame
}

/// A TCP segment with these flags.
fn tcp(source: [u8; 4], destination: [u8; 4], flags: u8) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(PEER_MAC, OUR_MAC).ipv4(source, destination, 64).tcp(1234, 80, 1, 1000);
    builder.write(&mut frame, b"data").expect("built");
    frame[14 + 20 + 13] = flags;
    frame
}

fn udp(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(PEER_MAC, OUR_MAC).ipv4(source, destination, 64).udp(1234, 53);
    builder.write(&mut frame, b"data").expect("built");
    frame
}

/// A later fragment.
fn fragment(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    let mut header = Ipv4Header::new(64, 64, IpNumber::UDP, source, destination).expect("small");
    header.fragment_offset = IpFragOffset::try_new(100).expect("small");
    header.header_checksum = header.calc_header_checksum();
    let mut packet = Vec::new();
    header.write(&mut packet).expect("written");
    packet.extend([0xff; 64]);
    ethernet(0x0800, &packet)
}

fn arp(operation: u8, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let body = [&[0, 1, 8, 0, 6, 4, 0, operation][..], &PEER_MAC, &sender, &OUR_MAC, &target].concat();
    ethernet(0x0806, &body)
}

/// IPv6 with a raw payload, behind extension headers given as (next header of the previous, bytes).
fn ipv6(source: [u8; 16], destination: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 255]);
    packet.extend(source);
    packet.extend(destination);
    packet.extend(payload);
    ethernet(0x86dd, &packet)
}

fn tcp6(source: [u8; 16], destination: [u8; 16], flags: u8) -> Vec<u8> {
    let mut segment = vec![0; 20];
    segment[12] = 0x50;
    segment[13] = flags;
    ipv6(source, destination, 6, &segment)
}

fn discovery(kind: u8, source: [u8; 16], target: [u8; 16]) -> Vec<u8> {
    let body = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target].concat();
    ipv6(source, address6(0xff), 58, &body)
}

/// The same behind a hop-by-hop and a destination options header.
fn hidden(kind: u8, source: [u8; 16], target: [u8; 16]) -> Vec<u8> {
    let options = [&[60, 0, 1, 4, 0, 0, 0, 0][..], &[58, 1, 1, 12], &[0; 12]].concat();
    let body = [&options[..], &[kind, 0, 0, 0, 0, 0, 0, 0], &target].concat();
    ipv6(source, address6(0xff), 0, &body)
}

fn fragment6(source: [u8; 16], destination: [u8; 16]) -> Vec<u8> {
    let header = Ipv6FragmentHeader::new(IpNumber::UDP, IpFragOffset::try_new(8).expect("small"), false, 1);
    ipv6(source, destination, 44, &[&header.to_bytes()[..], &[0xff; 32]].concat())
}

/// What concerns the VIPs at ingress.
fn to_vip() -> Vec<(&'static str, Vec<u8>)> {
    let client = address6(0x77);
    vec![
        ("SYN", tcp(CLIENT, VIP, SYN)),
        ("data", tcp(CLIENT, VIP, ACK)),
        ("UDP", udp(CLIENT, VIP)),
        ("fragment", fragment(CLIENT, VIP)),
        ("ARP request", arp(1, CLIENT, VIP)),
        ("ARP probe", arp(1, [0; 4], VIP)),
        ("SYN over IPv6", tcp6(client, vip6(), SYN)),
        ("data over IPv6", tcp6(client, vip6(), ACK)),
        ("fragment over IPv6", fragment6(client, vip6())),
        ("echo request over IPv6", ipv6(client, vip6(), 58, &[128, 0, 0, 0, 0, 0, 0, 0])),
        ("solicitation", discovery(135, client, vip6())),
        ("DAD", discovery(135, [0; 16], vip6())),
        ("hidden solicitation", hidden(135, client, vip6())),
    ]
}

/// What concerns the VIPs at egress.
fn from_vip() -> Vec<(&'static str, Vec<u8>)> {
    let client = address6(0x77);
    vec![
        ("SYN-ACK", tcp(VIP, CLIENT, SYN | ACK)),
        ("UDP", udp(VIP, CLIENT)),
        ("fragment", fragment(VIP, CLIENT)),
        ("ARP reply", arp(2, VIP, CLIENT)),
        ("gratuitous ARP request", arp(1, VIP, VIP)),
        ("gratuitous ARP reply", arp(2, VIP, VIP)),
        ("ARP request from the VIP", arp(1, VIP, CLIENT)),
        ("SYN-ACK over IPv6", tcp6(vip6(), client, SYN | ACK)),
        ("fragment over IPv6", fragment6(vip6(), client)),
        ("advertisement", discovery(136, vip6(), vip6())),
        ("advertisement from another address", discovery(136, address6(9), vip6())),
        ("hidden advertisement", hidden(136, address6(9), vip6())),
        ("solicitation from the VIP", discovery(135, vip6(), client)),
        ("DAD", discovery(135, [0; 16], vip6())),
    ]
}

/// What concerns no VIP, whatever the gate's state.
fn foreign() -> Vec<(&'static str, Vec<u8>)> {
    let (client, other) = (address6(0x77), address6(0x11));
    vec![
        ("TCP", tcp(CLIENT, OTHER, SYN)),
        ("UDP", udp(OTHER, CLIENT)),
        ("fragment", fragment(CLIENT, OTHER)),
        ("ARP request", arp(1, CLIENT, OTHER)),
        ("ARP reply", arp(2, OTHER, CLIENT)),
        ("TCP over IPv6", tcp6(client, other, SYN)),
        ("solicitation", discovery(135, client, other)),
        ("hidden advertisement", hidden(136, other, other)),
        ("LLDP", ethernet(0x88cc, &[0; 40])),
        ("a bare header", ethernet(0x88cc, &[])),
        ("cut IPv6", ipv6(client, other, 0, &[60])),
        ("cut ARP", arp(1, CLIENT, VIP)[..40].to_vec()),
        ("ARP for another hardware", {
            let mut frame = arp(1, CLIENT, VIP);
            frame[15] = 6;
            frame
        }),
    ]
}

fn run(programs: &Programs, program: &'static str, frame: &[u8]) -> u32 {
    let ran = programs.run(program, frame, 1).expect("it runs");
    assert_eq!(ran.packet, frame, "the gate changes nothing");
    ran.action
}

#[test]
fn a_closed_gate_drops_and_counts_all_that_concerns_the_vip() {
    let programs = gated();
    let tables = programs.tables();
    let group = || tables.gate(SLOT).expect("the slot");
    for (sides, program) in [(to_vip(), GATE_INGRESS), (from_vip(), GATE_EGRESS), (from_vip(), GATE_OTHER)] {
        let count = sides.len() as u64;
        for (name, frame) in sides {
            for tags in 0..=2 {
                let frame = vlan(frame.clone(), tags);
                assert_eq!(run(&programs, program, &frame), TC_DROP, "{program} {name}, {tags} VLAN tags");
            }
        }
        let dropped = match program {
            GATE_INGRESS => &group().dropped_ingress,
            GATE_EGRESS => &group().dropped_egress,
            _ => &group().dropped_other,
        };
        assert_eq!(dropped.load(), 3 * count, "{program}");
    }
    assert!(group().dropped_neighbour.load() > 0);
    assert!(programs.tenures().expect("read").is_empty());
}

#[test]
fn role_without_lease_and_lease_without_role_are_closed() {
    let programs = gated();
    let tables = programs.tables();
    let now = clock::now();
    for (open, lease_end) in [(true, 0), (true, now), (false, now + 3_600_000_000_000)] {
        tables.set_gate(SLOT, 3, if open { OWNER } else { GateRole::Closed });
        tables.control().lease_end.store(lease_end);
        for (name, frame) in to_vip() {
            assert_eq!(run(&programs, GATE_INGRESS, &frame), TC_DROP, "{name}");
        }
        for (name, frame) in from_vip() {
            assert_eq!(run(&programs, GATE_EGRESS, &frame), TC_DROP, "{name}");
        }
    }
}

#[test]
fn an_open_gate_passes_all_of_it_and_notes_the_tenure() {
    let programs = gated();
    let tables = programs.tables();
    open(&tables, 6);
    let tenure = |epoch| {
        let all = programs.tenures().expect("read");
        all.into_iter().find(|(slot, at, _)| (*slot, *at) == (SLOT, epoch)).map(|(_, _, tenure)| tenure)
    };
    // Neither of these opens a flow or answers for the VIP.
    for (program, frame) in [
        (GATE_INGRESS, tcp(CLIENT, VIP, ACK)),
        (GATE_INGRESS, fragment(CLIENT, VIP)),
        (GATE_INGRESS, fragment6(address6(0x77), vip6())),
        (GATE_INGRESS, tcp(CLIENT, VIP, SYN | ACK)),
        (GATE_INGRESS, arp(1, CLIENT, VIP)),
        (GATE_INGRESS, discovery(135, address6(0x77), vip6())),
        (GATE_EGRESS, tcp(VIP, CLIENT, SYN)),
        (GATE_EGRESS, udp(VIP, CLIENT)),
        (GATE_EGRESS, arp(1, VIP, CLIENT)),
    ] {
        assert_eq!(run(&programs, program, &frame), TC_NEXT);
    }
    assert_eq!(tenure(6), None);

    let before = clock::now();
    assert_eq!(run(&programs, GATE_EGRESS, &arp(2, VIP, CLIENT)), TC_NEXT);
    let first = tenure(6).expect("noted");
    assert!(first.first_answer >= before && first.first_answer == first.last_answer);
    assert_eq!((first.first_flow, first.last_flow), (0, 0));
    for frame in [tcp(CLIENT, VIP, SYN), udp(CLIENT, VIP), tcp6(address6(0x77), vip6(), SYN)] {
        let before = tenure(6).expect("noted");
        assert_eq!(run(&programs, GATE_INGRESS, &frame), TC_NEXT);
        assert!(tenure(6).expect("noted").last_flow > before.last_flow);
    }
    let second = tenure(6).expect("noted");
    assert!(second.first_flow > first.first_answer && second.last_flow > second.first_flow);
    for answer in [arp(1, VIP, VIP), discovery(136, vip6(), vip6()), hidden(136, address6(9), vip6())] {
        let before = tenure(6).expect("noted");
        assert_eq!(run(&programs, GATE_EGRESS, &answer), TC_NEXT);
        assert!(tenure(6).expect("noted").last_answer > before.last_answer);
    }

    // Everything passes, tagged or not; another epoch has a tenure of its own.
    open(&tables, 7);
    for (packets, program) in [(to_vip(), GATE_INGRESS), (from_vip(), GATE_EGRESS), (from_vip(), GATE_OTHER)] {
        for (name, frame) in packets {
            for tags in 0..=2 {
                assert_eq!(run(&programs, program, &vlan(frame.clone(), tags)), TC_NEXT, "{program} {name}");
            }
        }
    }
    assert!(tenure(7).is_some_and(|tenure| tenure.first_answer > 0 && tenure.first_flow > 0));
    let group = tables.gate(SLOT).expect("the slot");
    assert_eq!(group.dropped_ingress.load() + group.dropped_egress.load() + group.dropped_other.load(), 0);
}

#[test]
fn what_concerns_no_vip_passes_untouched() {
    let programs = gated();
    for program in [GATE_INGRESS, GATE_EGRESS, GATE_OTHER] {
        for (name, frame) in foreign() {
            assert_eq!(run(&programs, program, &frame), TC_NEXT, "{program} {name}");
        }
    }
    // A standby may ask for the VIP, and must hear its owner.
    for (program, frame) in [
        (GATE_EGRESS, arp(1, OTHER, VIP)),
        (GATE_EGRESS, udp(OTHER, VIP)),
        (GATE_EGRESS, discovery(135, address6(0x11), vip6())),
        (GATE_INGRESS, arp(2, VIP, OTHER)),
        (GATE_INGRESS, arp(1, VIP, VIP)),
        (GATE_INGRESS, udp(VIP, OTHER)),
        (GATE_INGRESS, discovery(136, vip6(), vip6())),
    ] {
        assert_eq!(run(&programs, program, &frame), TC_NEXT);
    }
}

#[test]
fn vips_are_replaced_as_a_whole() {
    let mut programs = gated();
    assert_eq!(run(&programs, GATE_INGRESS, &udp(CLIENT, VIP)), TC_DROP);
    programs.set_vips(&[vip(Ipv4Addr::from(OTHER), 0)]).expect("one VIP");
    assert_eq!(run(&programs, GATE_INGRESS, &udp(CLIENT, VIP)), TC_NEXT);
    assert_eq!(run(&programs, GATE_INGRESS, &udp(CLIENT, OTHER)), TC_DROP);
    // A slot beyond the table is nobody's: held.
    programs.set_vips(&[vip(Ipv4Addr::from(OTHER), 100_000)]).expect("one VIP");
    assert_eq!(run(&programs, GATE_INGRESS, &udp(CLIENT, OTHER)), TC_DROP);
}
