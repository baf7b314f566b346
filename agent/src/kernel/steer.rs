//! The gate's roles, and what steering needs: the ways to the peers, the fronts, and what was counted.

use std::sync::atomic::{Ordering, fence};

use baton_ebpf::{
    layout::{
        GateGroup, PEERS, ROLE_CLOSED, ROLE_DRAIN, ROLE_OWNER, ROLE_RECEIVE, gate_epoch, gate_peer, gate_role,
        gate_word,
    },
    steering::{NO_FRONT, mac_bytes, mac_number},
};

use super::{KernelConfig, tables::Tables};
use crate::{
    clock,
    cluster::{
        command::GateRole,
        ids::{Epoch, Nanos, VoterId},
    },
};

/// The way to a peer: a backplane link that both have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The link's device.
    pub ifindex: u32,
    /// The peer's MAC address on it.
    pub peer_mac: [u8; 6],
    /// This machine's.
    pub own_mac: [u8; 6],
}

/// What a group's gate counted since its maps were made. See [`GateGroup`] for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is documented at the layout's field of the same name")]
pub struct GateCounters {
    pub dropped_ingress: u64,
    pub dropped_egress: u64,
    pub dropped_other: u64,
    pub dropped_neighbour: u64,
    pub dropped_backplane: u64,
    pub steered: u64,
    pub bounced: u64,
    pub taken: u64,
    pub new_steered: u64,
    pub drained: u64,
    pub drained_at: Nanos,
    pub no_path: u64,
}

impl GateCounters {
    fn of(group: &GateGroup) -> Self {
        Self {
            dropped_ingress: group.dropped_ingress.load(),
            dropped_egress: group.dropped_egress.load(),
            dropped_other: group.dropped_other.load(),
            dropped_neighbour: group.dropped_neighbour.load(),
            dropped_backplane: group.dropped_backplane.load(),
            steered: group.steered.load(),
            bounced: group.bounced.load(),
            taken: group.taken.load(),
            new_steered: group.new_steered.load(),
            drained: group.drained.load(),
            drained_at: group.drained_at.load(),
            no_path: group.no_path.load(),
        }
    }
}

/// The word of a role at an epoch.
fn word(epoch: Epoch, role: GateRole) -> u64 {
    match role {
        GateRole::Closed => gate_word(epoch, ROLE_CLOSED, 0),
        GateRole::Owner { steer } => gate_word(epoch, ROLE_OWNER, steer.map_or(0, |peer| peer.0)),
        GateRole::Drain { to } => gate_word(epoch, ROLE_DRAIN, to.0),
        GateRole::Receive { from } => gate_word(epoch, ROLE_RECEIVE, from.0),
    }
}

/// The role in a word. One that this version does not know passes nothing.
fn role(word: u64) -> GateRole {
    let peer = VoterId(gate_peer(word));
    match gate_role(word) {
        ROLE_OWNER => GateRole::Owner { steer: (peer.0 != 0).then_some(peer) },
        ROLE_DRAIN => GateRole::Drain { to: peer },
        ROLE_RECEIVE => GateRole::Receive { from: peer },
        _ => GateRole::Closed,
    }
}

impl Tables {
    /// Sets a group's role in the gate at an epoch. False: the slot does not exist.
    ///
    /// A gate that was closed and gets a role forgets whose the TCP flows were, unless the epoch is the one it had: then its
    /// agent was only started again.
    pub fn set_gate(&self, slot: u32, epoch: Epoch, role: GateRole) -> bool {
        let Some(group) = self.gate(slot) else {
            return false;
        };
        let before = group.word.load();
        let new = word(epoch, role);
        let anew = gate_epoch(before) != epoch || gate_role(new) == ROLE_RECEIVE;
        if gate_role(before) == ROLE_CLOSED && gate_role(new) != ROLE_CLOSED && anew {
            group.since.store(clock::now());
            fence(Ordering::SeqCst);
        }
        group.word.store(new);
        fence(Ordering::SeqCst);
        true
    }

    /// The epoch of a group's gate and its role; closed at epoch 0 beyond the table.
    pub fn gate_state(&self, slot: u32) -> (Epoch, GateRole) {
        let word = self.gate(slot).map_or(0, |group| group.word.load());
        (gate_epoch(word), role(word))
    }

    /// What a group's gate counted; `None` beyond the table. All zero without BPF.
    pub fn gate_counters(&self, slot: u32) -> Option<GateCounters> {
        self.gate(slot).map(GateCounters::of)
    }

    /// The MAC address that a peer's heartbeats come from on a link; `None` before the first one, and without BPF.
    pub fn peer_mac(&self, voter: VoterId, link: usize) -> Option<[u8; 6]> {
        let mac = self.peer(voter).links.get(link)?.mac.load();
        (mac != 0).then(|| mac_bytes(mac))
    }

