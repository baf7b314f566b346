//! The policy of steering on crafted packets, row by row, by BPF_PROG_TEST_RUN. Needs root; fails where BPF cannot be had.

mod kernel_support;

use std::net::{Ipv4Addr, Ipv6Addr};

use baton::{
    clock,
    cluster::{command::GateRole, ids::VoterId},
    kernel::{
        Flow, GateCounters, VipRow,
        run::{GATE_EGRESS, GATE_INGRESS, GATE_OTHER, STEER_INGRESS, TC_DROP, TC_NEXT, TC_REDIRECT},
    },
};
use baton_ebpf::steering::{FLOW_AGE_NS, MARK_FINAL, MARK_TAKEN};
use kernel_support::{
    OUR_MAC, OWNER, PEER_MAC,
    packets::*,
    steered::{Fate::*, *},
};

/// The flow of [`udp`] from a client's port.
fn flow(family: Family, port: u16, age_ns: u64) -> Flow {
    let (source, destination) = match family {
        Family::V4 => (Ipv4Addr::from(CLIENT).into(), Ipv4Addr::from(VIP).into()),
        _ => (Ipv6Addr::from(client6()).into(), Ipv6Addr::from(vip6()).into()),
    };
    Flow { source, destination, source_port: port, destination_port: 53, protocol: 17, age_ns }
}

#[test]
fn an_owner_that_steers_nothing_passes_all_and_notes_what_it_will_have_to_know() {
    for family in FAMILIES {
        let mut node = Node::new(OWNER);
        for frame in [to_vip(family, 1, SYN), to_vip(family, 2, ACK), udp(family, 3), echo(family), gre(family)] {
            assert_eq!(node.front(&frame), Pass, "{family:?}");
        }
        let flows = node.0.recent_flows(SLOT, 0).expect("read");
        assert!(flows.iter().all(|flow| flow.age_ns < HOUR));
        let mut known: Vec<_> = flows.iter().map(|flow| (flow.protocol, flow.source_port)).collect();
        known.sort_unstable();
        assert_eq!(known, [(17, 3), (47, 0)]);
        assert!(node.0.recent_flows(SLOT, clock::now()).expect("read").is_empty());
        assert!(node.0.recent_flows(SLOT + 1, 0).expect("read").is_empty());
        assert_eq!(node.counters(), GateCounters::default());

        // The move: what it noted is its own, the rest is the new owner's.
        node.take(DRAIN);
        assert_eq!(node.front(&to_vip(family, 1, ACK)), Pass);
        assert_eq!(node.front(&to_vip(family, 2, ACK)), ToPeer);
        assert_eq!(node.front(&udp(family, 3)), Pass);
        assert_eq!(node.front(&udp(family, 4)), ToPeer);
        assert_eq!(node.front(&gre(family)), Pass);
    }
}

#[test]
fn the_new_owner_keeps_new_flows_and_sends_those_that_it_does_not_know() {
    for family in FAMILIES {
        let mut node = Node::new(NEW_OWNER);
        node.0.learn_flows(SLOT, &[flow(family, 5, 1_000), flow(family, 6, FLOW_AGE_NS)]).expect("learnt");
        assert_eq!(node.front(&to_vip(family, 1, ACK)), ToPeer);
        assert_eq!(node.front(&to_vip(family, 1, SYN | ACK)), ToPeer);
        assert!(!node.tenure());
        assert_eq!(node.front(&to_vip(family, 1, SYN)), Pass);
        assert!(node.tenure());
        for flags in [ACK, FIN | ACK, RST] {
            assert_eq!(node.front(&to_vip(family, 1, flags)), Pass);
        }
        assert_eq!(node.front(&udp(family, 4)), Pass);
        assert_eq!(node.front(&udp(family, 5)), ToPeer, "the old owner's, seen of late");
        assert_eq!(node.front(&udp(family, 6)), Pass, "too old");
        assert_eq!(node.front(&echo(family)), Pass);
        let counters = node.counters();
        assert_eq!((counters.steered, counters.new_steered, counters.taken, counters.drained), (3, 0, 0, 0));
    }
}

