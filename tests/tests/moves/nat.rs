//! A VIP whose flows end in another namespace behind DNAT, as with containers: no socket of the host knows them, and a move
//! breaks none of them either.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use baton::clock;
use baton_lab::{
    load::{
        http::{self, Load},
        record::Kind,
        server::{self, Server},
        stage::{Stage, at_vips},
    },
    lock::Exclusive,
    netns::NetNs,
};

use super::{LIMIT, divert_to, drained, without_haproxy};

/// The port at the VIPs that is translated.
const PORT: u16 = 8081;

/// A container of a node: a namespace behind a cable, and the rules that lead into it. It answers as node + 10.
struct Container {
    _server: Server,
    _ns: NetNs,
}

fn container(stage: &Stage, node: usize) -> Result<Container> {
    let machine = &stage.lab.nodes[node];
    let path = stage.lab.home().path().join(format!("{}-container.net", machine.name));
    let ns = NetNs::new(path.clone())?;
    machine.ns.ip(&format!(
        "link add name inner0 type veth peer name eth0 netns {}\nlink set inner0 up\naddress add 10.99.0.1/24 dev inner0\n\
         address add fd99::1/64 dev inner0 nodad\n",
        path.display()
    ))?;
    ns.ip(
        "link set eth0 up\naddress add 10.99.0.2/24 dev eth0\naddress add fd99::2/64 dev eth0 nodad\nroute add default via \
         10.99.0.1\nroute add ::/0 via fd99::1\n",
    )?;
    machine.ns.sysctl("net/ipv4/ip_forward", "1")?;
    machine.ns.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    let [four, six] = at_vips(PORT).map(|a| a.ip());
    let rules = format!(
        "table inet container {{\n chain in {{\n  type nat hook prerouting priority dstnat\n  ip daddr {four} tcp dport \
         {PORT} dnat ip to 10.99.0.2:{0}\n  ip6 daddr {six} tcp dport {PORT} dnat ip6 to [fd99::2]:{0}\n }}\n}}\n",
        server::PORT
    );
    machine.ns.feed("nft", &["-f", "-"], &rules)?;
    Ok(Container { _server: Server::start(&ns, 10 + u8::try_from(node)?)?, _ns: ns })
}

#[test]
fn flows_into_containers_outlive_a_move() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut stage = without_haproxy("nat", 20)?;
    let containers = [container(&stage, 0)?, container(&stage, 1)?];
    let owner = stage.steady(LIMIT)?;
    let client = stage.client()?;
    let specs = at_vips(PORT).map(|target| http::Spec::usual(target).scaled(0.1));
    let mut loads = Vec::new();
    let from = clock::now();
    for spec in &specs {
        loads.push(Load::start(&client, spec.clone())?);
    }
    for (load, spec) in loads.iter().zip(&specs) {
        load.ready(spec, LIMIT)?;
    }
    divert_to(&stage, 1 - owner)?;
    let moved = clock::now();
    thread::sleep(Duration::from_secs(4));
    for load in loads {
        let later = load.report(moved, clock::now())?;
        ensure!(later.nodes(Kind::Fresh).into_iter().eq([11 - owner]), "new flows went astray: {later}");
        ensure!(later.nodes(Kind::Kept).into_iter().eq([10 + owner]), "old flows went astray: {later}");
        let report = load.finish(from)?;
        eprintln!("{report}");
        report.nothing_lost()?;
    }
    drained(&stage)?;
    stage.one_owner_at_a_time()?;
    drop(containers);
    Ok(())
}
