//! HAProxy killed on the owner: how long until the other node answers a new connection, and what the clients saw.

use std::{thread, time::Duration};

use anyhow::{Context, Result};
use baton::{clock, cluster::ids::Nanos, telemetry::record::PhaseName};
use baton_lab::{
    baton::{Baton, Profile},
    gates,
    load::{
        http::{self, Load},
        proxy,
        record::Kind,
        stage::{Proxied, Stage, at_vips},
    },
    records,
    topology::{Lab, Spec},
    wait,
};
use rustix::process::{Signal, kill_process};

use crate::{
    moves::first_lines,
    moves_report::{Killed, KilledRow},
};

const LIMIT: Duration = Duration::from_secs(60);
/// Until the first answer of the other node is looked for; what comes later is found as well.
const LOOK: Duration = Duration::from_millis(50);
/// Clients are watched for so long after the kill.
const WATCH: Duration = Duration::from_secs(3);
/// What is told of each kill: when it was reached first, on any node.
const PHASES: [(PhaseName, &str); 7] = [
    (PhaseName::ResourceFailed, "noticed"),
    (PhaseName::GateClosed, "gate closed"),
    (PhaseName::Released, "released"),
    (PhaseName::Committed, "committed"),
    (PhaseName::GateOpen, "gate open"),
    (PhaseName::Announced, "announced"),
    (PhaseName::FirstPacket, "first packet"),
];
/// New connections a second where the time to the first answer is measured: its resolution.
const DENSE: u32 = 1_000;

/// Kills so many HAProxies, in one cluster, each on the node that owns the VIP then.
pub fn trials(profile: &Profile, trials: u32, kept: usize, new: u32) -> Result<KilledRow> {
    // The deaths here are close together and no sign of an ill HAProxy.
    let agents = Baton::new(profile.clone(), gates::INSPECT).with_haproxy("restarts = 1000\nrestart_window = \"10s\"");
    let mut stage = Stage::new(Spec::usual("killed"), Box::new(agents), Proxied::BySystem)?;
    let mut row = KilledRow { connections: kept, killed: Vec::new(), failed: 0 };
    for trial in 1..=trials {
        match one(&mut stage, kept, new) {
            Ok(killed) => {
                let ms = killed.took_ns as f64 / 1e6;
                eprintln!(
                    "HAProxy killed, {trial} of {trials}: the other node answers after {ms:.1} ms; {}",
                    killed.seen
                );
                row.killed.push(killed);
            }
            Err(error) => {
                eprintln!("HAProxy killed, {trial} of {trials}: failed: {}", first_lines(&error));
                row.failed += 1;
            }
        }
    }
    Ok(row)
}

fn one(stage: &mut Stage, kept: usize, new: u32) -> Result<Killed> {
    let owner = stage.steady(LIMIT)?;
    let client = stage.client()?;
    let usual = http::Spec::usual(at_vips(proxy::PORT)[0]);
    let spec = http::Spec { kept, fresh_per_second: new, ..usual.clone() };
    let load = Load::start(&client, spec.clone())?;
    load.ready(&spec, LIMIT)?;
    let ramp = Duration::from_millis(100);
    let dense = Load::start(&client, http::Spec { kept: 0, fresh_per_second: DENSE, ramp, ..usual })?;
    thread::sleep(Duration::from_secs(1));
    let worker = proxy::worker(&stage.lab, &stage.lab.nodes[owner])?;
    let killed = clock::now();
    kill_process(worker, Signal::KILL).context("cannot kill HAProxy")?;
    let first = wait::until_some(LIMIT, "the other node to answer", || {
        thread::sleep(LOOK);
        Ok(dense.first_answer(killed, Kind::Fresh, 1 - owner))
    })?;
    drop(dense);
    thread::sleep(WATCH);
    let seen = load.report(killed, clock::now())?;
    eprintln!("after the kill, in ms: {}", phases(&stage.lab, killed));
    Ok(Killed { took_ns: first.saturating_sub(killed), seen })
}

/// What the agents recorded since the kill; they and the bench have one clock.
fn phases(lab: &Lab, killed: Nanos) -> String {
    let records = records::of_all(lab);
    let told: Vec<String> = PHASES
        .iter()
        .filter_map(|(name, words)| {
            let instants = records.iter().flat_map(|r| &r.phases).filter(|p| p.phase == *name && p.at_ns >= killed);
            let first = instants.map(|p| p.at_ns).min()?;
            Some(format!("{words} {:.1}", (first - killed) as f64 / 1e6))
        })
        .collect();
    told.join(", ")
}