#[test]
fn the_old_owner_keeps_its_flows_and_refers_new_ones() {
    for family in FAMILIES {
        let node = Node::new(OWNER);
        assert_eq!(node.front(&to_vip(family, 1, SYN)), Pass);
        assert_eq!(node.front(&udp(family, 3)), Pass);
        node.take(DRAIN);
        let before = clock::now();
        assert_eq!(node.front(&to_vip(family, 1, ACK)), Pass);
        assert_eq!(node.front(&udp(family, 3)), Pass);
        assert!(node.counters().drained_at >= before);
        for (frame, new) in
            [(to_vip(family, 2, SYN), 1), (to_vip(family, 2, ACK), 1), (udp(family, 4), 2), (udp(family, 4), 2)]
        {
            assert_eq!(node.front(&frame), ToPeer);
            assert_eq!(node.counters().new_steered, new);
        }
        assert_eq!(node.front(&echo(family)), ToPeer);
        // A client that uses a port again opens a new flow.
        assert_eq!(node.front(&to_vip(family, 1, SYN)), ToPeer);
        assert_eq!(node.front(&to_vip(family, 1, ACK)), ToPeer);
        let counters = node.counters();
        assert_eq!((counters.steered, counters.drained, counters.taken), (7, 2, 0));
    }
}

#[test]
fn the_next_owner_takes_what_is_steered_to_it_and_sends_back_what_it_does_not_know() {
    for family in FAMILIES {
        for role in [RECEIVE, NEW_OWNER] {
            let node = Node::new(role);
            assert_eq!(node.taken(&to_vip(family, 1, ACK)), Back);
            assert_eq!(node.counters().bounced, 1);
            assert!(!node.tenure());
            assert_eq!(node.taken(&to_vip(family, 1, SYN)), Pass);
            assert!(node.tenure());
            assert_eq!(node.taken(&to_vip(family, 1, ACK)), Pass);
            for frame in [udp(family, 2), echo(family), gre(family), datagram_error(family, 2)] {
                assert_eq!(node.taken(&frame), Pass);
            }
            assert_eq!(node.last(&to_vip(family, 9, ACK)), Pass, "never twice");
            assert_eq!(node.counters().taken, 7);
            // What was taken is known when it comes by the front later.
            node.take(NEW_OWNER);
            assert_eq!(node.front(&to_vip(family, 1, ACK)), Pass);
        }
        let node = Node::new(RECEIVE);
        for frame in [to_vip(family, 1, SYN), to_vip(family, 1, ACK), udp(family, 1), echo(family)] {
            assert_eq!(
                node.front(&frame),
                ToPeer,
                "it is not the owner yet, and may be asked by who has not heard of the last move"
            );
        }
        assert_eq!(node.counters().steered, 4);
        assert!(!node.tenure());
    }
}

#[test]
fn the_old_owner_is_the_home_of_what_nobody_knows() {
    for family in FAMILIES {
        let node = Node::new(DRAIN);
        for frame in
            [to_vip(family, 1, ACK), to_vip(family, 1, RST), udp(family, 2), echo(family), segment_error(family, 3)]
        {
            assert_eq!(node.taken(&frame), Pass);
            assert_eq!(node.last(&frame), Pass);
        }
        // It accepts nothing new, whoever asks.
        assert_eq!(node.taken(&to_vip(family, 1, SYN)), Drop);
        assert_eq!(node.last(&to_vip(family, 1, SYN)), Drop);
        assert!(!node.tenure());
        let counters = node.counters();
        assert_eq!((counters.taken, counters.drained, counters.dropped_ingress, counters.steered), (10, 10, 2, 0));
        // A datagram that the new owner gave back is this node's wherever it comes in.
        assert_eq!(node.front(&udp(family, 2)), Pass);
    }
}

