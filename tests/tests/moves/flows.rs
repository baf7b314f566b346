//! UDP: a flow stays with the node that knows it while the group drains, and flows that begin after the move are the new
//! owner's.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use baton_lab::{
    load::{
        stage::at_vips,
        udp::{self, Flows, Report},
    },
    lock::Exclusive,
};

use super::{LIMIT, divert_to, drained, without_haproxy};

const COUNT: usize = 20;
const EVERY: Duration = Duration::from_millis(50);

fn only(report: &Report, node: usize) -> Result<()> {
    let nothing_lost = report.lost + report.refused + report.strayed == 0;
    let by: Vec<_> = report.by.keys().map(|node| usize::from(*node)).collect();
    ensure!(nothing_lost && report.sent > 0 && by == [node], "not all by node {node}: {report:?}");
    Ok(())
}

#[test]
fn flows_stay_with_the_node_that_knows_them() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut stage = without_haproxy("flows", 15)?;
    let owner = stage.steady(LIMIT)?;
    let client = stage.client()?;
    let start = || at_vips(udp::PORT).map(|target| Flows::start(&client, target, COUNT, EVERY));
    let old = start();
    thread::sleep(Duration::from_secs(1));
    divert_to(&stage, 1 - owner)?;
    let new = start();
    thread::sleep(Duration::from_secs(3));
    for flows in new {
        only(&flows?.finish()?, 1 - owner)?;
    }
    for flows in old {
        only(&flows?.finish()?, owner)?;
    }
    drained(&stage)?;
    let after = start();
    thread::sleep(Duration::from_secs(1));
    for flows in after {
        only(&flows?.finish()?, 1 - owner)?;
    }
    stage.one_owner_at_a_time()
}
