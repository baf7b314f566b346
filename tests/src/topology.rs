//! A cluster of network namespaces: front and backplane networks, nodes, an arbiter, clients and an observer.
//!
//! All bridges stand in one namespace of their own, the *wire*: one nftables transaction there changes every network at
//! the same instant, and no machine's own link notices it, as with a dead switch. Taking the wire's end of a link down,
//! on the other hand, takes the machine's carrier away, as with a pulled cable.

use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context, Result};

use crate::{faults::Wires, home::Home, netns::NetNs};

/// Hardware address, six bytes.
pub type Mac = [u8; 6];

/// The IPv4 VIP that a lab reserves for the system under test.
pub const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
/// The IPv6 VIP that a lab reserves for the system under test.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
/// The front network's name among a lab's networks; backplanes are `bp0`, `bp1`, …
pub const FRONT: &str = "front";

const OBSERVER_HOST: u8 = 250;
const FIRST_CLIENT_HOST: u8 = 201;
const FIRST_BACK_END_HOST: u8 = 151;

/// What a lab consists of.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Short name, for folders and messages.
    pub name: String,
    /// Machines that may own the VIP: `lb1`, `lb2`, …
    pub nodes: u8,
    /// Whether a machine without a front, `arb`, stands beside them.
    pub arbiter: bool,
    /// Redundant backplane networks.
    pub backplanes: u8,
    /// Client machines: `client1`, …
    pub clients: u8,
    /// Machines for back ends of a service: `web1`, …
    pub back_ends: u8,
}

impl Spec {
    /// The usual cluster: two nodes, an arbiter, two backplanes, one client.
    pub fn usual(name: &str) -> Self {
        Self { name: name.to_owned(), nodes: 2, arbiter: true, backplanes: 2, clients: 1, back_ends: 0 }
    }
}

/// A machine of the lab.
#[derive(Clone, Debug)]
pub struct Machine {
    /// `lb1`, `arb`, `client1`, `observer`.
    pub name: String,
    /// The voter's number, or 0 for machines that are no voters.
    pub id: u8,
    /// Its network namespace.
    pub ns: NetNs,
    /// Its addresses on the front, if it stands there.
    pub front: Option<(Ipv4Addr, Ipv6Addr)>,
    /// Its hardware address on the front, all zero without one.
    pub front_mac: Mac,
    /// Its address on each backplane.
    pub backplane: Vec<Ipv4Addr>,
}

/// A running lab. Dropping it removes all of it.
#[derive(Debug)]
pub struct Lab {
    /// The spec that it was made from.
    pub spec: Spec,
    /// The nodes, by number: `nodes[0]` is `lb1` with id 1.
    pub nodes: Vec<Machine>,
    /// The arbiter.
    pub arbiter: Option<Machine>,
    /// The clients.
    pub clients: Vec<Machine>,
    /// The machines for back ends.
    pub back_ends: Vec<Machine>,
    /// A machine on the front that watches: see [`crate::wire`].
    pub observer: Machine,
    wires: Wires,
    home: Home,
}

impl Lab {
    /// Makes the namespaces, networks and addresses of `spec`.
    pub fn new(spec: Spec) -> Result<Self> {
        let home = Home::new(&spec.name)?;
        let wire = NetNs::new(home.path().join("wire.net"))?;
        wire.sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
        wire.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        let mut batch = String::new();
        for network in networks(&spec) {
            writeln!(batch, "link add name {network} type bridge mcast_snooping 0 stp_state 0 forward_delay 0")?;
            writeln!(batch, "link set {network} up")?;
        }
        wire.ip(&batch)?;

        let build = Build { home: &home, wire: &wire, spec: &spec };
        let nodes = (1..=spec.nodes).map(|id| build.machine(format!("lb{id}"), id, id, true)).collect::<Result<_>>()?;
        let arbiter_id = spec.nodes + 1;
        let arbiter = spec.arbiter.then(|| build.machine("arb".to_owned(), arbiter_id, 0, true)).transpose()?;
        let row = |name: &str, count: u8, first: u8| -> Result<Vec<Machine>> {
            (0..count).map(|k| build.machine(format!("{name}{}", k + 1), 0, first + k, false)).collect()
        };
        let clients = row("client", spec.clients, FIRST_CLIENT_HOST)?;
        let back_ends = row("web", spec.back_ends, FIRST_BACK_END_HOST)?;
        let observer = build.machine("observer".to_owned(), 0, OBSERVER_HOST, false)?;
        let wires = Wires::new(wire);
        Ok(Self { spec, nodes, arbiter, clients, back_ends, observer, wires, home })
    }

    /// The lab's folder: logs, configurations, sockets.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The faults of the networks.
    pub fn wires(&self) -> &Wires {
        &self.wires
    }

    /// The names of the networks: `front`, `bp0`, …
    pub fn networks(&self) -> Vec<String> {
        networks(&self.spec)
    }