#[test]
fn errors_follow_the_flow_that_they_are_about() {
    for family in FAMILIES {
        let mut node = Node::new(NEW_OWNER);
        node.0.learn_flows(SLOT, &[flow(family, 5, 0)]).expect("learnt");
        assert_eq!(node.front(&to_vip(family, 1, SYN)), Pass);
        assert_eq!(node.front(&segment_error(family, 1)), Pass);
        assert_eq!(node.front(&segment_error(family, 2)), ToPeer);
        assert_eq!(node.front(&datagram_error(family, 5)), ToPeer);
        assert_eq!(node.front(&datagram_error(family, 6)), Pass);
        assert_eq!(node.front(&echo_error(family)), Pass);
        assert_eq!(node.taken(&segment_error(family, 2)), Back);
        assert_eq!(node.taken(&segment_error(family, 1)), Pass);

        let node = Node::new(OWNER);
        assert_eq!(node.front(&to_vip(family, 1, SYN)), Pass);
        assert_eq!(node.front(&udp(family, 5)), Pass);
        node.take(DRAIN);
        assert_eq!(node.front(&segment_error(family, 1)), Pass);
        assert_eq!(node.front(&segment_error(family, 2)), ToPeer);
        assert_eq!(node.front(&datagram_error(family, 5)), Pass);
        assert_eq!(node.front(&datagram_error(family, 6)), ToPeer);
        assert_eq!(node.front(&echo_error(family)), ToPeer);
    }
}

#[test]
fn later_fragments_go_where_the_first_one_went() {
    for family in FAMILIES {
        let mut node = Node::new(NEW_OWNER);
        node.0.learn_flows(SLOT, &[flow(family, 5, 0)]).expect("learnt");
        assert_eq!(node.front(&fragment(family, 5, 77, false)), ToPeer);
        assert_eq!(node.front(&fragment(family, 5, 77, true)), ToPeer);
        assert_eq!(node.front(&fragment(family, 6, 78, false)), Pass);
        let steered = node.counters().steered;
        assert_eq!(node.front(&fragment(family, 6, 78, true)), Pass);
        assert_eq!(node.counters().steered, steered);
        // One that came first is not copied over the backplane twice.
        assert_eq!(node.taken(&fragment(family, 6, 79, true)), Pass);
        assert_eq!(node.last(&fragment(family, 6, 79, true)), Pass);
        assert_eq!(node.counters().steered, steered);

        let node = Node::new(DRAIN);
        assert_eq!(node.front(&fragment(family, 6, 80, false)), ToPeer);
        assert_eq!(node.front(&fragment(family, 6, 80, true)), ToPeer);
        assert_eq!(node.taken(&fragment(family, 6, 81, true)), Pass);
    }
}

#[test]
fn a_silent_peer_or_no_way_leaves_the_owner_to_itself_and_the_old_owner_drops() {
    for family in FAMILIES {
        for cut in [true, false] {
            let node = Node::new(NEW_OWNER);
            let tables = node.0.tables();
            let break_off = || {
                if cut {
                    tables.set_path(PEER, None);
                } else {
                    // A lease and a quarter ago, and more.
                    tables.peer(PEER).host_seen.store(clock::now() - 63_500_000);
                }
            };
            assert_eq!(node.front(&to_vip(family, 1, ACK)), ToPeer);
            break_off();
            assert_eq!(node.front(&to_vip(family, 1, ACK)), Pass);
            assert_eq!(node.taken(&to_vip(family, 1, ACK)), Pass);
            assert_eq!(node.counters().no_path, 2);
            node.take(DRAIN);
            assert_eq!(node.front(&to_vip(family, 1, ACK)), Drop);
            assert_eq!(node.front(&to_vip(family, 1, SYN)), Drop);
            assert_eq!(node.counters().no_path, 4);
            // A beat shows that the host lives as well as an acknowledgement does.
            if !cut {
                tables.peer(PEER).last_seen.store(clock::now() + HOUR);
                assert_eq!(node.front(&to_vip(family, 1, ACK)), ToPeer);
            }
        }
    }
}

#[test]
fn what_is_tagged_or_for_others_is_not_steered() {
    for family in FAMILIES {
        let other = {
            let mut frame = to_vip(family, 1, ACK);
            frame[..6].copy_from_slice(&OUR_MAC);
            frame
        };
        for frame in [tagged(to_vip(family, 1, ACK)), tagged(udp(family, 1)), other] {
            assert_eq!(Node::new(NEW_OWNER).front(&frame), Pass);
            assert_eq!(Node::new(DRAIN).front(&frame), Drop);
            assert_eq!(Node::new(RECEIVE).front(&frame), Drop);
        }
    }
}

