//! The observers must not be blind: two gates that a test forces open are seen as two owners, by the gates and on the wire.

use anyhow::{Context, Result, ensure};
use baton::{clock, kernel::inspect::Inspector};
use baton_lab::{
    baton::{Baton, CLUSTER},
    force, gates,
    lock::Exclusive,
    topology::{VIP4, VIP6},
    wait,
};

use super::{LIMIT, MILLISECOND, SERVED, no_overlap, scene, usual};

/// Far longer than the test.
const LEASE_NS: u64 = 600_000 * MILLISECOND;

#[test]
fn two_gates_that_are_forced_open_are_seen_by_the_gates_and_on_the_wire() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut scene = scene("two-gates", usual())?;
    let owner = scene.steady(LIMIT)?;
    let standby = 1 - owner;
    no_overlap(&mut scene)?;

    // Agents that stand still change nothing any more; without beats the lease of the owner runs out.
    scene.system.pause(standby)?;
    scene.system.pause(owner)?;
    wait::until(LIMIT, "a gate that closes with the lease", || {
        Ok(scene.wire.answering(VIP4.into(), SERVED).is_empty())
    })?;
    let machine = &scene.lab.nodes[owner];
    let inspector = Inspector::of_node(&Baton::bpffs(&scene.lab, machine), CLUSTER, &machine.name)?;
    let gate = inspector.gate(gates::SLOT).context("the group has a gate")?;
    ensure!(gate.open(), "the stopped owner's gate is closed by the lease alone: {gate:?}");

    let forced = clock::now();
    for node in [owner, standby] {
        force::open_gate(&scene.lab, &scene.lab.nodes[node], gates::SLOT, gate.epoch, forced + LEASE_NS)?;
    }
    // The owner's addresses still stand.
    let add = format!("address add {VIP4}/24 dev front0\naddress add {VIP6}/64 dev front0 nodad");
    scene.lab.nodes[standby].ns.ip(&add)?;
    for vip in [VIP4.into(), VIP6.into()] {
        wait::until(LIMIT, "both nodes to answer", || Ok(scene.wire.answering(vip, SERVED) == [0, 1]))?;
    }
    // Each of them serves the client, depending on whom it has heard.
    let client = scene.lab.client()?.clone();
    for node in [standby, owner, standby, owner] {
        let mac = scene.lab.nodes[node].front_mac.map(|b| format!("{b:02x}")).join(":");
        client.ns.ip(&format!("neigh replace {VIP4} lladdr {mac} dev front0 nud permanent"))?;
        wait::until(LIMIT, "the client's probes to reach the node", || {
            Ok(scene.probe.steady_owner(SERVED).map(usize::from) == Some(node))
        })?;
    }

    let seen = scene.overlap(forced, clock::now())?;
    ensure!(seen.kernel_ns.is_some_and(|ns| ns > SERVED), "the gates missed two owners: {seen:?}");
    ensure!(seen.wire_ns > SERVED, "the wire observer missed two owners: {seen:?}");
    ensure!(seen.ns() == seen.kernel_ns.unwrap_or(0), "the gates are the reference");
    ensure!(!seen.conflicts.is_empty());
    Ok(())
}
