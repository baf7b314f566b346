//! What the gates of a lab's nodes recorded: read from their pinned tables, which outlive their agents.

use anyhow::{Context, Result};
use baton::kernel::{GateCounters, inspect::Inspector};

use crate::{
    baton::{Baton, CLUSTER, Inspect},
    overlap::Tenure,
    topology::Lab,
};

/// The row of the lab's only group in the gate's table.
pub const SLOT: u32 = 0;

/// Reads the tenures of the lab's group from all nodes.
pub const INSPECT: Option<Inspect> = Some(tenures);

/// What the gate of a node counted for the lab's group.
pub fn counters(lab: &Lab, node: usize) -> Result<GateCounters> {
    let inspector = inspector(lab, node)?;
    Ok(inspector.gate(SLOT).context("the gate has no row for the group")?.counters)
}

fn inspector(lab: &Lab, node: usize) -> Result<Inspector> {
    let machine = &lab.nodes[node];
    Inspector::of_node(&Baton::bpffs(lab, machine), CLUSTER, &machine.name)
        .with_context(|| format!("the gate of {} cannot be read", machine.name))
}

/// One tenure for each node and epoch: from the first answer or new flow that the gate passed to the last.
fn tenures(lab: &Lab) -> Result<Vec<Tenure>> {
    let mut found = Vec::new();
    for holder in 0..lab.nodes.len() {
        let recorded = inspector(lab, holder)?.tenures()?.into_iter().filter(|(slot, _, _)| *slot == SLOT);
        found.extend(recorded.filter_map(|(_, _, t)| {
            let firsts = [t.first_answer, t.first_flow];
            let first = firsts.into_iter().filter(|instant| *instant != 0).min()?;
            Some(Tenure { holder, first, last: t.last_answer.max(t.last_flow) })
        }));
    }
    Ok(found)
}
