//! What the kernel tests share: a configuration, beats, and frames crafted around them.

#![allow(dead_code, reason = "each test binary uses a part")]

pub mod echo;
pub mod namespace;
pub mod packets;
pub mod steered;

use std::net::IpAddr;

use baton::{
    cluster::{command::GateRole, ids::VoterId},
    kernel::{Chain, KernelConfig, VipRow, run::Programs},
};
use baton_ebpf::wire::{self, Beat, KIND_ACK, KIND_BEAT, Words};
use etherparse::PacketBuilder;

/// The cluster's number in the tests.
pub const CLUSTER: u32 = 77;
/// The heartbeat port in the tests.
pub const PORT: u16 = 7700;
/// The signing key in the tests.
pub const KEY: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfeed_f00d_dead_beef];
/// MAC of the machine under test.
pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// MAC of the peer.
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The machine under test is voter 1 of three, in incarnation 5.
pub const INCARNATION: u64 = 5;

/// Voter 1 of 1, 2, 3.
pub fn config() -> KernelConfig {
    KernelConfig {
        cluster: "test".into(),
        cluster_id: CLUSTER,
        node: "one".into(),
        bpffs: "/sys/fs/bpf".into(),
        me: VoterId(1),
        voters: vec![VoterId(1), VoterId(2), VoterId(3)],
        key: KEY,
        port: PORT,
        incarnation: INCARNATION,
        lease_ns: 50_000_000,
        links: Vec::new(),
        fronts: Vec::new(),
        others: Vec::new(),
        vips: Vec::new(),
        chain: Chain::Auto,
        realtime: false,
    }
}

/// The owner, who steers nothing.
pub const OWNER: GateRole = GateRole::Owner { steer: None };

/// A VIP of the gate that no front carries.
pub fn vip(address: impl Into<IpAddr>, slot: u32) -> VipRow {
    VipRow { address: address.into(), slot, front: 0 }
}

/// The programs on tables of their own. Fails the test where BPF cannot be had.
pub fn programs() -> Programs {
    Programs::load(&config()).expect("the BPF programs must load: run as root on Linux 5.18 or later")
}

/// A beat of voter 2 to voter 1 in the peer's incarnation 3, stamped by the peer.
pub fn beat(sequence: u64) -> Beat {
    Beat {
        cluster: CLUSTER,
        kind: KIND_BEAT,
        node: 2,
        to: 1,
        link: 0,
        flags: wire::FLAG_LEASE | wire::FLAG_NODE,
        leader: 3,
        silent: 0b100,
        order: wire::order(3, sequence),
        stamp: 1_000_000 + sequence,
        gate_index: 10,
        token: 99,
        digest: 0xabcd,
        term: 4,
        log_index: 12,
    }
}

/// An acknowledgement by `node` of the beat of ours with this sequence number and stamp.
pub fn ack(node: u8, sequence: u64, stamp: u64) -> Beat {
    Beat { kind: KIND_ACK, node, order: wire::order(INCARNATION, sequence), stamp, ..beat(0) }
}

/// Signs a beat that has its stamp.
pub fn signed(beat: &Beat) -> Words {
    let mut words = beat.words();
    words[8] = wire::tag(KEY, &words);
    words
}

/// How a test frame is built.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    /// IPv6 rather than IPv4.
    pub ipv6: bool,
    /// VLAN tags in line.
    pub vlans: u8,
    /// Whether the UDP checksum is left out.
    pub unchecked: bool,
}

/// A UDP frame from the peer to us.
pub fn udp(payload: &[u8], shape: Shape) -> Vec<u8> {
    udp_ports(payload, shape, PORT, PORT)
}

/// A UDP frame from the peer to us, ports by choice.
pub fn udp_ports(payload: &[u8], shape: Shape, source: u16, destination: u16) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(PEER_MAC, OUR_MAC);
    let mut frame = Vec::new();
    if shape.ipv6 {
        let builder = builder.ipv6(address6(2), address6(1), 64).udp(source, destination);
        builder.write(&mut frame, payload).expect("the frame is built");
    } else {
        let builder = builder.ipv4([10, 0, 0, 2], [10, 0, 0, 1], 64).udp(source, destination);
        builder.write(&mut frame, payload).expect("the frame is built");
    }
    if shape.unchecked {
        let at = if shape.ipv6 { 14 + 40 + 6 } else { 14 + 20 + 6 };
        frame[at..at + 2].fill(0);
    }
    for _ in 0..shape.vlans {
        frame.splice(12..12, [0x81, 0x00, 0x00, 0x0a]);
    }
    frame
}

/// fd00::n.
pub fn address6(n: u8) -> [u8; 16] {
    let mut address = [0; 16];
    address[0] = 0xfd;
    address[15] = n;
    address
}
