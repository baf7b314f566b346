//! The load is trustworthy: it loses nothing by itself, and it notices what a move without steering breaks.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use baton::clock;
use baton_lab::{
    keepalived::Keepalived,
    load::{
        bulk,
        bulk::{Transfer, USUAL_BYTES, Way},
        http::Load,
        idle::Idle,
        proxy::Proxies,
        record::Kind,
        udp,
    },
    lock::Exclusive,
    scene::Scene,
    topology::{Lab, Spec, VIP4},
    wait,
};

use super::{LIMIT, MILLISECOND, loads, targets};

fn keepalived() -> Result<Scene> {
    let spec = Spec { arbiter: false, ..Spec::usual("load") };
    Scene::new(spec, Box::new(Keepalived::floor_realtime()), MILLISECOND)
}

#[test]
fn without_a_move_nothing_is_lost() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut scene = keepalived()?;
    let _proxies = Proxies::start(&scene.lab)?;
    let mut udp_servers = Vec::new();
    for (machine, node) in scene.lab.nodes.iter().zip(0..) {
        for vip in Lab::vips() {
            udp_servers.push(udp::Server::start(&machine.ns, vip, node)?);
        }
    }
    let owner = scene.steady(LIMIT)?;
    let client = scene.lab.client()?.ns.clone();

    let mut idle = Idle::open(&client, targets()[0], 20)?;
    let flows = udp::Flows::start(&client, (VIP4, udp::PORT).into(), 20, Duration::from_millis(50))?;
    let from = clock::now();
    let loads = loads().map(|spec| (Load::start(&client, spec.clone()), spec));
    let mut running = Vec::new();
    for (load, spec) in loads {
        let load = load?;
        load.ready(&spec, LIMIT)?;
        running.push(load);
    }
    for way in [Way::Upload, Way::Download] {
        let target = targets()[usize::from(way == Way::Download)];
        let spec = bulk::Spec { target, way, bytes: USUAL_BYTES, pace: None };
        let done = Transfer::start(&client, spec)?.finish()?;
        eprintln!("{way:?}: {:.0} MiB/s", done.rate / f64::from(1 << 20));
    }
    thread::sleep(Duration::from_secs(5));
    for load in running {
        let report = load.finish(from)?;
        eprintln!("{report}");
        report.nothing_lost()?;
        ensure!(report.reopened == 0, "a proxy that nobody stopped closed connections: {report}");
        for kind in [Kind::Kept, Kind::Fresh] {
            ensure!(report.nodes(kind).into_iter().eq([owner]), "another node answered: {report}");
        }
        ensure!(report.seconds.len() >= 5 && report.seconds[3].answered > 1_000, "hardly a load: {report}");
    }
    let failed = idle.exchange("still there?");
    ensure!(failed.is_empty(), "idle connections broke: {failed:?}");
    let report = flows.finish()?;
    eprintln!("{report:?}");
    ensure!(report.sent > 1_000 && report.lost + report.refused + report.strayed == 0, "{report:?}");
    Ok(())
}

#[test]
fn what_a_move_of_keepalived_breaks_is_noticed() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut scene = keepalived()?;
    let _proxies = Proxies::start(&scene.lab)?;
    let owner = scene.steady(LIMIT)?;
    let client = scene.lab.client()?.ns.clone();
    let mut idle = Idle::open(&client, targets()[0], 5)?;
    let spec = loads()[0].clone().scaled(0.2);
    let from = clock::now();
    let load = Load::start(&client, spec.clone())?;
    load.ready(&spec, LIMIT)?;
    let transfer = bulk::Spec { target: targets()[0], way: Way::Upload, bytes: USUAL_BYTES, pace: Some(20 << 20) };
    let transfer = Transfer::start(&client, transfer)?;
    wait::until(LIMIT, "the upload to be under way", || Ok(transfer.moved() > 1 << 20))?;
    scene.system.planned_move(&scene.lab, owner, 1 - owner)?;
    scene.served_by_another(owner, 20 * MILLISECOND, LIMIT)?;
    thread::sleep(Duration::from_secs(1));
    let report = load.finish(from)?;
    eprintln!("{report}");
    ensure!(report.broken >= spec.kept as u64, "some of the long-lived connections survived? {report}");
    ensure!(report.nothing_lost().is_err());
    // All were opened anew, and the other node answers.
    ensure!(report.nodes(Kind::Kept).contains(&(1 - owner)), "the load did not go on: {report}");
    ensure!(idle.exchange("still there?").len() == idle.len(), "an idle connection survived?");
    ensure!(transfer.finish().is_err(), "the upload survived?");
    Ok(())
}
