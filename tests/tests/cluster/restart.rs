//! Planned restarts of an agent: the VIPs go on answering, the owner stays, and a program that does not come up is given up.

use std::{fs, os::unix::fs::symlink, path::Path, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use baton::clock;
use baton_lab::{
    baton::{Baton, CLUSTER},
    lock::Exclusive,
    probe::Probe,
    scene::Scene,
    topology::{Machine, VIP6},
    wait,
};
use rustix::process::Signal;

use super::{LIMIT, MILLISECOND, SERVED, no_overlap, scene, usual};

/// The youngest answers may be on their way.
const SETTLE: Duration = Duration::from_millis(30);

fn both_families(name: &str) -> Result<Scene> {
    let mut scene = scene(name, usual())?;
    scene.probe6 = Some(Probe::start(&scene.lab.client()?.ns, VIP6.into(), MILLISECOND)?);
    Ok(scene)
}

fn incarnation(scene: &Scene, machine: &Machine) -> Result<u64> {
    let status = Baton::status(&scene.lab, machine)?.context("the agent gives no answer")?;
    status["incarnation"].as_u64().context("the status tells the incarnation")
}

/// A restart that no client may notice.
fn unnoticed(scene: &mut Scene, machine: &Machine, restart: impl FnOnce(&mut Scene) -> Result<()>) -> Result<()> {
    let owner = scene.steady(LIMIT)?;
    let (epoch, before) = (scene.system.takeovers(&scene.lab)?, incarnation(scene, machine)?);
    let from = clock::now();
    restart(scene)?;
    ensure!(incarnation(scene, machine)? == before + 1, "another agent runs");
    thread::sleep(SETTLE);
    let to = clock::now() - u64::try_from(SETTLE.as_nanos())?;
    for probe in [Some(&scene.probe), scene.probe6.as_ref()].into_iter().flatten() {
        let report = probe.report(from, to);
        ensure!(report.lost == 0, "a client noticed: {report:?}\n{}", scene.system.logs());
    }
    ensure!(scene.steady(LIMIT)? == owner && scene.system.takeovers(&scene.lab)? == epoch, "the owner changed");
    Ok(())
}

fn in_place(machine: &Machine) -> impl FnOnce(&mut Scene) -> Result<()> + use<> {
    let machine = machine.clone();
    move |scene| {
        let done = Baton::command(&scene.lab, &machine, &["restart"]);
        done.with_context(|| format!("the members' logs:\n{}", scene.system.logs())).map(drop)
    }
}

#[test]
fn the_owner_restarts_and_no_client_notices() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut scene = both_families("restart-owner")?;
    let owner = scene.steady(LIMIT)?;
    let machine = scene.lab.nodes[owner].clone();
    let pid = scene.system.process(owner).context("the owner's agent runs")?.pid();
    for _ in 0..10 {
        unnoticed(&mut scene, &machine, in_place(&machine))?;
    }
    unnoticed(&mut scene, &machine, |scene| {
        let before = incarnation(scene, &machine)?;
        scene.system.process(owner).context("the owner's agent runs")?.signal(Signal::HUP)?;
        comes_up(scene, &machine, before)
    })?;
    let agent = scene.system.process(owner).context("the owner's agent runs")?;
    let adopted = agent.output().matches("the gates went on").count();
    ensure!(adopted == 11, "it adopted {adopted} times:\n{}", agent.output());
    ensure!(agent.pid() == pid && agent.is_running(), "it is the same process");
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    ensure!(children.trim().is_empty(), "keepers were left: {children}");
    no_overlap(&mut scene)
}

#[test]
fn the_owner_ends_is_started_again_and_no_client_notices() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut scene = both_families("restart-exit")?;
    let owner = scene.steady(LIMIT)?;
    let machine = scene.lab.nodes[owner].clone();
    for _ in 0..3 {
        unnoticed(&mut scene, &machine, |scene| ends_and_starts(scene, owner, |_| Ok(())))?;
    }
    no_overlap(&mut scene)
}

