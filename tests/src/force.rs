//! Forces a node's gate open behind its agent's back, through the pinned tables: for the proof that the observers see two
//! owners. Nothing but a test does this; the agent must stand still meanwhile, for it writes the same words.

use std::{mem::offset_of, path::Path};

use anyhow::{Context, Result};
use aya::maps::{Array, Map, MapData};
use baton::cluster::ids::{Epoch, Nanos};
use baton_ebpf::layout::{Control, GateGroup, LAYOUT_VERSION, ROLE_OWNER, gate_word};

use crate::{
    baton::{Baton, CLUSTER},
    topology::{Lab, Machine},
};

const CONTROL_WORDS: usize = size_of::<Control>() / 8;
const GATE_WORDS: usize = size_of::<GateGroup>() / 8;
/// The place of the lease's end among the words of the control row.
const LEASE_END: usize = offset_of!(Control, lease_end) / 8;

/// Names the node the owner of the group in `slot` at `epoch`, with a lease until `lease_end`.
pub fn open_gate(lab: &Lab, node: &Machine, slot: u32, epoch: Epoch, lease_end: Nanos) -> Result<()> {
    let folder = Baton::bpffs(lab, node).join("baton").join(format!("{CLUSTER}-{}", node.name));
    let folder = folder.join(format!("v{LAYOUT_VERSION}"));
    let mut control = pinned::<CONTROL_WORDS>(&folder.join("CONTROL"))?;
    let mut row = control.get(&0, 0)?;
    row[LEASE_END] = lease_end;
    control.set(0, row, 0)?;
    let mut gate = pinned::<GATE_WORDS>(&folder.join("GATE"))?;
    let mut row = gate.get(&slot, 0)?;
    row[offset_of!(GateGroup, word) / 8] = gate_word(epoch, ROLE_OWNER, 0);
    gate.set(slot, row, 0)?;
    Ok(())
}

fn pinned<const WORDS: usize>(path: &Path) -> Result<Array<MapData, [u64; WORDS]>> {
    let data = MapData::from_pin(path).with_context(|| format!("no table is pinned at {}", path.display()))?;
    Array::try_from(Map::Array(data)).with_context(|| format!("{} has another layout", path.display()))
}
