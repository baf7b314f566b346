//! Where a group goes when its old owner is back.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use baton_lab::{baton::GROUP, lock::Exclusive, scene::Scene, wait};

use super::{LIMIT, SERVED, no_overlap, scene, usual};

/// lb1 by far; the first node of the lab.
const PREFERRED: usize = 0;
const PREFER: &str = "prefer = { lb1 = 1000 }\nfailback = ";
/// A group that wanted to go back would have done so many times over.
const STAYS: Duration = Duration::from_secs(5);

/// The preferred node serves, dies, and is back; the other one serves by then.
fn died_and_is_back(name: &str, failback: bool) -> Result<Scene> {
    let mut scene = scene(name, usual().placed_by(&format!("{PREFER}{failback}\n")))?;
    wait::until(LIMIT, "the preferred node to serve", || {
        Ok(scene.probe.steady_owner(SERVED).map(usize::from) == Some(PREFERRED))
    })?;
    ensure!(scene.steady(LIMIT)? == PREFERRED, "{GROUP} left the preferred node");
    scene.system.kill(PREFERRED)?;
    scene.served_by_another(PREFERRED, SERVED, LIMIT)?;
    scene.system.start(&scene.lab)?;
    Ok(scene)
}

#[test]
fn a_group_stays_when_a_better_node_returns() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut scene = died_and_is_back("no-failback", false)?;
    let owner = scene.steady(LIMIT)?;
    let epoch = scene.system.takeovers(&scene.lab)?;
    thread::sleep(STAYS);
    ensure!(scene.steady(LIMIT)? == owner && owner != PREFERRED, "{GROUP} went back by itself");
    ensure!(scene.system.takeovers(&scene.lab)? == epoch, "{GROUP} moved without a fault");
    no_overlap(&mut scene)
}

#[test]
fn a_group_with_failback_returns() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut scene = died_and_is_back("failback", true)?;
    wait::until(LIMIT, "the preferred node to serve again", || {
        Ok(scene.probe.steady_owner(SERVED).map(usize::from) == Some(PREFERRED))
    })?;
    ensure!(scene.steady(LIMIT)? == PREFERRED);
    let epoch = scene.system.takeovers(&scene.lab)?;
    thread::sleep(STAYS);
    ensure!(scene.system.takeovers(&scene.lab)? == epoch, "{GROUP} goes to and fro");
    no_overlap(&mut scene)
}
