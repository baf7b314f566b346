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
        proxy,
        record::Kind,
        stage::{Proxied, Stage, at_vips},
        udp,
    },
    lock::Exclusive,
    topology::{Spec, VIP4},
    wait,
};

use super::{LIMIT, both};

fn keepalived() -> Result<Stage> {
    let spec = Spec { arbiter: false, ..Spec::usual("load") };
    Stage::new(spec, Box::new(Keepalived::floor_realtime()), Proxied::ByStage)
}

#[test]
fn without_a_move_nothing_is_lost() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut stage = keepalived()?;
    let owner = stage.steady(LIMIT)?;
    let client = stage.client()?;

    let mut idle = Idle::open(&client, at_vips(proxy::PORT)[0], 20)?;
    let flows = udp::Flows::start(&client, (VIP4, udp::PORT).into(), 20, Duration::from_millis(50))?;
    let from = clock::now();
    let loads = both().map(|spec| (Load::start(&client, spec.clone()), spec));
    let mut running = Vec::new();
    for (load, spec) in loads {
        let load = load?;
        load.ready(&spec, LIMIT)?;
        running.push(load);
    }
    for way in [Way::Upload, Way::Download] {
        let target = at_vips(proxy::PORT)[usize::from(way == Way::Download)];
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
    let mut stage = keepalived()?;
    let owner = stage.steady(LIMIT)?;
    let client = stage.client()?;
    let mut idle = Idle::open(&client, at_vips(proxy::PORT)[0], 5)?;
    let spec = both()[0].clone().scaled(0.2);
    let from = clock::now();
    let load = Load::start(&client, spec.clone())?;
    load.ready(&spec, LIMIT)?;
    let transfer =
        bulk::Spec { target: at_vips(proxy::PORT)[0], way: Way::Upload, bytes: USUAL_BYTES, pace: Some(20 << 20) };
    let transfer = Transfer::start(&client, transfer)?;
    wait::until(LIMIT, "the upload to be under way", || Ok(transfer.moved() > 1 << 20))?;
    let ordered = clock::now();
    stage.system.planned_move(&stage.lab, owner, 1 - owner)?;
    wait::until(LIMIT, "new connections to be answered by the other node", || {
        Ok(load.first_answer(ordered, Kind::Fresh, 1 - owner).is_some())
    })?;
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