/// `restart --exit`, and the lab is the process manager.
fn ends_and_starts(scene: &mut Scene, node: usize, between: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let machine = scene.lab.nodes[node].clone();
    let before = incarnation(scene, &machine)?;
    Baton::command(&scene.lab, &machine, &["restart", "--exit", "--no-wait"])?;
    wait::until(LIMIT, "the agent to end", || Ok(scene.system.process(node).is_none_or(|agent| !agent.is_running())))?;
    between(&Baton::bpffs(&scene.lab, &machine))?;
    scene.system.start(&scene.lab)?;
    comes_up(scene, &machine, before)
}

/// Waits until an agent after `before` answers, and its start is in the log.
fn comes_up(scene: &Scene, machine: &Machine, before: u64) -> Result<()> {
    wait::until(LIMIT, "another agent", || {
        // One that ends breaks off in the middle of its answer.
        let Some(status) = Baton::status(&scene.lab, machine).ok().flatten() else { return Ok(false) };
        let own = status["voters"].as_array().and_then(|voters| voters.iter().find(|v| v["id"] == status["id"]));
        let on_record = own.and_then(|v| v["incarnation"].as_u64());
        Ok(status["incarnation"].as_u64() > Some(before) && on_record == status["incarnation"].as_u64())
    })
}

#[test]
fn a_standby_and_the_arbiter_restart_and_nobody_notices() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut scene = both_families("restart-others")?;
    let owner = scene.steady(LIMIT)?;
    let arbiter = scene.lab.arbiter.clone().context("the lab has an arbiter")?;
    for machine in [scene.lab.nodes[1 - owner].clone(), arbiter.clone(), arbiter] {
        unnoticed(&mut scene, &machine, in_place(&machine))?;
    }
    no_overlap(&mut scene)
}

#[test]
fn a_program_that_does_not_come_up_is_given_up_after_its_time() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut scene = scene("restart-broken", usual())?;
    let owner = scene.steady(LIMIT)?;
    let machine = scene.lab.nodes[owner].clone();
    let link = Baton::link(&scene.lab, &machine);
    fs::remove_file(&link)?;
    let refused = Baton::command(&scene.lab, &machine, &["restart"]);
    ensure!(refused.is_err_and(|e| e.to_string().contains("baton")), "nothing is there to execute");
    ensure!(scene.steady(LIMIT)? == owner, "a refused restart changes nothing");

    symlink("/bin/false", &link)?;
    let from = clock::now();
    Baton::command(&scene.lab, &machine, &["restart", "--within", "2s", "--no-wait"])?;
    scene.served_by_another(owner, SERVED, LIMIT)?;
    let moved = scene.probe.first_answer_by_another(from, owner).context("another one answers")?;
    ensure!(
        moved - from >= 2_000 * MILLISECOND,
        "the keeper held it for its time: {} ms",
        (moved - from) / MILLISECOND
    );
    fs::remove_file(&link)?;
    symlink(Baton::program()?, &link)?;
    scene.system.start(&scene.lab)?;
    ensure!(scene.steady(LIMIT)? != owner);
    no_overlap(&mut scene)
}

#[test]
fn maps_of_another_layout_are_not_adopted() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut scene = scene("restart-layout", usual())?;
    let owner = scene.steady(LIMIT)?;
    let node = scene.lab.nodes[owner].name.clone();
    ends_and_starts(&mut scene, owner, |bpffs| {
        let folder = bpffs.join("baton").join(format!("{CLUSTER}-{node}"));
        let current = fs::read_dir(&folder)?.next().context("a folder of pins")??.path();
        Ok(fs::rename(current, folder.join("v0"))?)
    })?;
    let logs = scene.system.logs();
    ensure!(logs.contains("an ordinary start") && logs.contains("another layout"), "it says why: {logs}");
    scene.steady(LIMIT)?;
    no_overlap(&mut scene)
}
