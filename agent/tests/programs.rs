//! The heartbeat programs on crafted packets, by BPF_PROG_TEST_RUN. Needs root; fails where BPF cannot be had.

mod kernel_support;

use std::net::{Ipv4Addr, Ipv6Addr};

use baton::{
    clock,
    cluster::ids::VoterId,
    kernel::run::{BEAT_EGRESS, BEAT_INGRESS, BEAT_XDP, TC_DROP, TC_NEXT, TC_REDIRECT, XDP_DROP, XDP_PASS, XDP_TX},
};
use baton_ebpf::wire::{self, Beat, KIND_ACK};
use etherparse::SlicedPacket;
use kernel_support::*;

/// Both ingress programs, with what they return to pass, drop and send back.
const INGRESS: [(&str, u32, u32, u32); 2] =
    [(BEAT_INGRESS, TC_NEXT, TC_DROP, TC_REDIRECT), (BEAT_XDP, XDP_PASS, XDP_DROP, XDP_TX)];

const SHAPES: [Shape; 8] = [
    Shape { ipv6: false, vlans: 0, unchecked: false },
    Shape { ipv6: false, vlans: 0, unchecked: true },
    Shape { ipv6: false, vlans: 1, unchecked: false },
    Shape { ipv6: false, vlans: 2, unchecked: true },
    Shape { ipv6: true, vlans: 0, unchecked: false },
    Shape { ipv6: true, vlans: 0, unchecked: true },
    Shape { ipv6: true, vlans: 1, unchecked: true },
    Shape { ipv6: true, vlans: 2, unchecked: false },
];

/// The heartbeat in a frame, and whether the UDP checksum holds (or is left out).
fn heartbeat(frame: &[u8]) -> (wire::Words, bool) {
    let sliced = SlicedPacket::from_ethernet(frame).expect("the frame is whole");
    let Some(etherparse::TransportSlice::Udp(udp)) = sliced.transport else { panic!("no UDP") };
    let words = wire::from_bytes(udp.payload()).expect("a heartbeat");
    let header = udp.to_header();
    let expected = match sliced.net {
        Some(etherparse::NetSlice::Ipv4(ip)) => {
            header.calc_checksum_ipv4(&ip.header().to_header(), udp.payload()).expect("a checksum")
        }
        Some(etherparse::NetSlice::Ipv6(ip)) => {
            header.calc_checksum_ipv6(&ip.header().to_header(), udp.payload()).expect("a checksum")
        }
        _ => panic!("no IP"),
    };
    (words, header.checksum == 0 || header.checksum == expected)
}

#[test]
fn a_beat_is_recorded_and_acknowledged_in_place() {
    for (program, _, _, back) in INGRESS {
        for shape in SHAPES {
            let programs = programs();
            let tables = programs.tables();
            tables.set_floor(VoterId(2), 10);
            let before = clock::now();
            let frame = udp(&wire::to_bytes(&signed(&beat(1))), shape);
            let ran = programs.run(program, &frame, 1).expect("it runs");
            assert_eq!(ran.action, back, "{program} {shape:?}");

            let (words, checked) = heartbeat(&ran.packet);
            assert!(checked, "{program} {shape:?}");
            assert_eq!(Beat::read(&words), Beat { kind: KIND_ACK, node: 1, to: 2, ..beat(1) });
            assert_eq!(wire::tag(KEY, &words), words[8]);
            assert_eq!(ran.packet[..6], PEER_MAC);
            assert_eq!(ran.packet[6..12], OUR_MAC);
            assert_eq!(ran.packet.len(), frame.len());

            let peer = tables.peer_view(VoterId(2));
            assert!(peer.last_acknowledged >= before && peer.last_acknowledged <= clock::now());
            assert!(peer.last_seen >= before);
            assert_eq!((peer.incarnation, peer.gate_index, peer.log_index), (3, 10, 12));
            assert_eq!((peer.token, peer.term, peer.digest, peer.silent), (99, 4, 0xabcd, 0b100));
            assert_eq!(peer.leader, Some(VoterId(3)));
            assert!(peer.holds_lease && peer.is_node);
            assert_eq!(tables.counters_view(0).expect("link 0").answered, 1);
        }
    }
}

