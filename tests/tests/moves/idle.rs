//! Connections that are silent while the group moves work when somebody speaks on them at last.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use baton_lab::{
    load::{idle::Idle, proxy, stage::at_vips},
    lock::Exclusive,
};

use super::{LIMIT, divert_to, drained, draining_on, with_haproxy};

const COUNT: usize = 100;

#[test]
fn upgraded_connections_outlive_a_move_in_silence() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut stage = with_haproxy("idle")?;
    let owner = stage.steady(LIMIT)?;
    let client = stage.client()?;
    let mut idle = Vec::new();
    for target in at_vips(proxy::PORT) {
        idle.push(Idle::open(&client, target, COUNT / 2)?);
    }
    divert_to(&stage, 1 - owner)?;
    // Long enough for neighbours to forget, and for a proxy that ends its idle connections to do so.
    thread::sleep(Duration::from_secs(5));
    ensure!(draining_on(&stage)? == Some(owner), "the drain ended with {COUNT} connections open");
    for connections in &mut idle {
        let failed = connections.exchange("still there?");
        ensure!(failed.is_empty(), "idle connections broke: {failed:?}");
    }
    drop(idle);
    drained(&stage)?;
    ensure!(stage.steady(LIMIT)? == 1 - owner);
    stage.one_owner_at_a_time()
}
