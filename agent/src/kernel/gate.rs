//! The gate's maps that are reached by system calls: which address belongs to which group, what was let through, and flows.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    path::Path,
};

use aya::{
    Ebpf, Pod,
    maps::{HashMap, Map, MapData, MapError},
};
use baton_ebpf::{
    layout::{Tenure, TenureKey, VIPS_MAX},
    steering::vip_value,
};

use super::{
    error::{KernelError, map_error},
    flows::Flows,
    object::{FLOWS, TENURES, VIPS},
    tables::Tables,
};
use crate::cluster::ids::Epoch;

/// A VIP of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VipRow {
    /// The address.
    pub address: IpAddr,
    /// Its group's slot.
    pub slot: u32,
    /// The interface number of the front that carries it; 0 on a machine that never does.
    pub front: u32,
}

/// A key of the tenure map as aya wants it.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
struct Key(TenureKey);
// SAFETY: two u64, no padding.
unsafe impl Pod for Key {}

/// A value of the tenure map as aya wants it.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
struct Value(Tenure);
// SAFETY: four u64, no padding.
unsafe impl Pod for Value {}

/// The tenure map, for the agent and for inspectors.
#[derive(Debug)]
pub(super) struct Tenures(HashMap<MapData, Key, Value>);

impl Tenures {
    /// The map pinned in a node's folder.
    pub(super) fn pinned(folder: &Path) -> Result<Self, KernelError> {
        let data = MapData::from_pin(folder.join(TENURES)).map_err(map_error(TENURES))?;
        Ok(Self(HashMap::try_from(Map::LruHashMap(data)).map_err(map_error(TENURES))?))
    }

    /// Every tenure that is remembered.
    pub(super) fn all(&self) -> Result<Vec<(u32, Epoch, Tenure)>, KernelError> {
        let mut all = Vec::new();
        for entry in self.0.iter() {
            match entry {
                Ok((Key(key), Value(tenure))) => all.push((key.slot as u32, key.epoch, tenure)),
                // Pushed out by a younger one between the two system calls.
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(map_error(TENURES)(error)),
            }
        }
        Ok(all)
    }
}

/// The maps that the agent writes.
#[derive(Debug)]
pub(super) struct GateMaps {
    vips: HashMap<MapData, [u8; 16], u32>,
    tenures: Tenures,
    flows: Flows,
}

impl GateMaps {
    /// Takes the maps out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let mut map = |name| ebpf.take_map(name).ok_or(KernelError::Missing(name));
        let vips = HashMap::try_from(map(VIPS)?).map_err(map_error(VIPS))?;
        let tenures = HashMap::try_from(map(TENURES)?).map_err(map_error(TENURES))?;
        Ok(Self { vips, tenures: Tenures(tenures), flows: Flows::take(map(FLOWS)?)? })
    }

    /// Whether the map holds exactly these.
    pub(super) fn holds(&self, tables: &Tables, vips: &[VipRow]) -> Result<bool, KernelError> {
        let known: BTreeMap<_, _> = self.vips.iter().collect::<Result<_, _>>().map_err(map_error(VIPS))?;
        Ok(known == values(tables, vips))
    }

    /// Makes the map hold exactly these.
    pub(super) fn set_vips(&mut self, tables: &Tables, vips: &[VipRow]) -> Result<(), KernelError> {
        let wanted = values(tables, vips);
        if wanted.len() > VIPS_MAX {
            return Err(KernelError::Config(format!("{} VIPs are more than {VIPS_MAX}", wanted.len())));
        }
        let known: Vec<_> = self.vips.keys().collect::<Result<_, _>>().map_err(map_error(VIPS))?;
        // A bit is set before its VIP is there, and cleared after it has gone.
        tables.filter_vips(known.iter().chain(wanted.keys()));
        for (address, value) in &wanted {
            self.vips.insert(address, value, 0).map_err(map_error(VIPS))?;
        }
        for address in known.iter().filter(|address| !wanted.contains_key(*address)) {
            self.vips.remove(address).map_err(map_error(VIPS))?;
        }
        tables.filter_vips(wanted.keys());
        Ok(())
    }

    /// Every tenure that is remembered.
    pub(super) fn tenures(&self) -> Result<Vec<(u32, Epoch, Tenure)>, KernelError> {
        self.tenures.all()
    }

    /// Whose flows are whose.
    pub(super) fn flows(&mut self) -> &mut Flows {
        &mut self.flows
    }
}

/// What the map says of VIPs.
fn values(tables: &Tables, vips: &[VipRow]) -> BTreeMap<[u8; 16], u32> {
    let value = |vip: &VipRow| vip_value(vip.slot, tables.front_number(vip.front));
    vips.iter().map(|vip| (key(vip.address), value(vip))).collect()
}

/// An address as the gate looks it up: IPv4 as ::ffff:a.b.c.d.
pub(super) fn key(address: IpAddr) -> [u8; 16] {
    let address: Ipv6Addr = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    address.octets()
}
