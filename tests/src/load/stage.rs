//! A stage for moves under load: a lab, a system under test in it, the service on its nodes, and those observers alone that
//! send nothing to the VIPs (a probe over UDP would be a flow that never ends).

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use baton::{clock, cluster::ids::Nanos};

use super::{
    proxy::{self, Proxies},
    server::Server,
    udp,
};
use crate::{
    netns::NetNs,
    overlap,
    stall::StallMeter,
    system::System,
    topology::{Lab, Spec, VIP4, VIP6},
    wait,
    wire::WireObserver,
};

/// For so long one node alone must have answered ARP before a cluster counts as steady.
const STEADY_NS: Nanos = 60_000_000;

/// Who starts HAProxy on the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxied {
    /// The stage: the system under test knows nothing of it.
    ByStage,
    /// The system itself, from the files that [`proxy::configuration`] writes.
    BySystem,
    /// Nobody: clients ask the servers.
    No,
}

/// All of it. Dropping it ends everything.
pub struct Stage {
    // Dropped in this order: the system first, the lab last.
    /// The system under test.
    pub system: Box<dyn System>,
    /// The proxies that the stage started.
    pub proxies: Option<Proxies>,
    /// Who answers ARP and neighbour discovery.
    pub wire: WireObserver,
    /// How long the machine stood still.
    pub stall: StallMeter,
    _servers: Vec<Server>,
    _udp: Vec<udp::Server>,
    /// The networks and machines.
    pub lab: Lab,
    began: Nanos,
}

impl Stage {
    /// Makes the lab, starts the service on all nodes, then the system.
    pub fn new(spec: Spec, mut system: Box<dyn System>, proxied: Proxied) -> Result<Self> {
        let lab = Lab::new(spec)?;
        let began = clock::now();
        let stall = StallMeter::start()?;
        let (mut servers, mut udp) = (Vec::new(), Vec::new());
        for (machine, node) in lab.nodes.iter().zip(0..) {
            proxy::prepare(machine)?;
            servers.push(Server::start(&machine.ns, node)?);
            for vip in Lab::vips() {
                udp.push(udp::Server::start(&machine.ns, vip, node)?);
            }
        }
        let wire = WireObserver::start(&lab, &Lab::vips())?;
        let proxies = (proxied == Proxied::ByStage).then(|| Proxies::start(&lab)).transpose()?;
        system.start(&lab)?;
        Ok(Self { system, proxies, wire, stall, _servers: servers, _udp: udp, lab, began })
    }

    /// The client's namespace.
    pub fn client(&self) -> Result<NetNs> {
        Ok(self.lab.client()?.ns.clone())
    }

    /// Waits until one node alone answers for the VIPs, and the system says that it is ready for a move. Returns that node.
    pub fn steady(&mut self, limit: Duration) -> Result<usize> {
        let Self { system, wire, lab, .. } = self;
        let found = wait::until_some(limit, "a cluster that serves from one node and is ready", || {
            let four = wire.answering(VIP4.into(), STEADY_NS);
            let [owner] = four.as_slice() else { return Ok(None) };
            let six = wire.answering(VIP6.into(), STEADY_NS);
            let ready = *six == four && system.settled(lab)? && system.owner(lab)? == Some(*owner);
            Ok(ready.then_some(*owner))
        });
        let owner = found.with_context(|| format!("the members' logs:\n{}", self.system.logs()))?;
        proxy::favour(&self.lab)?;
        Ok(owner)
    }

    /// An error if two nodes answered for a VIP, or opened flows of one, at the same instant since the stage was made.
    pub fn one_owner_at_a_time(&mut self) -> Result<()> {
        let now = clock::now();
        for vip in Lab::vips() {
            let answers = self.wire.tenures(vip, self.began, now);
            let conflicts = overlap::conflicts(&answers);
            ensure!(conflicts.is_empty(), "two nodes answered for {vip} at once: {conflicts:?}");
        }
        if let Some(tenures) = self.system.tenures(&self.lab)? {
            let conflicts = overlap::conflicts(&overlap::within(&tenures, self.began, now));
            ensure!(conflicts.is_empty(), "two gates were open at once: {conflicts:?}");
        }
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = self.system.stop() {
            eprintln!("baton-lab: {error:#}");
        }
    }
}

/// A port at the IPv4 VIP and at the IPv6 VIP.
pub fn at_vips(port: u16) -> [SocketAddr; 2] {
    [IpAddr::V4(VIP4), IpAddr::V6(VIP6)].map(|vip| SocketAddr::new(vip, port))
}
