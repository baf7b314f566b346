//! What the programs cost a packet, by BPF_PROG_TEST_RUN. The figures are printed (`--nocapture`), not judged: a loaded
//! machine would make the test fail. That each program still does its work under repetition is what is tested.

mod kernel_support;

use std::net::Ipv4Addr;

use baton::{
    clock,
    cluster::ids::VoterId,
    kernel::run::{BEAT_EGRESS, BEAT_INGRESS, BEAT_XDP, GATE_EGRESS, GATE_INGRESS, Ran, TC_DROP, TC_NEXT, measure},
};
use baton_ebpf::wire;
use kernel_support::{OWNER, PORT, Shape, ack, beat, programs, signed, udp, udp_ports};

const ROUNDS: u32 = 2_000;

#[test]
fn costs_are_printed() {
    let mut programs = programs();
    let vip = Ipv4Addr::new(10, 0, 0, 1);
    programs.set_vips(&[kernel_support::vip(vip, 0)]).expect("a VIP");
    let tables = programs.tables();
    tables.set_floor(VoterId(2), 0);
    let foreign = udp_ports(&[0; 100], Shape::default(), 1, 2);
    let other = {
        let mut frame = foreign.clone();
        frame[33] = 99;
        frame
    };

    let show = |what: &str, ran: &Ran| println!("{what:<44} {:>5} ns", ran.nanos);
    let same = |program, frame: &[u8]| programs.run(program, frame, 100_000).expect("it runs");
    let foreign_in = same(BEAT_INGRESS, &foreign);
    assert_eq!(foreign_in.action, TC_NEXT);
    show("beat_ingress, another port", &foreign_in);
    let bare = [&foreign[..12], &[0x88, 0xcc], &[0; 86]].concat();
    show("beat_ingress, not IP", &same(BEAT_INGRESS, &bare));
    let once = measure(&programs, BEAT_INGRESS, &vec![bare; ROUNDS as usize]).expect("it runs");
    show("beat_ingress, not IP, run by run", &once);
    show("beat_xdp, another port", &same(BEAT_XDP, &foreign));
    show("beat_egress, another port", &same(BEAT_EGRESS, &foreign));
    let tcp = {
        let mut frame = foreign.clone();
        frame[23] = 6;
        frame
    };
    show("beat_ingress, TCP", &same(BEAT_INGRESS, &tcp));
    show("gate_ingress, another address", &same(GATE_INGRESS, &other));
    show("gate_egress, another address", &same(GATE_EGRESS, &other));
    let held = same(GATE_INGRESS, &foreign);
    assert_eq!(held.action, TC_DROP);
    show("gate_ingress, VIP, closed", &held);
    tables.set_gate(0, 1, OWNER);
    tables.control().lease_end.store(clock::now() + 3_600_000_000_000);
    show("gate_ingress, VIP, open, TCP", &same(GATE_INGRESS, &tcp));
    show("gate_ingress, VIP, open, UDP (with tenure)", &same(GATE_INGRESS, &foreign));

    // A VIP's datagrams are its clients', on the heartbeat port too: the beats need their address for themselves.
    programs.set_vips(&[]).expect("no VIP");
    let same = |program, frame: &[u8]| programs.run(program, frame, 100_000).expect("it runs");
    // Each beat must be a new one: a program takes a beat once.
    let beats: Vec<_> = (1..=u64::from(ROUNDS)).map(|n| udp(&wire::to_bytes(&signed(&beat(n))), unchecked())).collect();
    let answered = measure(&programs, BEAT_INGRESS, &beats).expect("it runs");
    show("beat_ingress, beat acknowledged", &answered);
    assert_eq!(tables.counters_view(0).expect("link 0").answered, u64::from(ROUNDS));
    let replayed = same(BEAT_INGRESS, &beats[0]);
    show("beat_ingress, beat checked (a replay)", &replayed);
    tables.set_floor(VoterId(2), u64::MAX);
    let refused: Vec<_> =
        (1..=u64::from(ROUNDS)).map(|n| udp(&wire::to_bytes(&signed(&beat(100_000 + n))), unchecked())).collect();
    show("beat_ingress, beat recorded, floor infinite", &measure(&programs, BEAT_INGRESS, &refused).expect("it runs"));
    let acks: Vec<_> = (1..=u64::from(ROUNDS))
        .map(|n| {
            let stamp = clock::now() - u64::from(ROUNDS) + n;
            udp(&wire::to_bytes(&signed(&ack(3, n, stamp))), unchecked())
        })
        .collect();
    show("beat_ingress, acknowledgement, lease renewed", &measure(&programs, BEAT_INGRESS, &acks).expect("it runs"));
    let unsigned = udp_ports(&tables.beat(VoterId(2), 0, 1, &Default::default()), unchecked(), PORT, PORT);
    show(
        "beat_egress, stamped and signed",
        &measure(&programs, BEAT_EGRESS, &vec![unsigned; ROUNDS as usize]).expect("it runs"),
    );
}

fn unchecked() -> Shape {
    Shape { unchecked: true, ..Shape::default() }
}
