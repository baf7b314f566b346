//! The lab against a known system: keepalived serves, fails over, and has two owners where it is known to have them.

use std::time::Duration;

use anyhow::{Result, ensure};
use baton_lab::{
    keepalived::Keepalived,
    lock::Exclusive,
    scene::Scene,
    topology::Spec,
    trial::{self, Fault, Watch},
};

const MILLISECOND: u64 = 1_000_000;

fn scene() -> Result<Scene> {
    let spec = Spec { arbiter: false, ..Spec::usual("keepalived") };
    Scene::new(spec, Box::new(Keepalived::floor_realtime()), MILLISECOND)
}

#[test]
fn a_killed_daemon_leaves_two_owners_and_the_observers_see_it() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut scene = scene()?;
    let outcome = trial::run(&mut scene, Fault::Kill, Watch::default())?;
    ensure!(outcome.after.is_some_and(|after| after != outcome.before), "nobody took over: {outcome:?}");
    // Nobody takes the address off the dead daemon's node, so both answer while the trial lingers.
    ensure!(outcome.overlap.wire_ns > 50 * MILLISECOND, "the wire observer missed two owners: {outcome:?}");
    ensure!(!outcome.overlap.conflicts.is_empty());
    let held = scene.addresses.tenures(baton_lab::topology::VIP4.into(), baton::clock::now());
    ensure!(!baton_lab::overlap::conflicts(&held).is_empty(), "the address recorder missed two holders: {held:?}");
    Ok(())
}

#[test]
fn an_owner_that_is_cut_off_is_replaced_and_answers_alone() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut scene = scene()?;
    // Cut off from everything, the observers included: nobody sees a second owner until the repair.
    let watch = Watch { steady_limit: Duration::from_secs(60), ..Watch::default() };
    for _ in 0..3 {
        let outcome = trial::run(&mut scene, Fault::CutOff, watch)?;
        ensure!(outcome.after.is_some_and(|after| after != outcome.before), "nobody took over: {outcome:?}");
        // Three advertisements of 10 ms must have been missed first.
        ensure!(outcome.lost > 5 && outcome.gap_ns > 5 * MILLISECOND, "no gap was seen: {outcome:?}");
    }
    Ok(())
}
