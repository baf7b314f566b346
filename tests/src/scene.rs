//! A scene: a lab, a system under test in it, and all observers around it.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result};
use baton::{clock, cluster::ids::Nanos};

use crate::{
    addresses::AddressRecorder,
    overlap::{self, Tenure},
    probe::Probe,
    responder::Responder,
    stall::StallMeter,
    system::System,
    topology::{Lab, Spec, VIP4},
    wait,
    wire::WireObserver,
};

/// For so long one node alone must have answered everything before a cluster counts as steady.
const STEADY_NS: Nanos = 60_000_000;

/// All parts of an experiment. Dropping it ends everything.
pub struct Scene {
    // Dropped in this order: the system first, the lab last.
    /// The system under test.
    pub system: Box<dyn System>,
    /// The client's probe of the IPv4 VIP.
    pub probe: Probe,
    /// The client's probe of the IPv6 VIP, where a test asked for it.
    pub probe6: Option<Probe>,
    /// Who answers ARP and neighbour discovery.
    pub wire: WireObserver,
    /// Who holds the addresses.
    pub addresses: AddressRecorder,
    /// How long the machine stood still.
    pub stall: StallMeter,
    _responders: Vec<Responder>,
    /// The networks and machines.
    pub lab: Lab,
    began: Nanos,
}

/// The time in which two nodes both served, by each observer, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlap {
    /// By the gates themselves, if the system records it.
    pub kernel_ns: Option<Nanos>,
    /// By who answered on the wire.
    pub wire_ns: Nanos,
    /// Pairs of tenures that share an instant: of the answers on the wire, and of the gates if recorded.
    pub conflicts: Vec<(Tenure, Tenure)>,
}

impl Overlap {
    /// By the gates where recorded, else by the wire.
    pub fn ns(&self) -> Nanos {
        self.kernel_ns.unwrap_or(self.wire_ns)
    }
}

impl Scene {
    /// Makes the lab, starts the observers, then the system. It need not serve yet: see [`Scene::steady`].
    pub fn new(spec: Spec, mut system: Box<dyn System>, probe_interval_ns: Nanos) -> Result<Self> {
        let lab = Lab::new(spec)?;
        let began = clock::now();
        let stall = StallMeter::start()?;
        let addresses = AddressRecorder::start(&lab)?;
        let mut responders = Vec::new();
        for (node, machine) in lab.nodes.iter().enumerate() {
            for vip in Lab::vips() {
                responders.push(Responder::start(&machine.ns, vip, u8::try_from(node)?)?);
            }
        }
        let wire = WireObserver::start(&lab, &Lab::vips())?;
        system.start(&lab)?;
        let probe = Probe::start(&lab.client()?.ns, IpAddr::V4(VIP4), probe_interval_ns)?;
        Ok(Self { system, probe, probe6: None, wire, addresses, stall, _responders: responders, lab, began })
    }

    /// Waits until one node alone serves, and the system says that it is ready for a fault. Returns that node.
    pub fn steady(&mut self, limit: Duration) -> Result<usize> {
        let Self { system, probe, probe6, wire, lab, .. } = self;
        let found = wait::until_some(limit, "a cluster that serves from one node and is ready", || {
            let Some(owner) = probe.steady_owner(STEADY_NS) else {
                return Ok(None);
            };
            let alone = wire.answering(VIP4.into(), STEADY_NS) == [usize::from(owner)];
            let six = probe6.as_ref().is_none_or(|p| p.steady_owner(STEADY_NS) == Some(owner));
            Ok((alone && six && system.ready(lab)?).then_some(usize::from(owner)))
        });
        found.with_context(|| format!("the members' logs:\n{}", self.system.logs()))
    }

    /// Waits until the client is served by a node other than `than`; returns which.
    pub fn served_by_another(&self, than: usize, span_ns: Nanos, limit: Duration) -> Result<usize> {
        wait::until_some(limit, "another node to serve the client", || {
            let owner = self.probe.steady_owner(span_ns).map(usize::from);
            Ok(owner.filter(|o| *o != than))
        })
    }

    /// For how long two nodes served at once since the window's start.
    pub fn overlap(&mut self, from: Nanos, to: Nanos) -> Result<Overlap> {
        let mut found = Overlap::default();
        for vip in Lab::vips() {
            let answers = self.wire.tenures(vip, from, to);
            found.wire_ns = found.wire_ns.max(overlap::overlap_ns(&answers));
            found.conflicts.extend(overlap::conflicts(&answers));
        }
        if let Some(tenures) = self.system.tenures(&self.lab)? {
            let tenures = overlap::within(&tenures, from, to);
            found.kernel_ns = Some(overlap::overlap_ns(&tenures));
            found.conflicts.extend(overlap::conflicts(&tenures));
        }
        Ok(found)
    }

    /// When the observers began.
    pub fn began(&self) -> Nanos {
        self.began
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Err(error) = self.system.stop() {
            eprintln!("baton-lab: {error:#}");
        }
    }
}
