//! A start that goes on with what the gates do (docs/safety.md, rule 10), and the tables for the keeper that beats meanwhile.

use std::{path::Path, sync::Mutex};

use super::{
    Bpf, Kernel, KernelConfig, attach_programs, bpffs, check, error::KernelError, ethernet_address, exits,
    gate::GateMaps, host, object, tables::Tables,
};
use crate::cluster::ids::Incarnation;

/// The tables that an agent has pinned for a node of these names, to be read alone: a keeper can change nothing by them.
///
/// # Errors
/// A map that is not there, or has another layout.
pub fn pinned(bpffs: &Path, cluster: &str, node: &str) -> Result<Tables, KernelError> {
    let folder = bpffs::version_folder(&bpffs::node_folder(bpffs, cluster, node));
    object::pinned_tables(&folder)
}

/// As [`super::attach`], but gates, lease and gate index stay as `incarnation`, an earlier one of this node, has left them, and it
/// goes on until [`Kernel::publish`] or [`Kernel::begin_anew`]. Its own floors become infinite all the same.
///
/// # Errors
/// [`KernelError::NotAdopted`] where what is pinned was made with another layout, configuration or incarnation; nothing was
/// changed then. Other errors as of [`super::attach`]; in any case the ordinary attachment is the way on.
pub fn adopt(config: &KernelConfig, incarnation: Incarnation) -> Result<Kernel, KernelError> {
    check(config)?;
    host::refuse_time_namespace()?;
    let fronts = config.fronts.iter().map(ethernet_address).collect::<Result<Vec<_>, _>>()?;
    let node = bpffs::node_folder(&config.bpffs, &config.cluster, &config.node);
    let folder = bpffs::version_folder(&node);
    // Before the object is loaded, which would make what is missing.
    let pinned = object::pinned_tables(&folder).map_err(|error| {
        let layout = bpffs::names(&node).unwrap_or_default().join(", ");
        KernelError::NotAdopted(format!("the pinned maps ({layout}) are of another layout: {error}"))
    })?;
    pinned.made_by(config, incarnation).map_err(KernelError::NotAdopted)?;
    drop(pinned);

    let mut ebpf = object::load(Some(&folder))?;
    let tables = object::tables(&ebpf)?;
    let maps = GateMaps::take(&mut ebpf)?;
    if !maps.holds(&tables, &config.vips)? {
        return Err(KernelError::NotAdopted("the groups have other VIPs now".into()));
    }
    tables.refuse_all();
    host::wait_for_programs();
    for (number, (front, mac)) in config.fronts.iter().zip(fronts).enumerate() {
        tables.set_front(number, front.ifindex, mac);
    }
    let hooks = attach_programs(&mut ebpf, &folder, &node, config)?;
    let exits = exits(&mut ebpf, config);
    Ok(Kernel { tables: tables.into(), bpf: Some(Bpf { maps: Mutex::new(maps), hooks, folder: node }), exits })
}

impl Kernel {
    /// After [`adopt`]: the new incarnation takes over. The gates must reflect its barrier. What the old one earned stays: it was
    /// this machine's, and it runs out by itself.
    pub fn publish(&self, incarnation: Incarnation) {
        self.tables.publish(incarnation);
    }

    /// After [`adopt`]: what was adopted is not kept after all. Gates close, and the incarnation begins with nothing.
    pub fn begin_anew(&self, incarnation: Incarnation) {
        self.tables.quiesce();
        host::wait_for_programs();
        self.tables.forget_lease();
        self.tables.publish(incarnation);
    }
}

