//! A look at a node's pinned tables from another process, read-only: for the lab and for `baton doctor`.

use std::path::Path;

use baton_ebpf::layout::{SLOTS, Tenure};

use super::{
    bpffs,
    error::KernelError,
    gate::Tenures,
    object,
    steer::GateCounters,
    tables::Tables,
    view::{CountersView, LinkView, PeerView},
};
use crate::cluster::{
    command::GateRole,
    ids::{Epoch, Incarnation, Index, Nanos, VoterId},
};

/// The tables of a node, opened by its folder on bpffs.
#[derive(Debug)]
pub struct Inspector {
    tables: Tables,
    tenures: Tenures,
}

/// A group's row in the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateView {
    /// The epoch.
    pub epoch: Epoch,
    /// What the node is at that epoch, and with which peer.
    pub role: GateRole,
    /// What was counted.
    pub counters: GateCounters,
}

impl Inspector {
    /// Opens a node's tables. The folder is the node's (`<bpffs>/baton/<cluster>-<node>`), or its version folder.
    ///
    /// # Errors
    /// A map that is not there, or has another layout.
    pub fn open(folder: &Path) -> Result<Self, KernelError> {
        let version = bpffs::version_folder(folder);
        let folder = if version.is_dir() { version.as_path() } else { folder };
        Ok(Self { tables: object::pinned_tables(folder)?, tenures: Tenures::pinned(folder)? })
    }

    /// Opens the tables of a node by its names, as [`super::KernelConfig`] has them.
    ///
    /// # Errors
    /// As [`Inspector::open`].
    pub fn of_node(mount: &Path, cluster: &str, node: &str) -> Result<Self, KernelError> {
        Self::open(&bpffs::node_folder(mount, cluster, node))
    }

    /// A group's gate; `None` beyond the table.
    pub fn gate(&self, slot: u32) -> Option<GateView> {
        GateView::read(&self.tables, slot)
    }

    /// The gates that were ever used.
    pub fn gates(&self) -> Vec<(u32, GateView)> {
        (0..SLOTS as u32)
            .filter_map(|slot| Some((slot, self.gate(slot)?)))
            .filter(|(_, gate)| gate.epoch != 0 || gate.counters != GateCounters::default())
            .collect()
    }

    /// When the node's lease ends.
    pub fn lease_end(&self) -> Nanos {
        self.tables.lease_end()
    }

    /// The gate index that its beats carry.
    pub fn gate_index(&self) -> Index {
        self.tables.gate_index()
    }

    /// Its incarnation; 0 while it starts.
    pub fn incarnation(&self) -> Incarnation {
        self.tables.control().incarnation.load()
    }

    /// What it sees of a peer.
    pub fn peer(&self, voter: VoterId) -> PeerView {
        self.tables.peer_view(voter)
    }

    /// What it measured of a peer on a link.
    pub fn link(&self, voter: VoterId, link: usize) -> Option<LinkView> {
        self.tables.link_view(voter, link)
    }

    /// What it counted on a link.
    pub fn counters(&self, link: usize) -> Option<CountersView> {
        self.tables.counters_view(link)
    }

    /// What its gate let through, by slot and epoch.
    ///
    /// # Errors
    /// A map that cannot be read.
    pub fn tenures(&self) -> Result<Vec<(u32, Epoch, Tenure)>, KernelError> {
        self.tenures.all()
    }
}

impl GateView {
    pub(super) fn read(tables: &Tables, slot: u32) -> Option<Self> {
        let (epoch, role) = tables.gate_state(slot);
        Some(Self { epoch, role, counters: tables.gate_counters(slot)? })
    }

    /// Whether the node is the owner at that epoch.
    pub fn open(&self) -> bool {
        matches!(self.role, GateRole::Owner { .. })
    }
}