#[test]
fn without_lease_no_role_passes_anything() {
    for role in [NEW_OWNER, DRAIN, RECEIVE, OWNER] {
        let node = Node::new(role);
        node.0.tables().control().lease_end.store(clock::now());
        for family in FAMILIES {
            for frame in [to_vip(family, 1, SYN), to_vip(family, 1, ACK), udp(family, 1)] {
                assert_eq!(node.0.run(GATE_INGRESS, &frame, 1).expect("it runs").action, TC_DROP);
                assert_eq!(node.0.run_marked(GATE_INGRESS, &frame, MARK_TAKEN).expect("it runs").action, TC_DROP);
            }
        }
    }
}

#[test]
fn only_the_owner_claims_the_address_and_opens_connections_from_it() {
    let leaves = |node: &Node, frame: &[u8]| {
        let fates = [GATE_EGRESS, GATE_OTHER].map(|program| node.0.run(program, frame, 1).expect("it runs").action);
        assert_eq!(fates[0], fates[1]);
        fates[0] == TC_NEXT
    };
    let claims = [
        arp(2, VIP, CLIENT),
        arp(1, VIP, VIP),
        arp(1, VIP, CLIENT),
        discovery(Way::FromVip, 136, vip6()),
        discovery(Way::FromVip, 135, client6()),
        discovery(Way::ToVip, 136, vip6()),
    ];
    for role in [DRAIN, RECEIVE] {
        let node = Node::new(role);
        for claim in &claims {
            assert!(!leaves(&node, claim), "{role:?} {claim:?}");
        }
        for family in FAMILIES {
            assert!(leaves(&node, &tcp(family, Way::FromVip, 1, SYN | ACK)));
            assert!(leaves(&node, &tcp(family, Way::FromVip, 1, ACK)));
            assert!(!leaves(&node, &tcp(family, Way::FromVip, 1, SYN)));
        }
        assert_eq!(node.0.run(GATE_INGRESS, &arp(1, CLIENT, VIP), 1).expect("it runs").action, TC_DROP);
        let question = discovery(Way::ToVip, 135, vip6());
        assert_eq!(node.0.run(GATE_INGRESS, &question, 1).expect("it runs").action, TC_DROP);
        let counters = node.counters();
        assert_eq!((counters.dropped_neighbour, counters.dropped_egress), (2 * claims.len() as u64 + 2, 9));
        assert!(!node.tenure());
        node.take(NEW_OWNER);
        assert!(claims.iter().all(|claim| leaves(&node, claim)));
        assert!(leaves(&node, &tcp(Family::V4, Way::FromVip, 1, SYN)));
    }
}

#[test]
fn a_record_of_tcp_is_of_no_use_once_the_group_was_elsewhere() {
    let node = Node::new(OWNER);
    assert_eq!(node.front(&to_vip(Family::V4, 1, SYN)), Pass);
    let tables = node.0.tables();
    // Its agent was started again: the same tenure.
    tables.close_gates();
    node.take(OWNER);
    node.take(NEW_OWNER);
    assert_eq!(node.front(&to_vip(Family::V4, 1, ACK)), Pass);
    // The client may have opened the flow anew, elsewhere.
    assert!(tables.set_gate(SLOT, 8, GateRole::Closed));
    assert!(tables.set_gate(SLOT, 9, NEW_OWNER));
    assert_eq!(node.front(&to_vip(Family::V4, 1, ACK)), ToPeer);
}

#[test]
fn flows_are_handed_over_and_none_of_ones_own_is_given_away() {
    let mut node = Node::new(OWNER);
    for family in [Family::V4, Family::V6] {
        assert_eq!(node.front(&udp(family, 1)), Pass);
        let own = node.0.recent_flows(SLOT, 0).expect("read");
        node.0.learn_flows(SLOT, &[flow(family, 1, HOUR / 60)]).expect("learnt");
        assert_eq!(node.0.recent_flows(SLOT, 0).expect("read").len(), own.len(), "younger here");
        node.0.learn_flows(SLOT, &[flow(family, 2, 5), flow(family, 1, 0)]).expect("learnt");
        node.0.learn_flows(SLOT, &[flow(family, 2, 5)]).expect("learnt twice");
        assert_eq!(node.0.recent_flows(SLOT, 0).expect("read").len(), own.len() - 1);
    }
}

