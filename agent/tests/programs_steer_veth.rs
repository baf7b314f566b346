//! A planned move on real devices: two nodes, a router before them, a client and a container, in network namespaces, with
//! rp_filter 1 everywhere. Needs root and nftables; fails where BPF cannot be had.

mod kernel_support;

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    process::{Command, Stdio},
};

use baton::{
    clock,
    cluster::{command::GateRole, ids::VoterId},
    kernel::{self, Chain, Device, Kernel, KernelConfig, LinkConfig, LinkHook, Path, Said, Tables, VipRow},
};
use kernel_support::{
    OWNER, PORT, config,
    echo::{self, Datagrams, Stream},
    namespace::{BpfMount, Namespace, wait_until},
};

const SLOT: u32 = 3;
const HOUR: u64 = 3_600_000_000_000;
const VIPS: [&str; 2] = ["10.88.0.100", "fd88::100"];
const SERVED: u16 = 80;
const TRANSLATED: u16 = 8080;
/// More than any buffer on the way.
const LARGE: usize = 8 << 20;

/// One of the two nodes.
struct Node {
    machine: Namespace,
    kernel: Kernel,
    me: u8,
}

/// A client behind a router, two nodes, and a container behind the first one.
struct Lab {
    first: Node,
    second: Node,
    router: Namespace,
    client: Namespace,
    _container: Namespace,
    _mount: BpfMount,
}

fn front_mac(me: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0x0f, me]
}

fn back_mac(me: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0x0b, me]
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn vips() -> [IpAddr; 2] {
    VIPS.map(|address| address.parse().expect("an address"))
}

/// Writes sysctls of a namespace, those of its devices included.
fn sysctls(machine: &Namespace, settings: &'static [(&'static str, &'static str)]) {
    machine.run(move || {
        for (name, value) in settings {
            std::fs::write(format!("/proc/sys/net/{name}"), value).expect("a sysctl");
        }
    });
}

