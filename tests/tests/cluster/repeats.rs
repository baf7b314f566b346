//! One failover after another.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use baton_lab::{baton::Baton, lock::Exclusive, scene::Scene, trial::Fault};
use serde_json::Value;

use super::{LIMIT, fail_over, scene, usual};

#[test]
fn the_owner_dies_comes_back_and_then_the_new_owner_dies() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut scene = scene("two-deaths", usual())?;
    let first = fail_over(&mut scene, Fault::Kill)?;
    // The agent that came back is a standby now, and the new owner has handed raft's leadership to somebody else.
    let owner = scene.steady(LIMIT)?;
    ensure!(Some(owner) == first.after, "the group went back by itself");
    for machine in scene.lab.voters() {
        let status = Baton::status(&scene.lab, machine)?.context("an agent gives no answer")?;
        ensure!(status["leader"].is_string() && status["leader"] != scene.lab.nodes[owner].name.as_str());
    }
    let second = fail_over(&mut scene, Fault::Kill)?;
    ensure!(second.after == Some(first.before), "{second:?}");
    // And once more in the other way, by a death of the whole machine.
    let third = fail_over(&mut scene, Fault::CutOff)?;
    ensure!(third.after == first.after, "{third:?}");
    scene.steady(LIMIT)?;
    told_once(&scene)
}

/// An agent that comes back replays the log: what that moved long ago makes no second record.
fn told_once(scene: &Scene) -> Result<()> {
    for machine in &scene.lab.nodes {
        let text = Baton::command(&scene.lab, machine, &["events", "--json"])?;
        let mut changes = BTreeSet::new();
        for line in text.lines() {
            let record: Value = serde_json::from_str(line).with_context(|| format!("no record: {line}"))?;
            // Rounds that moved nothing are about no group.
            if record["group"].is_string() {
                let change = ["epoch", "from", "to"].map(|key| record[key].to_string());
                ensure!(changes.insert(change), "{} told a change of owner twice:\n{text}", machine.name);
            }
        }
        ensure!(!changes.is_empty(), "{} told of no failover:\n{text}", machine.name);
    }
    Ok(())
}
