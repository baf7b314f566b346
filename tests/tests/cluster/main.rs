//! Clusters in less usual states than one fault in a healthy one (see `failover` for those): two faults in a row, machines
//! without BPF, agents that restart, attackers on the ports, and two owners that a test forces.
//!
//! Nothing here judges speed: conditions are waited for with generous limits.

mod attack;
mod bare;
mod forced;
mod placement;
mod repeats;
mod restart;
mod switches;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use baton::clock;
use baton_lab::{
    baton::{Baton, Inspect, Profile},
    gates,
    scene::Scene,
    topology::Spec,
    trial::{self, Fault, Outcome, Watch},
};

const LIMIT: Duration = Duration::from_secs(60);
const MILLISECOND: u64 = 1_000_000;
const SERVED: u64 = 50 * MILLISECOND;

/// Agents with a lease that is long beside the stalls of a busy machine.
fn agents(inspect: Option<Inspect>) -> Baton {
    Baton::new(Profile::custom(Duration::from_millis(20), Duration::from_millis(100)), inspect)
}

fn usual() -> Baton {
    agents(gates::INSPECT)
}

fn scene(name: &str, baton: Baton) -> Result<Scene> {
    Scene::new(Spec::usual(name), Box::new(baton), MILLISECOND)
}

/// A trial after which another node serves, without overlap.
fn fail_over(scene: &mut Scene, fault: Fault) -> Result<Outcome> {
    let outcome = trial::run(scene, fault, Watch { steady_limit: LIMIT, ..Watch::default() })?;
    let after = outcome.after.with_context(|| format!("nobody served after `{}`: {outcome:?}", fault.name()))?;
    ensure!(after != outcome.before, "the owner did not change: {outcome:?}");
    no_overlap(scene)?;
    Ok(outcome)
}

/// From the start of the observers until now.
fn no_overlap(scene: &mut Scene) -> Result<()> {
    let overlap = scene.overlap(scene.began(), clock::now())?;
    ensure!(overlap.ns() == 0 && overlap.conflicts.is_empty(), "two nodes served at once: {overlap:?}");
    Ok(())
}