/// What holds on every machine: strict reverse paths, and ARP as drained addresses on loopback need it.
fn settle(machine: &Namespace, devices: &[&str]) {
    for device in ["all", "default"].iter().chain(devices) {
        let device = (*device).to_owned();
        machine.run(move || {
            for (name, value) in [("rp_filter", "1"), ("arp_ignore", "1"), ("arp_announce", "2")] {
                std::fs::write(format!("/proc/sys/net/ipv4/conf/{device}/{name}"), value).expect("a sysctl");
            }
        });
    }
    sysctls(machine, &[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")]);
}

fn attach(machine: &Namespace, me: u8, mount: &BpfMount, chain: Chain, hook: LinkHook) -> Kernel {
    let device = |name: &str| Device { ifindex: machine.ifindex(name), name: name.into() };
    let front = device("front");
    let rows = vips().map(|address| VipRow { address, slot: SLOT, front: front.ifindex });
    let config = KernelConfig {
        node: format!("node.{me}"),
        bpffs: mount.path().to_owned(),
        me: VoterId(me),
        voters: vec![VoterId(1), VoterId(2)],
        // Longer than any test, so that a stalled machine shortens nothing.
        lease_ns: HOUR,
        links: vec![LinkConfig { device: device("back"), hook }],
        fronts: vec![front],
        vips: rows.to_vec(),
        chain,
        ..config()
    };
    let kernel = machine.run(move || kernel::attach(&config)).expect("the programs attach");
    kernel.tables().control().lease_end.store(clock::now() + HOUR);
    kernel
}

impl Node {
    fn tables(&self) -> std::sync::Arc<Tables> {
        self.kernel.tables()
    }

    fn take(&self, epoch: u64, role: GateRole) {
        assert!(self.tables().set_gate(SLOT, epoch, role));
    }

    /// Puts the VIPs on a device, or takes them off.
    fn vips(&self, action: &str, device: &str) {
        for (address, bits) in VIPS.iter().zip(["32", "128 nodad"]) {
            let bits = if action == "del" { bits.trim_end_matches(" nodad") } else { bits };
            self.machine.ip(&format!("addr {action} {address}/{bits} dev {device}"));
        }
    }

    fn serve(&self) {
        let name = if self.me == 1 { b'A' } else { b'B' };
        self.machine.run(move || vips().map(|vip| echo::start((vip, SERVED).into(), name)));
    }
}

impl Lab {
    fn new(chain: Chain, hook: LinkHook) -> Self {
        let mount = BpfMount::new();
        let [first, second, router, client, container] = [(); 5].map(|()| Namespace::new());
        // The router's bridge is the segment of the fronts.
        router.ip("link add segment type bridge");
        router.ip("link set segment up");
        for (machine, me) in [(&first, 1), (&second, 2)] {
            machine.connect("front", &router, &format!("node{me}"));
            router.ip(&format!("link set node{me} master segment"));
            machine.ip(&format!("link set front address {}", text(front_mac(me))));
            machine.ip(&format!("addr add 10.88.0.{me}/24 dev front"));
            machine.ip(&format!("addr add fd88::{me}/64 dev front nodad"));
        }
        first.connect("back", &second, "back");
        for (machine, me) in [(&first, 1), (&second, 2)] {
            machine.ip(&format!("link set back address {}", text(back_mac(me))));
            machine.ip(&format!("addr add 10.77.0.{me}/24 dev back"));
            settle(machine, &["front", "back"]);
            machine.ip("route add default via 10.88.0.254");
            machine.ip("-6 route add default via fd88::254");
        }
        router.ip("addr add 10.88.0.254/24 dev segment");
        router.ip("addr add fd88::254/64 dev segment nodad");
        router.connect("client", &client, "eth");
        router.ip("addr add 10.99.0.254/24 dev client");
        router.ip("addr add fd99::254/64 dev client nodad");
        settle(&router, &["segment", "client"]);
        // The way to the client is narrower than it claims: what comes down has to learn of it by ICMP.
        router.ip("link set client mtu 1300");
        client.ip("link set eth mtu 1300");
        client.ip("addr add 10.99.0.3/24 dev eth");
        client.ip("addr add fd99::3/64 dev eth nodad");
        client.ip("route add default via 10.99.0.254 advmss 1460");
        client.ip("-6 route add default via fd99::254 advmss 1440");

        first.connect("inner", &container, "eth");
        first.ip("addr add 10.66.0.1/24 dev inner");
        settle(&first, &["inner"]);
        container.ip("addr add 10.66.0.2/24 dev eth");
        container.ip("route add default via 10.66.0.1");
        let inside = SocketAddr::from((Ipv4Addr::new(10, 66, 0, 2), SERVED));
        container.run(move || echo::start(inside, b'C'));
        translate(&first);

        let kernels = [(&first, 1), (&second, 2)].map(|(machine, me)| attach(machine, me, &mount, chain, hook));
        let [kernel, other] = kernels;
        let first = Node { machine: first, kernel, me: 1 };
        let second = Node { machine: second, kernel: other, me: 2 };
        learn(&first, &second);
        learn(&second, &first);
        Self { first, second, router, client, _container: container, _mount: mount }
    }

    /// What a gratuitous ARP and an unsolicited advertisement do to the router.
    fn announce(&self, node: &Node) {
        for vip in VIPS {
            self.router.ip(&format!("neigh replace {vip} lladdr {} dev segment", text(front_mac(node.me))));
        }
    }

    fn stream(&self, vip: IpAddr, port: u16) -> Stream {
        self.client.run(move || Stream::open((vip, port).into()))
    }

    fn datagrams(&self, vip: IpAddr) -> Datagrams {
        self.client.run(move || Datagrams::open((vip, SERVED).into()))
    }
}

/// The container's service at the VIP, for what comes by the front.
fn translate(machine: &Namespace) {
    let rules = format!(
        "table ip nat {{\nchain front {{\ntype nat hook prerouting priority dstnat;\n\
         iifname front ip daddr {} tcp dport {TRANSLATED} dnat to 10.66.0.2:{SERVED}\n}}\n}}\n",
        VIPS[0]
    );
    machine.run(move || {
        let mut nft =
            Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nftables is installed");
        nft.stdin.take().expect("piped").write_all(rules.as_bytes()).expect("written");
        assert!(nft.wait().expect("it ends").success());
    });
}

/// A node's heartbeats show its MAC address to the other, which then has a way to it.
fn learn(node: &Node, other: &Node) {
    let (from, to) = (SocketAddr::from(([10, 77, 0, node.me], PORT)), SocketAddr::from(([10, 77, 0, other.me], PORT)));
    let socket = node.machine.run(move || UdpSocket::bind(from).expect("bound"));
    let (tables, theirs) = (node.tables(), other.tables());
    let mut sequence = 0;
    wait_until("a heartbeat", || {
        sequence += 1;
        let beat = tables.beat(VoterId(other.me), 0, sequence, &Said::default());
        socket.send_to(&beat, to).expect("sent");
        theirs.peer_mac(VoterId(node.me), 0).is_some()
    });
    assert_eq!(theirs.peer_mac(VoterId(node.me), 0), Some(back_mac(node.me)));
    let ifindex = other.machine.ifindex("back");
    let path = Path { ifindex, peer_mac: back_mac(node.me), own_mac: back_mac(other.me) };
    theirs.set_path(VoterId(node.me), Some(path));
    theirs.peer(VoterId(node.me)).host_seen.store(clock::now() + HOUR);
}

/// A move from the first node to the second: what was open stays open and whole, what is new goes to the new owner at once,
/// whether or not the announcement was heard.
fn moves(chain: Chain, hook: LinkHook) {
    let lab = Lab::new(chain, hook);
    let (a, b) = (&lab.first, &lab.second);
    a.take(1, OWNER);
    a.vips("add", "front");
    a.serve();
    lab.announce(a);
    let mut streams = vips().map(|vip| lab.stream(vip, SERVED));
    let mut translated = lab.stream(vips()[0], TRANSLATED);
    let datagrams = vips().map(|vip| lab.datagrams(vip));
    streams.iter_mut().for_each(|stream| assert_eq!(stream.ask(10, 10), 'A'));
    datagrams.iter().for_each(|datagrams| assert_eq!(datagrams.ask(100), 'A'));
    assert_eq!(translated.ask(10, 10), 'C');

    // Prepared: the next owner serves already, and nobody can tell.
    b.vips("add", "lo");
    b.serve();
    b.take(1, GateRole::Receive { from: VoterId(1) });
    streams.iter_mut().for_each(|stream| assert_eq!(stream.ask(10, 10), 'A'));

    // From this instant on new flows are the second node's, though all comes to the first one.
    a.take(2, GateRole::Drain { to: VoterId(2) });
    a.vips("add", "lo");
    let mut taken = vips().map(|vip| lab.stream(vip, SERVED));
    taken.iter_mut().for_each(|stream| assert_eq!(stream.ask(LARGE, LARGE), 'B'));
    let taken_datagrams = vips().map(|vip| lab.datagrams(vip));
    taken_datagrams.iter().for_each(|datagrams| assert_eq!(datagrams.ask(100), 'B'));
    streams.iter_mut().for_each(|stream| assert_eq!(stream.ask(1000, 1000), 'A'));
    datagrams.iter().for_each(|datagrams| assert_eq!(datagrams.ask(4000), 'A'));
    assert_eq!(translated.ask(1000, 1000), 'C');
    assert!(b.tables().gate_counters(SLOT).expect("the slot").taken > 0);

    // The second one owns the VIPs, knows the first one's recent flows, and announces.
    let known = a.kernel.recent_flows(SLOT, 0).expect("read");
    assert_eq!(known.iter().filter(|flow| flow.protocol == 17).count(), 2);
    b.kernel.learn_flows(SLOT, &known).expect("learnt");
    b.take(2, GateRole::Owner { steer: Some(VoterId(1)) });
    b.vips("add", "front");
    a.vips("del", "front");
    lab.announce(b);
    let before = a.tables().gate_counters(SLOT).expect("the slot");
    streams.iter_mut().for_each(|stream| assert_eq!(stream.ask(LARGE, LARGE), 'A'));
    taken.iter_mut().for_each(|stream| assert_eq!(stream.ask(LARGE, LARGE), 'B'));
    datagrams.iter().for_each(|datagrams| assert_eq!(datagrams.ask(4000), 'A', "in fragments"));
    taken_datagrams.iter().for_each(|datagrams| assert_eq!(datagrams.ask(4000), 'B'));
    vips().iter().for_each(|vip| assert_eq!(lab.stream(*vip, SERVED).ask(10, 10), 'B'));
    vips().iter().for_each(|vip| assert_eq!(lab.datagrams(*vip).ask(10), 'B'));
    let socketless = a.tables().gate_counters(SLOT).expect("the slot").drained_at;
    assert_eq!(translated.ask(LARGE, LARGE), 'C', "translated to the container");
    let after = a.tables().gate_counters(SLOT).expect("the slot");
    assert!(after.taken > before.taken && after.drained > before.drained && after.drained_at > socketless);
    assert!(b.tables().gate_counters(SLOT).expect("the slot").steered > 0);

    // The way down was too narrow, and whoever served learnt of it: the errors came to the second node for flows of both.
    for node in [a, b] {
        let cached = node.machine.run(|| {
            let routes =
                Command::new("ip").args(["route", "get", "10.99.0.3"]).output().expect("iproute2 is installed");
            String::from_utf8_lossy(&routes.stdout).contains("mtu 1300")
        });
        assert!(cached, "node {} knows no path MTU", node.me);
    }

    // The end: the new owner steers nothing any more, the old one passes nothing.
    b.take(2, OWNER);
    a.take(2, GateRole::Closed);
    a.vips("del", "lo");
    taken.iter_mut().for_each(|stream| assert_eq!(stream.ask(10, 10), 'B'));
    let Lab { first, second, .. } = lab;
    for node in [first, second] {
        let kernel = node.kernel;
        node.machine.run(move || kernel.unpin_all()).expect("everything goes");
    }
}

#[test]
fn a_move_keeps_every_flow_by_tcx() {
    moves(Chain::Auto, LinkHook::Tc);
}

#[test]
fn a_move_keeps_every_flow_by_clsact() {
    moves(Chain::Clsact, LinkHook::Tc);
}

#[test]
fn a_move_keeps_every_flow_where_heartbeats_are_taken_by_xdp() {
    moves(Chain::Auto, LinkHook::Xdp);
}
