//! Operators' switches on the real thing: stopped groups, maintenance, and what is asked of the nodes of a group.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use baton::clock;
use baton_lab::{
    baton::{Baton, GROUP},
    lock::Exclusive,
    scene::Scene,
    topology::Machine,
    wait,
};
use serde_json::Value;

use super::{LIMIT, SERVED, no_overlap, scene, usual};

/// Whoever wanted to act on his own accord would have done so many times over.
const STAYS: Duration = Duration::from_secs(3);

/// The group as the agent on a machine tells it.
fn group(scene: &Scene, machine: &Machine) -> Result<Value> {
    let status = Baton::status(&scene.lab, machine)?.context("the agent gives no answer")?;
    let groups = status["groups"].as_array().context("the status has groups")?;
    groups.iter().find(|g| g["name"] == GROUP).cloned().context("the status has the group")
}

/// Nobody owns the group, and nobody answers for it, for a while.
fn down(scene: &Scene, machine: &Machine) -> Result<()> {
    wait::until(LIMIT, "the group to be nobody's", || Ok(group(scene, machine)?["owner"].is_null()))?;
    // The youngest answers may be on their way.
    thread::sleep(Duration::from_millis(100));
    let from = clock::now();
    thread::sleep(STAYS);
    let report = scene.probe.report(from, clock::now());
    ensure!(report.sent > 0 && report.lost == report.sent, "somebody answers: {report:?}");
    ensure!(group(scene, machine)?["owner"].is_null(), "somebody owns it");
    Ok(())
}

fn refused(scene: &Scene, machine: &Machine, arguments: &[&str], why: &str) -> Result<()> {
    let error = Baton::command(&scene.lab, machine, arguments).err().context("the order was taken")?.to_string();
    ensure!(error.contains(why), "{error}");
    Ok(())
}

fn serves(scene: &Scene, node: usize) -> Result<()> {
    wait::until(LIMIT, "the node to serve", || Ok(scene.probe.steady_owner(SERVED).map(usize::from) == Some(node)))
}

#[test]
fn a_group_is_stopped_and_started() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut scene = scene("group-stop", usual())?;
    for at in 0..2 {
        let owner = scene.steady(LIMIT)?;
        // Where the order is given does not matter.
        let machine = scene.lab.nodes[if at == 0 { owner } else { 1 - owner }].clone();
        let said = Baton::command(&scene.lab, &machine, &["group", "stop", GROUP])?;
        ensure!(said.contains("is stopped"), "{said}");
        refused(&scene, &machine, &["move", GROUP, "lb1"], "`baton group start` ends that")?;
        down(&scene, &machine)?;
        let epoch = scene.system.takeovers(&scene.lab)?;
        let shown = Baton::command(&scene.lab, &machine, &["group", "list"])?;
        ensure!(shown.contains("stopped"), "{shown}");
        let details = Baton::command(&scene.lab, &machine, &["group", "show", GROUP])?;
        ensure!(details.contains("was stopped by an operator"), "{details}");

        let said = Baton::command(&scene.lab, &machine, &["group", "start", GROUP])?;
        ensure!(said.contains("is owned by"), "{said}");
        scene.steady(LIMIT)?;
        ensure!(scene.system.takeovers(&scene.lab)? > epoch, "it is another ownership");
    }
    no_overlap(&mut scene)
}

#[test]
fn a_stopped_group_stays_stopped_when_all_agents_start_again() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut scene = scene("group-stop-all", usual())?;
    scene.steady(LIMIT)?;
    let machine = scene.lab.nodes[0].clone();
    Baton::command(&scene.lab, &machine, &["group", "stop", GROUP])?;
    scene.system.stop()?;
    scene.system.start(&scene.lab)?;
    wait::until(LIMIT, "the agents to know the log", || {
        let Some(status) = Baton::status(&scene.lab, &machine).ok().flatten() else { return Ok(false) };
        Ok(status["quorum"] == true && status["lease"]["held"] == true && group(&scene, &machine)?["stopped"] == true)
    })?;
    down(&scene, &machine)?;
    Baton::command(&scene.lab, &machine, &["group", "start", GROUP])?;
    scene.steady(LIMIT)?;
    no_overlap(&mut scene)
}

#[test]
fn in_maintenance_nothing_moves_but_the_lease_still_ends() -> Result<()> {
    let _one = Exclusive::take()?;
    for scope in ["cluster", "node", "group"] {
        let mut scene = scene(&format!("maint-{scope}"), usual())?;
        let owner = scene.steady(LIMIT)?;
        let (mine, other) = (scene.lab.nodes[owner].clone(), scene.lab.nodes[1 - owner].clone());
        let name = mine.name.clone();
        let options: &[&str] = match scope {
            "node" => &["--node", &name],
            "group" => &["--group", GROUP],
            _ => &[],
        };
        let switch =
            |way, machine: &Machine| Baton::command(&scene.lab, machine, &[&["maintenance", way], options].concat());
        let said = switch("on", &other)?;
        ensure!(said.contains("is in maintenance"), "{said}");
        refused(&scene, &mine, &["move", GROUP, &other.name], "maintenance")?;
        refused(&scene, &mine, &["standby", &name], "maintenance")?;
        ensure!(Baton::command(&scene.lab, &mine, &["status"])?.contains("in maintenance"));
        serves(&scene, owner)?;

        scene.system.kill(owner)?;
        down(&scene, &other)?;
        switch("off", &other)?;
        serves(&scene, 1 - owner)?;
        scene.system.start(&scene.lab)?;
        scene.steady(LIMIT)?;
        no_overlap(&mut scene)?;
    }
    Ok(())
}

#[test]
fn the_nodes_of_a_group_are_asked_and_answer() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut scene = scene("mend", usual())?;
    let owner = scene.steady(LIMIT)?;
    let (mine, other) = (scene.lab.nodes[owner].clone(), scene.lab.nodes[1 - owner].clone());
    let arbiter = scene.lab.arbiter.clone().context("the lab has an arbiter")?;
    for machine in [&mine, &other, &arbiter] {
        let said = Baton::command(&scene.lab, machine, &["group", "cleanup", GROUP])?;
        for node in [&mine, &other] {
            ensure!(said.contains(&format!("{}: nothing stood against it", node.name)), "{said}");
        }
        let said = Baton::command(&scene.lab, machine, &["resource", "restart", GROUP, "vip"])?;
        ensure!(said.starts_with(&format!("{}: restarting vip", mine.name)), "{said}");
        refused(&scene, machine, &["resource", "restart", GROUP, "vipp"], "did you mean \"vip\"?")?;
    }
    serves(&scene, owner)?;
    scene.system.kill(1 - owner)?;
    // Until it is found silent it is waited for, then it is known.
    let said = Baton::command(&scene.lab, &mine, &["group", "cleanup", GROUP])?;
    ensure!(said.contains(&format!("{}: it ", other.name)), "{said}");
    Baton::command(&scene.lab, &mine, &["group", "stop", GROUP])?;
    refused(&scene, &mine, &["resource", "restart", GROUP, "vip"], "has no owner now")?;
    no_overlap(&mut scene)
}
