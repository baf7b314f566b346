//! Planned moves under load, on the real kernel, with the real HAProxy and real clients: what is promised is that nothing
//! breaks, so the load itself is proven to lose nothing without a move, and to notice what a peer's move breaks.
//!
//! Nothing here judges speed (the bench does): conditions are waited for with generous limits.

mod calm;

use std::time::Duration;

use anyhow::Result;
use baton_lab::{
    baton::{Baton, Profile},
    gates,
    load::{
        http, proxy,
        stage::{Proxied, Stage, at_vips},
    },
    topology::Spec,
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
