//! The lab against another known system: Pacemaker serves, and moves both ways by either order.

use std::time::Duration;

use anyhow::{Result, ensure};
use baton_lab::{
    lock::Exclusive,
    pacemaker::{Method, Pacemaker},
    scene::Scene,
    topology::Spec,
    trial::{self, Fault, Watch},
};

#[test]
fn a_group_moves_to_and_fro_and_stays_where_it_was_moved() -> Result<()> {
    let _one = Exclusive::take()?;
    for method in [Method::Move, Method::Standby] {
        let spec = Spec { arbiter: false, ..Spec::usual("pacemaker") };
        let mut scene = Scene::new(spec, Box::new(Pacemaker::new(method)), 1_000_000)?;
        let mut last = None;
        for _ in 0..2 {
            let watch = Watch { steady_limit: Duration::from_secs(90), ..Watch::default() };
            let outcome = trial::run(&mut scene, Fault::Move, watch)?;
            ensure!(outcome.after.is_some_and(|after| after != outcome.before), "nothing moved: {outcome:?}");
            ensure!(last.is_none_or(|last| last == outcome.before), "it went back by itself: {outcome:?}");
            last = outcome.after;
        }
        ensure!(scene.system.takeovers(&scene.lab)? >= 3, "the log counts too few starts");
    }
    Ok(())
}
