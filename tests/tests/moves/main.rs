//! Planned moves under load, on the real kernel, with the real HAProxy and real clients: what is promised is that nothing
//! breaks, so the load itself is proven to lose nothing without a move, and to notice what a peer's move breaks.
//!
//! Nothing here judges speed (the bench does): conditions are waited for with generous limits.

mod calm;
mod deaths;
mod flows;
mod haproxy;
mod idle;
mod keepalive;
mod nat;
mod transfers;

use std::time::Duration;

use anyhow::{Context, Result};
use baton_lab::{
    baton::{Baton, GROUP, Profile},
    gates,
    load::{
        http, proxy,
        stage::{Proxied, Stage, at_vips},
    },
    topology::{Machine, Spec},
    wait,
};

const LIMIT: Duration = Duration::from_secs(60);

/// Agents with a lease that is long beside the stalls of a busy machine.
fn agents() -> Baton {
    Baton::new(Profile::custom(Duration::from_millis(20), Duration::from_millis(100)), gates::INSPECT)
}

/// A cluster whose group has a HAProxy.
fn with_haproxy(name: &str) -> Result<Stage> {
    Stage::new(Spec::usual(name), Box::new(agents().with_haproxy("")), Proxied::BySystem)
}

/// The usual load, over IPv4 and IPv6 in equal parts.
fn both() -> [http::Spec; 2] {
    at_vips(proxy::PORT).map(|target| http::Spec::usual(target).scaled(0.5))
}

/// A cluster that serves without a proxy: flows end in the servers' own sockets, and drain for so many seconds at most.
fn without_haproxy(name: &str, drain_seconds: u32) -> Result<Stage> {
    let agents = agents().placed_by(&format!("drain_timeout = \"{drain_seconds}s\""));
    Stage::new(Spec::usual(name), Box::new(agents), Proxied::No)
}

/// The machine that orders are given to: the arbiter, which outlives what happens to the nodes.
fn desk(stage: &Stage) -> Result<&Machine> {
    stage.lab.arbiter.as_ref().context("this lab has no arbiter")
}

/// Moves the group and waits until nothing drains any more. Returns what `baton move` said.
fn move_to(stage: &Stage, to: usize) -> Result<String> {
    Baton::command(&stage.lab, desk(stage)?, &["move", GROUP, &stage.lab.nodes[to].name])
}

/// Moves the group and waits until the node owns it; flows may drain on.
fn divert_to(stage: &Stage, to: usize) -> Result<String> {
    Baton::command(&stage.lab, desk(stage)?, &["move", "--no-drain", GROUP, &stage.lab.nodes[to].name])
}

/// The node that serves flows from before the last move, by the arbiter's status.
fn draining_on(stage: &Stage) -> Result<Option<usize>> {
    let status = Baton::status(&stage.lab, desk(stage)?)?.context("the arbiter's agent doesn't answer")?;
    let groups = status["groups"].as_array().context("a status without groups")?;
    let group = groups.iter().find(|g| g["name"] == GROUP).context("a status without the group")?;
    Ok(group["draining_on"].as_str().and_then(|name| stage.lab.node(name)))
}

/// Waits until no flow drains any more.
fn drained(stage: &Stage) -> Result<()> {
    wait::until(LIMIT, "the drain to end", || Ok(draining_on(stage)?.is_none()))
}