impl Tables {
    /// Whether an agent of this configuration has made the tables, in this incarnation; else why not.
    fn made_by(&self, config: &KernelConfig, incarnation: Incarnation) -> Result<(), String> {
        let fresh = Self::in_memory().map_err(|error| error.to_string())?;
        fresh.configure(config);
        let (found, wanted) = (self.control(), fresh.control());
        let same = [
            ("the cluster's name", found.cluster.load() == wanted.cluster.load()),
            ("this voter's number", found.me.load() == wanted.me.load()),
            ("the list of voters", found.others.load() == wanted.others.load()),
            ("the majority", found.others_needed.load() == wanted.others_needed.load()),
            ("the lease", found.lease_ns.load() == wanted.lease_ns.load()),
            ("the key", found.key.iter().zip(&wanted.key).all(|(a, b)| a.load() == b.load())),
            ("the port", found.port.load() == wanted.port.load()),
            (
                "the backplane's devices",
                found.link_ifindex.iter().zip(&wanted.link_ifindex).all(|(a, b)| a.load() == b.load()),
            ),
            ("the fronts", (0..).zip(&config.fronts).all(|(number, front)| self.front_number(front.ifindex) == number)),
        ];
        if let Some((what, _)) = same.iter().find(|(_, same)| !same) {
            return Err(format!("{what} changed"));
        }
        let known = found.incarnation.load();
        if known != incarnation || incarnation == 0 {
            return Err(format!("the maps are of incarnation {known}, the keeper of {incarnation}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::{command::GateRole, ids::VoterId},
        kernel::{Chain, Device, LinkConfig, LinkHook},
    };

    fn config() -> KernelConfig {
        let device = |ifindex| Device { ifindex, name: format!("d{ifindex}") };
        KernelConfig {
            cluster: "c".into(),
            cluster_id: 7,
            node: "n".into(),
            bpffs: "/nowhere".into(),
            me: VoterId(1),
            voters: vec![VoterId(1), VoterId(2), VoterId(3)],
            key: [1, 2],
            port: 7420,
            incarnation: 5,
            lease_ns: 50,
            links: vec![LinkConfig { device: device(3), hook: LinkHook::Tc }],
            fronts: vec![device(4)],
            others: Vec::new(),
            vips: Vec::new(),
            chain: Chain::Auto,
            realtime: false,
        }
    }

    #[test]
    fn only_tables_of_the_same_configuration_and_incarnation_are_adopted() {
        let tables = Tables::in_memory().expect("memory");
        tables.configure(&config());
        tables.publish(5);
        assert_eq!(tables.made_by(&config(), 5), Ok(()));
        assert!(tables.made_by(&config(), 4).is_err(), "of another keeper");
        let changes: [fn(&mut KernelConfig); 8] = [
            |c| c.cluster_id = 8,
            |c| c.me = VoterId(2),
            |c| c.voters = vec![VoterId(1), VoterId(2), VoterId(4)],
            |c| c.key = [1, 3],
            |c| c.port = 1,
            |c| c.lease_ns = 60,
            |c| c.links.clear(),
            |c| c.fronts[0].ifindex = 9,
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut other = config();
            change(&mut other);
            assert!(tables.made_by(&other, 5).is_err(), "change {number}");
        }
        // A start that failed halfway has taken the incarnation away.
        tables.quiesce();
        assert!(tables.made_by(&config(), 0).is_err());
    }

    #[test]
    fn a_new_incarnation_keeps_the_lease_or_begins_with_nothing() {
        let tables = Tables::in_memory().expect("memory");
        tables.configure(&config());
        tables.publish(5);
        tables.set_gate(0, 3, GateRole::Owner { steer: None });
        tables.set_gate_index(9);
        tables.control().lease_end.store(1_000);
        let kernel = Kernel { tables: tables.into(), bpf: None, exits: None };
        let tables = kernel.tables();
        let known = || (tables.control().incarnation.load(), tables.lease_end(), tables.gate_index());
        tables.refuse_all();
        assert_eq!(tables.peer_view(VoterId(2)).floor, u64::MAX);
        kernel.publish(6);
        assert_eq!((known(), tables.gate_state(0)), ((6, 1_000, 9), (3, GateRole::Owner { steer: None })));
        kernel.begin_anew(7);
        assert_eq!((known(), tables.gate_state(0)), ((7, 0, 0), (3, GateRole::Closed)));
    }
}
