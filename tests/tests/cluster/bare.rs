//! Machines without BPF: an arbiter needs none, a node serves without it if it is told to, and says so.

use anyhow::{Context, Result, ensure};
use baton_lab::{
    baton::{Baton, GROUP},
    lock::Exclusive,
    metrics::Scrape,
    topology::{Lab, Machine},
    trial::Fault,
};

use super::{LIMIT, SERVED, agents, fail_over, scene, usual};

fn enforced(lab: &Lab, machine: &Machine) -> Result<bool> {
    let status = Baton::status(lab, machine)?.context("the agent gives no answer")?;
    status["lease"]["enforced"].as_bool().context("the status tells whether the lease is enforced")
}

#[test]
fn an_arbiter_without_bpf_promises_and_acknowledges() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut scene = scene("bare-arbiter", usual().without_bpf("arb"))?;
    scene.steady(LIMIT)?;
    let arbiter = scene.lab.arbiter.clone().context("the lab has an arbiter")?;
    ensure!(!enforced(&scene.lab, &arbiter)?, "the arbiter found BPF after all");
    for node in &scene.lab.nodes {
        ensure!(enforced(&scene.lab, node)?, "{} enforces nothing", node.name);
    }
    // Cut off from the owner and then from the other: each time its acknowledgements alone make the majority.
    let first = fail_over(&mut scene, Fault::CutOff)?;
    let second = fail_over(&mut scene, Fault::CutOff)?;
    ensure!(second.after == Some(first.before), "{second:?}");
    ensure!(Scrape::of(&arbiter)?.sum("baton_acknowledgements_sent_total", "") > 0.0);
    Ok(())
}

#[test]
fn a_node_without_bpf_serves_if_it_may_and_warns() -> Result<()> {
    let _one = Exclusive::take()?;
    // Its gate records nothing, so the wire alone is the witness here.
    let mut scene = scene("bare-node", agents(None).without_bpf("lb1"))?;
    let owner = scene.steady(LIMIT)?;
    let bare = scene.lab.nodes[0].clone();
    if owner != 0 {
        Baton::command(&scene.lab, &bare, &["move", "--force", GROUP, &bare.name])?;
        scene.served_by_another(owner, SERVED, LIMIT)?;
        scene.steady(LIMIT)?;
    }
    ensure!(!enforced(&scene.lab, &bare)?, "the node found BPF after all");
    ensure!(enforced(&scene.lab, &scene.lab.nodes[1])?);
    let shown = Baton::command(&scene.lab, &bare, &["status"])?;
    ensure!(shown.contains("warning: the lease is not enforced in the kernel"), "no warning in\n{shown}");
    ensure!(Scrape::of(&bare)?.sum("baton_lease_enforced", "") == 0.0);
    // What needs no enforcement works: the group goes and comes, in order. Open connections cannot be steered: who does not see
    // that there are none is asked whether they may break.
    let arbiter = scene.lab.arbiter.clone().context("the lab has an arbiter")?;
    for (from, to) in [(0, 1), (1, 0)] {
        let name = scene.lab.nodes[to].name.clone();
        let refused = Baton::command(&scene.lab, &arbiter, &["move", GROUP, &name]);
        let refused = format!("{:#}", refused.err().context("the move was not refused")?);
        ensure!(refused.contains("open connections would break") && refused.contains("--force"), "{refused}");
        let plan = Baton::command(&scene.lab, &arbiter, &["move", "--dry-run", GROUP, &name])?;
        ensure!(plan.contains("open connections would break"), "{plan}");
        Baton::command(&scene.lab, &arbiter, &["move", "--force", GROUP, &name])?;
        ensure!(scene.served_by_another(from, SERVED, LIMIT)? == to);
        scene.steady(LIMIT)?;
    }
    Ok(())
}
