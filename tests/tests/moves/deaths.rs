//! What dies in the middle of a drain: in the end there is one owner, new connections are served, and connections that
//! cannot go on are reset rather than left hanging.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use baton_lab::{
    load::{
        line::Line,
        server,
        stage::{Stage, at_vips},
    },
    lock::Exclusive,
    netns::NetNs,
    wait,
};

use super::{LIMIT, divert_to, draining_on, without_haproxy};

/// Long-lived connections of each kind.
const LINES: usize = 10;

fn targets() -> [SocketAddr; 2] {
    at_vips(server::PORT)
}

/// Connections over IPv4 and IPv6 in turns, each of which has had an answer from `node`.
fn lines(client: &NetNs, node: usize) -> Result<Vec<Line>> {
    let open = |n: usize| {
        let mut line = Line::open(client, targets()[n % 2])?;
        let by = line.ask()?.by;
        ensure!(by == node, "node {by} answered instead of {node}");
        Ok(line)
    };
    (0..LINES).map(open).collect()
}

/// All must be answered by `node`.
fn alive(lines: &mut [Line], node: usize) -> Result<()> {
    for (n, line) in lines.iter_mut().enumerate() {
        let by = line.ask().with_context(|| format!("connection {n}"))?.by;
        ensure!(by == node, "connection {n}: node {by} answered instead of {node}");
    }
    Ok(())
}

/// All must be over, by a reset: a connection that hangs costs its client the whole time-out.
fn reset(lines: &mut [Line]) -> Result<()> {
    for (n, line) in lines.iter_mut().enumerate() {
        let Err(error) = line.ask() else { anyhow::bail!("connection {n} is answered still") };
        let cause = error.root_cause().downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let reset = [std::io::ErrorKind::ConnectionReset, std::io::ErrorKind::BrokenPipe];
        ensure!(cause.is_some_and(|kind| reset.contains(&kind)), "connection {n} was not reset: {error:#}");
    }
    Ok(())
}

/// A cluster in the middle of a drain: the old owner, and connections that live on it and on the new one.
fn draining(name: &str) -> Result<(Stage, usize, Vec<Line>, Vec<Line>)> {
    let mut stage = without_haproxy(name, 20)?;
    let old = stage.steady(LIMIT)?;
    let client = stage.client()?;
    let mut on_old = lines(&client, old)?;
    divert_to(&stage, 1 - old)?;
    let mut on_new = lines(&client, 1 - old)?;
    alive(&mut on_old, old)?;
    alive(&mut on_new, 1 - old)?;
    ensure!(draining_on(&stage)? == Some(old), "nothing drains");
    Ok((stage, old, on_old, on_new))
}

/// New connections are answered by `node` alone, and the cluster says so.
fn served_by(stage: &Stage, node: usize) -> Result<()> {
    let client = stage.client()?;
    let asked = || -> Result<usize> { Ok(Line::open(&client, targets()[0])?.ask()?.by) };
    wait::until(LIMIT, "new connections to be answered", || Ok(asked().is_ok_and(|by| by == node)))
}

#[test]
fn the_old_owner_dies() -> Result<()> {
    let _one = Exclusive::take()?;
    let (mut stage, old, mut on_old, mut on_new) = draining("old-dies")?;
    let epoch = stage.system.takeovers(&stage.lab)?;
    stage.lab.wires().cut_off(&stage.lab.nodes[old].name, &stage.lab.networks())?;
    reset(&mut on_old)?;
    alive(&mut on_new, 1 - old)?;
    served_by(&stage, 1 - old)?;
    ensure!(stage.system.takeovers(&stage.lab)? == epoch, "the group changed its owner");
    stage.lab.wires().heal()?;
    // It comes back as a standby; the drain is over.
    ensure!(stage.steady(LIMIT)? == 1 - old);
    alive(&mut on_new, 1 - old)?;
    stage.one_owner_at_a_time()
}

#[test]
fn the_new_owner_dies() -> Result<()> {
    let _one = Exclusive::take()?;
    let (mut stage, old, mut on_old, on_new) = draining("new-dies")?;
    stage.lab.wires().cut_off(&stage.lab.nodes[1 - old].name, &stage.lab.networks())?;
    served_by(&stage, old)?;
    // Those that it still has go on; the other node's are lost with it.
    alive(&mut on_old, old)?;
    drop(on_new);
    stage.lab.wires().heal()?;
    ensure!(stage.steady(LIMIT)? == old);
    alive(&mut on_old, old)?;
    stage.one_owner_at_a_time()
}

#[test]
fn the_backplane_between_them_dies() -> Result<()> {
    let _one = Exclusive::take()?;
    let (mut stage, old, on_old, mut on_new) = draining("backplane-dies")?;
    let names = [stage.lab.nodes[0].name.clone(), stage.lab.nodes[1].name.clone()];
    stage.lab.wires().cut_between(&names[0], &names[1], &stage.lab.backplanes())?;
    // Both still reach the arbiter: the owner may stay. What lives on the old owner cannot be reached.
    std::thread::sleep(Duration::from_secs(2));
    served_by(&stage, 1 - old)?;
    alive(&mut on_new, 1 - old)?;
    drop(on_old);
    stage.one_owner_at_a_time()?;
    stage.lab.wires().heal()?;
    ensure!(stage.steady(LIMIT)? == 1 - old);
    stage.one_owner_at_a_time()
}