#[test]
fn tens_of_thousands_of_flows_are_read() {
    let node = Node::new(OWNER);
    for port in 1..=20_000 {
        assert_eq!(node.0.run(GATE_INGRESS, &udp(Family::V4, port), 1).expect("it runs").action, TC_NEXT);
    }
    let mut node = node;
    let mut ports: Vec<_> = node.0.recent_flows(SLOT, 0).expect("read").iter().map(|flow| flow.source_port).collect();
    ports.sort_unstable();
    assert_eq!(ports, (1..=20_000).collect::<Vec<_>>());
}

#[test]
fn the_backplane_hands_in_at_the_front_what_the_peer_sends_and_nothing_else() {
    for family in FAMILIES {
        let node = Node::new(NEW_OWNER);
        let run = |frame: &[u8]| node.0.run_marked(STEER_INGRESS, frame, 0).expect("it runs");
        for (source, mark) in [(PEER_MAC, MARK_TAKEN), (flipped(PEER_MAC), MARK_FINAL)] {
            for frame in [to_vip(family, 1, SYN), udp(family, 1), echo(family), fragment(family, 1, 5, true)] {
                let frame = from(frame, source);
                let ran = run(&frame);
                assert_eq!((ran.action, ran.mark), (TC_REDIRECT, mark));
                assert_eq!(ran.packet[..6], FRONT_MAC);
                assert_eq!(ran.packet[6..], frame[6..]);
            }
        }
        assert_eq!(node.counters().dropped_backplane, 0);
        // Somebody else, or no peer.
        assert_eq!(run(&to_vip(family, 1, SYN)).action, TC_DROP);
        for role in [OWNER, GateRole::Closed, GateRole::Drain { to: VoterId(3) }] {
            node.take(role);
            assert_eq!(run(&from(to_vip(family, 1, SYN), PEER_MAC)).action, TC_DROP);
        }
        assert_eq!(node.counters().dropped_backplane, 4);
        // What is none of the gate's.
        node.take(NEW_OWNER);
        let untouched =
            [tcp(family, Way::FromVip, 1, SYN), tagged(from(to_vip(family, 1, SYN), PEER_MAC)), arp(1, CLIENT, VIP), {
                let mut frame = from(to_vip(family, 1, SYN), PEER_MAC);
                frame[..6].copy_from_slice(&OUR_MAC);
                frame
            }];
        for frame in untouched {
            assert_eq!(run(&frame).action, TC_NEXT);
        }
        // No front carries the VIP: there is nowhere to hand it in.
        assert!(node.0.tables().set_front(0, 0, [0; 6]));
        assert_eq!(run(&from(to_vip(family, 1, SYN), PEER_MAC)).action, TC_DROP);
    }
}

#[test]
fn a_device_that_is_front_and_backplane_tells_by_the_source() {
    // Loopback is the link, and the front of the VIPs.
    let mut node = Node::with(DRAIN, LOOPBACK);
    let row = |address| VipRow { address, slot: SLOT, front: LOOPBACK };
    node.0.set_vips(&[row(Ipv4Addr::from(VIP).into()), row(Ipv6Addr::from(vip6()).into())]).expect("two VIPs");
    for family in FAMILIES {
        let (client, peer) = (to_vip(family, 1, ACK), from(to_vip(family, 1, ACK), PEER_MAC));
        let last = from(to_vip(family, 1, ACK), flipped(PEER_MAC));
        for frame in [&client, &peer, &last] {
            let ran = node.0.run_marked(STEER_INGRESS, frame, 0).expect("it runs");
            assert_eq!((ran.action, ran.mark, &ran.packet), (TC_NEXT, 0, frame));
        }
        node.take(DRAIN);
        assert_eq!([node.front(&client), node.front(&peer), node.front(&last)], [ToPeer, Pass, Pass]);
        node.take(NEW_OWNER);
        assert_eq!([node.front(&client), node.front(&peer), node.front(&last)], [ToPeer, Back, Pass]);
        node.take(RECEIVE);
        assert_eq!([node.front(&client), node.front(&peer), node.front(&last)], [ToPeer, Back, Pass]);
    }
}
