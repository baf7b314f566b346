//! The failures that Baton must survive, each on the real kernel with the real agents: the service is back, and at no
//! instant did two nodes serve.
//!
//! Nothing here judges speed (the bench does): conditions are waited for with generous limits, and the lease is long
//! enough that a stall of the whole machine doesn't speak louder than the code.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use baton::clock;
use baton_lab::{
    baton::{Baton, GROUP, Profile},
    burn::Burners,
    gates,
    lock::Exclusive,
    probe::Probe,
    scene::Scene,
    topology::{FRONT, Spec, VIP4, VIP6},
    trial::{self, Expectation, Fault, Outcome, Watch},
    wait,
};

const LIMIT: Duration = Duration::from_secs(60);
const MILLISECOND: u64 = 1_000_000;
const SERVED: u64 = 50 * MILLISECOND;

fn scene(name: &str) -> Result<Scene> {
    let profile = Profile::custom(Duration::from_millis(20), Duration::from_millis(100));
    let baton = Baton::new(profile, gates::INSPECT);
    let mut scene = Scene::new(Spec::usual(name), Box::new(baton), MILLISECOND)?;
    scene.probe6 = Some(Probe::start(&scene.lab.client()?.ns, VIP6.into(), MILLISECOND)?);
    Ok(scene)
}

/// A trial that must end as the fault's expectation says, without overlap.
fn survive(scene: &mut Scene, fault: Fault) -> Result<Outcome> {
    let outcome = trial::run(scene, fault, Watch { steady_limit: LIMIT, ..Watch::default() })?;
    eprintln!(
        "{}: gap {:.1} ms, {} probes lost, stall {:.1} ms",
        fault.name(),
        outcome.gap_ns as f64 / 1e6,
        outcome.lost,
        outcome.stall_ns as f64 / 1e6
    );
    let after = outcome.after.with_context(|| format!("nobody served after `{}`: {outcome:?}", fault.name()))?;
    match fault.expectation() {
        Expectation::Moves => ensure!(after != outcome.before, "the owner did not change: {outcome:?}"),
        Expectation::Stays => ensure!(after == outcome.before, "the owner changed without need: {outcome:?}"),
        Expectation::Serves => {}
    }
    no_overlap(scene)?;
    Ok(outcome)
}

/// From the start of the observers until now.
fn no_overlap(scene: &mut Scene) -> Result<()> {
    let overlap = scene.overlap(scene.began(), clock::now())?;
    ensure!(overlap.ns() == 0 && overlap.conflicts.is_empty(), "two nodes served at once: {overlap:?}");
    Ok(())
}

/// Takes the lab, runs one fault in it, and leaves the steady scene for what the test has to add.
fn one_fault(name: &str, fault: Fault) -> Result<(Exclusive, Scene, Outcome)> {
    let one = Exclusive::take()?;
    let mut scene = scene(name)?;
    let outcome = survive(&mut scene, fault)?;
    Ok((one, scene, outcome))
}

#[test]
fn owner_cut_off_all_links() -> Result<()> {
    let (_one, mut scene, first) = one_fault("cut-off", Fault::CutOff)?;
    // The old owner is back and healthy, and the group stays where it is: no fail-back.
    let epoch = scene.system.takeovers(&scene.lab)?;
    thread::sleep(Duration::from_secs(1));
    ensure!(Some(scene.steady(LIMIT)?) == first.after, "the group went back by itself");
    ensure!(scene.system.takeovers(&scene.lab)? == epoch, "the group moved without a fault");
    // A second failover, the other way.
    let second = survive(&mut scene, Fault::CutOff)?;
    ensure!(second.after == Some(first.before));
    Ok(())
}

#[test]
fn agent_killed() -> Result<()> {
    one_fault("sigkill", Fault::Kill).map(drop)
}

#[test]
fn agent_stopped_and_continued() -> Result<()> {
    one_fault("sigstop", Fault::Stop).map(drop)
}

#[test]
fn front_link_down() -> Result<()> {
    one_fault("front-down", Fault::FrontDown).map(drop)
}

#[test]
fn one_of_two_backplane_links_down() -> Result<()> {
    one_fault("one-link", Fault::OneLink).map(drop)
}

#[test]
fn whole_backplane_of_the_owner_down_while_its_front_stays_up() -> Result<()> {
    one_fault("backplane", Fault::Backplane).map(drop)
}

#[test]
fn backplane_between_the_nodes_down_while_both_reach_the_arbiter() -> Result<()> {
    one_fault("partition", Fault::Partition).map(drop)
}

#[test]
fn owner_hears_nobody() -> Result<()> {
    one_fault("deaf", Fault::Deaf).map(drop)
}

#[test]
fn nobody_hears_the_owner() -> Result<()> {
    one_fault("mute", Fault::Mute).map(drop)
}

#[test]
fn async_part_wedged_while_the_pulse_lives() -> Result<()> {
    one_fault("wedge", Fault::Wedge).map(drop)
}

#[test]
fn arbiter_dead() -> Result<()> {
    one_fault("arbiter", Fault::ArbiterDead).map(drop)
}