#[test]
fn below_the_floor_a_beat_is_recorded_but_not_acknowledged() {
    for (program, _, drop, _) in INGRESS {
        let programs = programs();
        let tables = programs.tables();
        for floor in [u64::MAX, 11] {
            tables.set_floor(VoterId(2), floor);
            let frame = udp(&wire::to_bytes(&signed(&beat(floor & 7))), Shape::default());
            assert_eq!(programs.run(program, &frame, 1).expect("it runs").action, drop);
        }
        let peer = tables.peer_view(VoterId(2));
        assert_eq!(peer.last_acknowledged, 0);
        assert!(peer.last_seen != 0);
        assert_eq!(tables.counters_view(0).expect("link 0").answered, 0);
    }
}

#[test]
fn what_is_no_beat_of_ours_passes_or_is_counted() {
    for (program, pass, drop, _) in INGRESS {
        let programs = programs();
        let tables = programs.tables();
        tables.set_floor(VoterId(2), 0);
        let counters = || tables.counters_view(0).expect("link 0");
        let run = |frame: &[u8]| programs.run(program, frame, 1).expect("it runs").action;
        let good = wire::to_bytes(&signed(&beat(1)));

        // Another port, another protocol, a fragment, an ARP packet, a frame too short for IP.
        assert_eq!(run(&udp_ports(&good, Shape::default(), PORT, 1)), pass);
        let mut tcp = udp(&good, Shape::default());
        tcp[23] = 6;
        assert_eq!(run(&tcp), pass);
        let mut fragment = udp(&good, Shape::default());
        fragment[20] = 0x20;
        assert_eq!(run(&fragment), pass);
        fragment[20] = 0x00;
        fragment[21] = 0x10;
        assert_eq!(run(&fragment), pass);
        let mut arp = vec![0; 42];
        arp[12..14].copy_from_slice(&[8, 6]);
        assert_eq!(run(&arp), pass);
        assert_eq!(run(&udp(&good, Shape::default())[..38]), pass);
        assert_eq!(counters(), Default::default());

        // Odd lengths, and a datagram cut short of what its header says.
        for length in [0, 1, 7, 71, 73, 400] {
            let mut payload = good.to_vec();
            payload.resize(length, 0);
            assert_eq!(run(&udp(&payload, Shape::default())), drop, "{length}");
        }
        let whole = udp(&good, Shape::default());
        assert_eq!(run(&whole[..whole.len() - 1]), drop);
        assert_eq!(counters().malformed, 7);

        // Every bit of the datagram is under the signature.
        let (mut forged, mut other) = (0, 0);
        for bit in 0..8 * wire::BYTES {
            let mut payload = good;
            payload[bit / 8] ^= 1 << (bit % 8);
            let action = run(&udp(&payload, Shape::default()));
            if (32..64).contains(&bit) {
                other += 1;
                assert_eq!(action, pass, "another cluster's, bit {bit}");
            } else {
                forged += 1;
                assert_eq!(action, drop, "bit {bit}");
            }
        }
        let counted = counters();
        assert_eq!(counted.other_cluster, other);
        assert_eq!(counted.forged + counted.malformed - 7 + counted.stray, forged);
        assert_eq!(tables.peer_view(VoterId(2)).last_seen, 0);
        assert_eq!(run(&udp(&good, Shape::default())), if program == BEAT_XDP { XDP_TX } else { TC_REDIRECT });
    }
}

#[test]
fn a_datagram_for_a_vip_on_the_heartbeat_port_is_a_clients() {
    for (program, pass, _, _) in INGRESS {
        let mut programs = programs();
        let vips = [vip(Ipv4Addr::new(10, 0, 0, 1), 0), vip(Ipv6Addr::from(address6(1)), 0)];
        programs.set_vips(&vips).expect("two VIPs");
        programs.tables().set_floor(VoterId(2), 0);
        for shape in SHAPES {
            let frame = udp(&wire::to_bytes(&signed(&beat(1))), shape);
            assert_eq!(programs.run(program, &frame, 1).expect("it runs").action, pass, "{program} {shape:?}");
        }
        assert_eq!(programs.tables().counters_view(0).expect("link 0"), Default::default());
    }
}

