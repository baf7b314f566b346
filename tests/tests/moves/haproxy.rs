//! HAProxy is killed on the owner under load: the other node takes the group, and every client is served again.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use baton::clock;
use baton_lab::{
    load::{
        http::{self, Load},
        proxy,
        record::Kind,
        stage::at_vips,
    },
    lock::Exclusive,
    wait,
};
use rustix::process::{Signal, kill_process};

use super::{LIMIT, with_haproxy};

#[test]
fn a_killed_haproxy_makes_the_other_node_serve() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut stage = with_haproxy("haproxy-dies")?;
    let owner = stage.steady(LIMIT)?;
    let spec = http::Spec::usual(at_vips(proxy::PORT)[0]).scaled(0.2);
    let load = Load::start(&stage.client()?, spec.clone())?;
    load.ready(&spec, LIMIT)?;
    let killed = clock::now();
    kill_process(proxy::worker(&stage.lab, &stage.lab.nodes[owner])?, Signal::KILL)?;
    wait::until(LIMIT, "the other node to answer", || {
        thread::sleep(Duration::from_millis(20));
        Ok(load.report(killed, clock::now())?.nodes(Kind::Fresh).contains(&(1 - owner)))
    })?;
    // A second in which nothing fails any more: all clients are back.
    wait::until(LIMIT, "the clients to be served without a failure", || {
        thread::sleep(Duration::from_secs(1));
        let now = clock::now();
        let recent = load.report(now - 1_000_000_000, now)?;
        Ok(recent.failed == 0 && recent.nodes(Kind::Kept).into_iter().eq([1 - owner]))
    })?;
    let report = load.report(killed, clock::now())?;
    eprintln!("{report}");
    ensure!(report.lost() >= spec.kept as u64, "connections to a dead process survived? {report}");
    // It was started anew where it died, and is ready to take over again.
    ensure!(stage.steady(LIMIT)? == 1 - owner);
    stage.one_owner_at_a_time()
}