    /// Sets the way by which packets are steered to a peer, or that there is none. For one thread; the programs never see
    /// a mixture. A number that is no voter's changes nothing.
    pub fn set_path(&self, peer: VoterId, path: Option<Path>) {
        let row = usize::from(peer.0);
        if row == 0 || row >= PEERS {
            return;
        }
        let words =
            path.map_or([0; 3], |path| [u64::from(path.ifindex), mac_number(path.peer_mac), mac_number(path.own_mac)]);
        let row = &self.steer().paths[row];
        if row.load() != Some(words) {
            row.store(words);
            fence(Ordering::SeqCst);
        }
    }

    /// The way that is set to a peer.
    pub fn path(&self, peer: VoterId) -> Option<Path> {
        let [ifindex, theirs, ours] = self.steer().paths.get(usize::from(peer.0))?.load()?;
        (ifindex != 0).then(|| Path { ifindex: ifindex as u32, peer_mac: mac_bytes(theirs), own_mac: mac_bytes(ours) })
    }

    /// Sets a front by its number, its position in [`KernelConfig::fronts`]. For one thread. False: there is no such number.
    pub fn set_front(&self, number: usize, ifindex: u32, mac: [u8; 6]) -> bool {
        let Some(row) = self.steer().fronts.get(number) else {
            return false;
        };
        let words = [u64::from(ifindex), mac_number(mac)];
        if row.load() != Some(words) {
            row.store(words);
            fence(Ordering::SeqCst);
        }
        true
    }

    /// The number of the front with an interface number; [`NO_FRONT`] where it is none.
    pub(super) fn front_number(&self, ifindex: u32) -> u32 {
        let wanted = u64::from(ifindex);
        let mut fronts = self.steer().fronts.iter();
        let number = fronts.position(|front| front.load().is_some_and(|[known, _]| known == wanted && wanted != 0));
        number.map_or(NO_FRONT, |number| number as u32)
    }

    /// Numbers the fronts, whose MAC addresses are not known yet, and forgets the ways to the peers.
    pub(super) fn configure_steering(&self, config: &KernelConfig) {
        for path in &self.steer().paths {
            path.store([0; 3]);
        }
        for (number, row) in self.steer().fronts.iter().enumerate() {
            row.store([config.fronts.get(number).map_or(0, |front| u64::from(front.ifindex)), 0]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: [GateRole; 5] = [
        GateRole::Closed,
        GateRole::Owner { steer: None },
        GateRole::Owner { steer: Some(VoterId(8)) },
        GateRole::Drain { to: VoterId(3) },
        GateRole::Receive { from: VoterId(1) },
    ];

    #[test]
    fn roles_come_back_and_closing_keeps_the_epoch() {
        let tables = Tables::in_memory().expect("memory");
        for (epoch, role) in (1..).zip(ROLES) {
            assert!(tables.set_gate(7, epoch, role));
            assert_eq!(tables.gate_state(7), (epoch, role));
        }
        tables.close_gates();
        assert_eq!(tables.gate_state(7), (5, GateRole::Closed));
        assert_eq!(tables.gate_state(6), (0, GateRole::Closed));
        assert!(!tables.set_gate(100_000, 1, GateRole::Closed));
        assert_eq!(tables.gate_state(100_000), (0, GateRole::Closed));
    }

    #[test]
    fn what_is_known_of_flows_outlives_a_restart_but_no_absence() {
        let tables = Tables::in_memory().expect("memory");
        let since = || tables.gate(0).expect("slot 0").since.load();
        let owner = GateRole::Owner { steer: None };
        tables.set_gate(0, 4, owner);
        let first = since();
        assert!(first != 0);
        // The same tenure: roles change without a pause, or the agent starts again.
        tables.set_gate(0, 5, GateRole::Drain { to: VoterId(2) });
        tables.set_gate(0, 4, owner);
        tables.close_gates();
        tables.set_gate(0, 4, owner);
        assert_eq!(since(), first);
        // Given up and taken again.
        tables.set_gate(0, 4, GateRole::Closed);
        tables.set_gate(0, 6, owner);
        let second = since();
        assert!(second > first);
        tables.set_gate(0, 6, GateRole::Closed);
        tables.set_gate(0, 6, GateRole::Receive { from: VoterId(2) });
        assert!(since() > second);
    }

    #[test]
    fn ways_and_fronts_come_back() {
        let tables = Tables::in_memory().expect("memory");
        let path = Path { ifindex: 9, peer_mac: [2, 0, 0, 0, 0, 2], own_mac: [2, 0, 0, 0, 0, 1] };
        assert_eq!(tables.path(VoterId(2)), None);
        tables.set_path(VoterId(2), Some(path));
        tables.set_path(VoterId(0), Some(path));
        tables.set_path(VoterId(200), Some(path));
        assert_eq!(
            (tables.path(VoterId(2)), tables.path(VoterId(0)), tables.path(VoterId(3))),
            (Some(path), None, None)
        );
        tables.set_path(VoterId(2), None);
        assert_eq!(tables.path(VoterId(2)), None);
        assert!(tables.set_front(15, 4, path.own_mac));
        assert!(!tables.set_front(16, 5, path.own_mac));
        assert_eq!((tables.front_number(4), tables.front_number(5), tables.front_number(0)), (15, NO_FRONT, NO_FRONT));
    }
}
