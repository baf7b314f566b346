//! Planned moves under load, on the real kernel, with the real HAProxy and real clients: what is promised is that nothing
//! breaks, so the load itself is proven to lose nothing without a move, and to notice what a peer's move breaks.
//!
//! Nothing here judges speed (the bench does): conditions are waited for with generous limits.

mod calm;

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use baton_lab::{
    baton::{Baton, Profile},
    gates,
    load::{http, proxy},
    scene::Scene,
    topology::{Spec, VIP4, VIP6},
};

const LIMIT: Duration = Duration::from_secs(60);
const MILLISECOND: u64 = 1_000_000;

/// A cluster with a lease that is long beside the stalls of a busy machine.
fn scene(name: &str) -> Result<Scene> {
    let profile = Profile::custom(Duration::from_millis(20), Duration::from_millis(100));
    Scene::new(Spec::usual(name), Box::new(Baton::new(profile, gates::INSPECT)), MILLISECOND)
}

/// The proxies at the VIPs.
fn targets() -> [SocketAddr; 2] {
    [SocketAddr::new(VIP4.into(), proxy::PORT), SocketAddr::new(VIP6.into(), proxy::PORT)]
}

/// The usual load, over IPv4 and IPv6 in equal parts.
fn loads() -> [http::Spec; 2] {
    targets().map(|target| http::Spec::usual(target).scaled(0.5))
}