#[test]
fn planned_move_there_and_back() -> Result<()> {
    let (_one, mut scene, first) = one_fault("move", Fault::Move)?;
    let second = survive(&mut scene, Fault::Move)?;
    ensure!(second.after == Some(first.before));
    Ok(())
}

#[test]
fn owner_stopped_in_order() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut scene = scene("sigterm")?;
    let owner = scene.steady(LIMIT)?;
    let agent = scene.system.process(owner).context("the owner's agent runs")?;
    let status = agent.terminate(Duration::from_secs(20))?;
    ensure!(status.success(), "the agent did not end in order: {status}\n{}", scene.system.logs());
    scene.served_by_another(owner, SERVED, LIMIT)?;
    scene.system.start(&scene.lab)?;
    scene.steady(LIMIT)?;
    no_overlap(&mut scene)
}

#[test]
fn standby_and_online() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut scene = scene("standby")?;
    let owner = scene.steady(LIMIT)?;
    let machine = scene.lab.nodes[owner].clone();
    Baton::command(&scene.lab, &machine, &["standby", &machine.name])?;
    let other = scene.served_by_another(owner, SERVED, LIMIT)?;
    Baton::command(&scene.lab, &machine, &["online", &machine.name])?;
    ensure!(scene.steady(LIMIT)? == other, "a node that comes online takes nothing back");
    no_overlap(&mut scene)
}

#[test]
fn healed_partition_with_the_clients_cache_pointing_at_the_loser() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut scene = scene("stale-cache")?;
    let loser = scene.steady(LIMIT)?;
    // The client must not ask again by itself for as long as the test lasts.
    let client = scene.lab.client()?.clone();
    for family in ["ipv4", "ipv6"] {
        client.ns.sysctl(&format!("net/{family}/neigh/front0/base_reachable_time_ms"), "3600000")?;
    }
    client.ns.ip("neigh flush dev front0")?;
    scene.steady(LIMIT)?;

    let winner = 1 - loser;
    let winner_name = scene.lab.nodes[winner].name.clone();
    let wires = scene.lab.wires();
    // The client stands on the loser's side: it hears no announcement of the winner.
    wires.cut_between(&client.name, &winner_name, &[FRONT])?;
    wires.cut_off(&scene.lab.nodes[loser].name, &scene.lab.backplanes())?;
    wait::until(LIMIT, "the winner to answer on the wire", || {
        Ok(scene.wire.answering(VIP4.into(), SERVED) == [winner])
    })?;
    ensure!(scene.probe.steady_owner(SERVED).is_none(), "the client is served though its node is the loser");
    wires.heal()?;
    let served = scene.served_by_another(loser, SERVED, Duration::from_secs(30))?;
    ensure!(served == winner);
    scene.steady(LIMIT)?;
    no_overlap(&mut scene)
}

#[test]
fn a_front_that_was_made_again_is_not_served_before_the_agent_starts_again() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut scene = scene("front-anew")?;
    let owner = scene.steady(LIMIT)?;
    let ns = scene.lab.nodes[owner].ns.clone();
    // Another device under the front's name, as when its driver is loaded again: the gate went with the former one.
    ns.ip("link set front0 down\nlink set front0 name former0\nlink add front0 type veth peer name spare0\nlink set spare0 up\nlink set front0 up")?;
    scene.served_by_another(owner, SERVED, LIMIT)?;
    wait::until(LIMIT, "the agent to end", || Ok(scene.system.process(owner).is_none_or(|agent| !agent.is_running())))?;
    ensure!(scene.system.logs().contains("the gate is not on it"), "it says why: {}", scene.system.logs());
    ns.ip("link del front0\nlink set former0 name front0\nlink set front0 up")?;
    scene.system.start(&scene.lab)?;
    scene.steady(LIMIT)?;
    no_overlap(&mut scene)
}

#[test]
fn deleted_address_comes_back() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut scene = scene("deleted")?;
    let owner = scene.steady(LIMIT)?;
    for (vip, prefix) in [(std::net::IpAddr::from(VIP4), 24), (VIP6.into(), 64)] {
        let before = scene.addresses.events().len();
        scene.lab.nodes[owner].ns.ip(&format!("address del {vip}/{prefix} dev front0"))?;
        wait::until(LIMIT, "the address to come back", || {
            let events = scene.addresses.events();
            let mut new = events[before..].iter().filter(|e| e.node == owner && e.address == vip);
            Ok(new.any(|e| !e.added) && new.any(|e| e.added))
        })?;
    }
    ensure!(scene.steady(LIMIT)? == owner, "a deleted address moved the group");
    no_overlap(&mut scene)
}

#[test]
fn cpu_saturated() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut scene = scene("saturated")?;
    let owner = scene.steady(LIMIT)?;
    let before = scene.system.takeovers(&scene.lab)?;
    let burners = Burners::start(scene.lab.home(), &scene.lab.observer.ns, 8)?;
    thread::sleep(Duration::from_secs(10));
    ensure!(scene.steady(LIMIT)? == owner, "{GROUP} moved under load alone");
    ensure!(scene.system.takeovers(&scene.lab)? == before, "{GROUP} moved under load alone");
    survive(&mut scene, Fault::CutOff)?;
    drop(burners);
    scene.steady(LIMIT)?;
    no_overlap(&mut scene)
}
