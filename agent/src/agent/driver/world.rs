//! The world as the core sees it at one step: read anew from the kernel's maps, raft and the pulse.

use std::sync::atomic::Ordering::Relaxed;

use super::Driver;
use crate::{
    clock,
    cluster::{
        ids::Nanos,
        view::{PeerView, View},
    },
};

impl Driver {
    /// The world as it is now. Taken after every floor that was set: [`Kernel::tables`]' `set_floor` fences.
    pub(super) fn view(&self) -> View {
        let raft = self.quorum.view();
        self.pulse.leader.store(raft.leader.map_or(0, |l| u32::from(l.0)), Relaxed);
        self.pulse.term.store(raft.term, Relaxed);
        self.pulse.log_index.store(raft.log_index, Relaxed);
        let tables = self.kernel.tables();
        let peers = self.facts.peers.iter().map(|peer| (*peer, peer_view(&tables.peer_view(*peer)))).collect();
        let now = clock::now();
        View {
            configuration_differs: self.configuration_differs(now),
            peers,
            lease_end: tables.lease_end(),
            punctual_since: self.pulse.punctual_since(now, self.timing.interval_ns),
            front_up: self.network.fronts_up(),
            steers: self.steers,
            raft,
        }
    }

    /// Whether most voters that are heard have another configuration than this one.
    fn configuration_differs(&self, now: Nanos) -> bool {
        let tables = self.kernel.tables();
        let mine = self.facts.config.digest as u32;
        let heard = self
            .facts
            .peers
            .iter()
            .map(|peer| tables.peer_view(*peer))
            .filter(|row| row.last_seen != 0 && now.saturating_sub(row.last_seen) <= self.timing.hold_ns());
        let (mut same, mut other) = (1, 0);
        heard.for_each(|row| if row.digest == mine { same += 1 } else { other += 1 });
        other > same
    }
}

/// The part of a peer's row that the core decides by.
fn peer_view(row: &crate::kernel::PeerView) -> PeerView {
    PeerView {
        last_acknowledged: row.last_acknowledged,
        floor: row.floor,
        last_seen: row.last_seen,
        incarnation: row.incarnation,
        holds_lease: row.holds_lease,
        gate_index: row.gate_index,
        log_index: row.log_index,
        token_since: row.token_since,
        leader: row.leader,
        term: row.term,
    }
}
