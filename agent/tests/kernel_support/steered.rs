//! A node in the middle of a move, whose programs run on crafted packets.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::net::{Ipv4Addr, Ipv6Addr};

use baton::{
    clock,
    cluster::{command::GateRole, ids::VoterId},
    kernel::{
        Device, GateCounters, KernelConfig, LinkConfig, LinkHook, Path, VipRow,
        run::{GATE_INGRESS, Programs, TC_DROP, TC_NEXT, TC_REDIRECT},
    },
};
use baton_ebpf::steering::{MARK_FINAL, MARK_TAKEN, mac_number};

use super::{
    OUR_MAC, PEER_MAC, config,
    packets::{VIP, vip6},
};

pub const SLOT: u32 = 4;
pub const PEER: VoterId = VoterId(2);
pub const FRONT: u32 = 300;
pub const FRONT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0f];
/// The backplane link; loopback in a test run, which sees every packet as that device's.
pub const LINK: u32 = 200;
pub const LOOPBACK: u32 = 1;
pub const HOUR: u64 = 3_600_000_000_000;

pub const NEW_OWNER: GateRole = GateRole::Owner { steer: Some(PEER) };
pub const DRAIN: GateRole = GateRole::Drain { to: PEER };
pub const RECEIVE: GateRole = GateRole::Receive { from: PEER };

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Pass,
    Drop,
    ToPeer,
    /// To the peer, as final.
    Back,
}
use Fate::{Back, Drop, Pass, ToPeer};

/// A node of a move.
pub struct Node(pub Programs);

/// The peer's MAC address with the bit that marks a final frame flipped.
pub fn flipped(mut mac: [u8; 6]) -> [u8; 6] {
    mac[0] ^= 2;
    mac
}

impl Node {
    /// A node with a way to its peer, which is alive, and a lease.
    pub fn new(role: GateRole) -> Self {
        Self::with(role, LINK)
    }

    pub fn with(role: GateRole, link: u32) -> Self {
        let device = |ifindex| Device { ifindex, name: format!("device{ifindex}") };
        let link = LinkConfig { device: device(link), hook: LinkHook::Tc };
        let config = KernelConfig { fronts: vec![device(FRONT), device(LOOPBACK)], links: vec![link], ..config() };
        let mut programs =
            Programs::load(&config).expect("the BPF programs must load: run as root on Linux 5.18 or later");
        let tables = programs.tables();
        let row = |address, front| VipRow { address, slot: SLOT, front };
        let vips = [row(Ipv4Addr::from(VIP).into(), FRONT), row(Ipv6Addr::from(vip6()).into(), FRONT)];
        programs.set_vips(&vips).expect("two VIPs");
        assert!(tables.set_front(0, FRONT, FRONT_MAC));
        tables.set_path(PEER, Some(Path { ifindex: LINK, peer_mac: PEER_MAC, own_mac: OUR_MAC }));
        tables.peer(PEER).links[0].mac.store(mac_number(PEER_MAC));
        tables.peer(PEER).host_seen.store(clock::now() + HOUR);
        tables.control().lease_end.store(clock::now() + HOUR);
        let node = Self(programs);
        node.take(role);
        node
    }

    pub fn take(&self, role: GateRole) {
        assert!(self.0.tables().set_gate(SLOT, 7, role));
    }

    pub fn fate(&self, frame: &[u8], mark: u32) -> Fate {
        let ran = self.0.run_marked(GATE_INGRESS, frame, mark).expect("it runs");
        assert_eq!(ran.mark, 0, "the mark is taken off");
        match ran.action {
            TC_NEXT => {
                assert_eq!(ran.packet, frame, "what passes is as it was");
                Pass
            }
            TC_DROP => Drop,
            TC_REDIRECT => {
                assert_eq!(ran.packet[..6], PEER_MAC);
                assert_eq!(ran.packet[12..], frame[12..]);
                match ran.packet[6..12].try_into().expect("six bytes") {
                    OUR_MAC => ToPeer,
                    mac if mac == flipped(OUR_MAC) => Back,
                    mac => panic!("sent from {mac:?}"),
                }
            }
            other => panic!("action {other}"),
        }
    }

    /// A packet by the front.
    pub fn front(&self, frame: &[u8]) -> Fate {
        self.fate(frame, 0)
    }

    /// A packet over the backplane.
    pub fn taken(&self, frame: &[u8]) -> Fate {
        self.fate(frame, MARK_TAKEN)
    }

    /// The same as final.
    pub fn last(&self, frame: &[u8]) -> Fate {
        self.fate(frame, MARK_FINAL)
    }

    pub fn counters(&self) -> GateCounters {
        self.0.tables().gate_counters(SLOT).expect("the slot")
    }

    pub fn tenure(&self) -> bool {
        !self.0.tenures().expect("read").is_empty()
    }
}