#[test]
fn replays_and_reordering_are_counted_and_not_answered() {
    for (program, _, drop, back) in INGRESS {
        let programs = programs();
        let tables = programs.tables();
        tables.set_floor(VoterId(2), 0);
        let run = |beat: &Beat| {
            let frame = udp(&wire::to_bytes(&signed(beat)), Shape::default());
            programs.run(program, &frame, 1).expect("it runs").action
        };
        assert_eq!(run(&beat(5)), back);
        assert_eq!(run(&beat(5)), drop);
        assert_eq!(run(&beat(9)), back);
        assert_eq!(run(&beat(7)), drop);
        assert_eq!(run(&Beat { order: wire::order(2, 100), ..beat(1) }), drop);
        assert_eq!(run(&Beat { link: 1, ..beat(5) }), back);
        let link = tables.link_view(VoterId(2), 0).expect("link 0");
        assert_eq!((link.received, link.replayed, link.reordered, link.lost), (2, 2, 1, 2));
        assert_eq!(link.gap.iter().sum::<u64>(), 1);
        assert_eq!(tables.link_view(VoterId(2), 1).expect("link 1").received, 1);
        assert_eq!(tables.counters_view(0).expect("link 0").miswired, 1);

        // A new incarnation begins its numbers again, and its clock.
        assert_eq!(run(&Beat { order: wire::order(4, 1), stamp: 1, token: 1, ..beat(1) }), back);
        let peer = tables.peer_view(VoterId(2));
        assert_eq!((peer.incarnation, peer.token), (4, 1));
        assert_eq!(run(&beat(50)), drop);
    }
}

#[test]
fn an_acknowledgement_by_a_majority_extends_the_lease_from_the_departure() {
    for (program, _, drop, _) in INGRESS {
        let programs = programs();
        let tables = programs.tables();
        let run = |beat: &Beat| {
            let frame = udp(&wire::to_bytes(&signed(beat)), Shape::default());
            assert_eq!(programs.run(program, &frame, 1).expect("it runs").action, drop);
        };
        let stamp = clock::now();
        run(&ack(2, 1, stamp));
        assert_eq!(tables.lease_end(), stamp + config().lease_ns);
        let link = tables.link_view(VoterId(2), 0).expect("link 0");
        assert_eq!((link.acknowledged, link.rtt.iter().sum::<u64>()), (1, 1));

        // An older stamp, another incarnation, the future, the time before the start: none moves it.
        run(&ack(3, 1, stamp - 1));
        run(&Beat { order: wire::order(INCARNATION + 1, 9), ..ack(2, 9, clock::now()) });
        run(&Beat { order: wire::order(INCARNATION - 1, 9), ..ack(2, 9, clock::now()) });
        run(&ack(2, 9, clock::now() + 1_000_000_000));
        run(&ack(3, 9, 1));
        assert_eq!(tables.lease_end(), stamp + config().lease_ns);
        assert_eq!(tables.counters_view(0).expect("link 0").outdated, 4);

        let later = clock::now();
        run(&ack(3, 2, later));
        assert_eq!(tables.lease_end(), later + config().lease_ns);
    }
}

#[test]
fn egress_stamps_and_signs_our_beats_alone() {
    let programs = programs();
    let tables = programs.tables();
    let unsigned = tables.beat(VoterId(2), 0, 8, &Default::default());
    for shape in SHAPES {
        let before = clock::now();
        let ran = programs.run(BEAT_EGRESS, &udp(&unsigned, shape), 1).expect("it runs");
        assert_eq!(ran.action, TC_NEXT);
        let (words, checked) = heartbeat(&ran.packet);
        assert!(checked, "{shape:?}");
        assert!(words[3] >= before && words[3] <= clock::now());
        assert_eq!(words[8], wire::tag(KEY, &words));
        assert_eq!(Beat::read(&words).order, wire::order(INCARNATION, 8));
    }
    let signed_already = signed(&beat(1));
    let acknowledgement = ack(2, 1, 0).words();
    for untouched in [
        udp(&wire::to_bytes(&signed_already), Shape::default()),
        udp(&wire::to_bytes(&acknowledgement), Shape::default()),
        udp_ports(&unsigned, Shape::default(), 1, PORT),
        udp(&unsigned[..71], Shape::default()),
        udp(&unsigned, Shape::default())[..113].to_vec(),
        vec![0; 14],
    ] {
        let ran = programs.run(BEAT_EGRESS, &untouched, 1).expect("it runs");
        assert_eq!((ran.action, &ran.packet), (TC_NEXT, &untouched));
    }
    // What looks like a beat of ours, but came from elsewhere and is only sent on: a signature would make it one.
    let forged = udp(&unsigned, Shape::default());
    let ran = programs.run_forwarded(BEAT_EGRESS, &forged, 1).expect("it runs");
    assert_eq!((ran.action, &ran.packet), (TC_NEXT, &forged));
    assert_eq!(tables.counters_view(0).expect("link 0").signed, SHAPES.len() as u64);
}