    /// The names of the backplane networks.
    pub fn backplanes(&self) -> Vec<String> {
        (0..self.spec.backplanes).map(|n| format!("bp{n}")).collect()
    }

    /// Nodes and arbiter, by number.
    pub fn voters(&self) -> impl Iterator<Item = &Machine> {
        self.nodes.iter().chain(&self.arbiter)
    }

    /// The first client.
    pub fn client(&self) -> Result<&Machine> {
        self.clients.first().context("this lab has no client; ask for one in its spec")
    }

    /// The node with this hardware address on the front, by its position in `nodes`.
    pub fn node_of_mac(&self, mac: Mac) -> Option<usize> {
        self.nodes.iter().position(|n| n.front_mac == mac)
    }

    /// The position in `nodes` of the machine with this name.
    pub fn node(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|n| n.name == name)
    }

    /// The VIPs that every lab reserves.
    pub fn vips() -> [IpAddr; 2] {
        [IpAddr::V4(VIP4), IpAddr::V6(VIP6)]
    }
}

fn networks(spec: &Spec) -> Vec<String> {
    std::iter::once(FRONT.to_owned()).chain((0..spec.backplanes).map(|n| format!("bp{n}"))).collect()
}

struct Build<'a> {
    home: &'a Home,
    wire: &'a NetNs,
    spec: &'a Spec,
}

impl Build<'_> {
    /// `host` is the last part of its front addresses, 0 for none.
    fn machine(&self, name: String, id: u8, host: u8, backplane: bool) -> Result<Machine> {
        let ns = NetNs::new(self.home.path().join(format!("{name}.net")))?;
        // Without duplicate address detection IPv6 works from the first instant.
        for conf in ["all", "default"] {
            ns.sysctl(&format!("net/ipv6/conf/{conf}/accept_dad"), "0")?;
            ns.sysctl(&format!("net/ipv6/conf/{conf}/accept_ra"), "0")?;
        }
        let (mut wire, mut inside) = (String::new(), String::new());
        let front_mac = [2, 0, 0, 0, 0, host];
        let front = (host != 0).then(|| (Ipv4Addr::new(192, 0, 2, host), v6(host)));
        if let Some((v4, v6)) = front {
            plug(&mut wire, &mut inside, &ns, &name, FRONT, "front0", front_mac)?;
            writeln!(inside, "address add {v4}/24 dev front0\naddress add {v6}/64 dev front0 nodad")?;
        }
        let mut addresses = Vec::new();
        for n in 0..if backplane { self.spec.backplanes } else { 0 } {
            let (network, address) = (format!("bp{n}"), Ipv4Addr::new(10, 77 + n, 0, id));
            plug(&mut wire, &mut inside, &ns, &name, &network, &network, [2, 0, 0, 1, n, id])?;
            writeln!(inside, "address add {address}/24 dev {network}")?;
            addresses.push(address);
        }
        self.wire.ip(&wire)?;
        ns.ip(&inside)?;
        let front_mac = if front.is_some() { front_mac } else { Mac::default() };
        Ok(Machine { name, id, ns, front, front_mac, backplane: addresses })
    }
}

/// Lines for `ip` that lay a cable from a bridge to a machine's device.
fn plug(
    wire: &mut String,
    inside: &mut String,
    ns: &NetNs,
    machine: &str,
    network: &str,
    device: &str,
    mac: Mac,
) -> std::fmt::Result {
    let end = wire_end(machine, network);
    let mac = mac.map(|b| format!("{b:02x}")).join(":");
    let ns = ns.path().display();
    writeln!(wire, "link add name {end} type veth peer name {device} address {mac} netns {ns}")?;
    writeln!(wire, "link set {end} master {network}\nlink set {end} up")?;
    writeln!(inside, "link set {device} up")
}

/// The name of the wire's end of a machine's cable to a network.
pub fn wire_end(machine: &str, network: &str) -> String {
    format!("{machine}.{network}")
}

fn v6(host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_reach_each_other_until_cut() {
        let lab = Lab::new(Spec::usual("topology-test")).unwrap();
        let ping = |to: &str| {
            lab.nodes[0].ns.command("ping").args(["-c1", "-W1", "-i0.1", to]).output().unwrap().status.success()
        };
        assert!(ping("192.0.2.2") && ping("2001:db8::c9") && ping("10.77.0.3") && ping("10.78.0.2"));
        lab.wires().cut_off("lb2", &["front"]).unwrap();
        assert!(!ping("192.0.2.2"));
        assert!(ping("10.77.0.2"));
        lab.wires().heal().unwrap();
        assert!(ping("192.0.2.2"));
        lab.wires().cut_between("lb1", "lb2", &["bp0", "bp1"]).unwrap();
        assert!(!ping("10.77.0.2") && !ping("10.78.0.2"));
        assert!(ping("10.77.0.3") && ping("192.0.2.2"));
    }
}
