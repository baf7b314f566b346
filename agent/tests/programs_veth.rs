//! The programs on real devices: two namespaces joined by a veth pair. Needs root; fails where BPF cannot be had.

mod kernel_support;

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    process::Command,
    sync::Arc,
    time::Duration,
};

use baton::{
    backplane::responder::Responder,
    clock,
    cluster::{
        command::GateRole,
        ids::{Incarnation, VoterId},
    },
    kernel::{
        self, Chain, Device, Hook, Kernel, KernelConfig, KernelError, LinkConfig, LinkHook, Mechanism, Said, Tables,
        inspect::Inspector,
    },
};
use kernel_support::{
    OWNER, PORT, config,
    namespace::{BpfMount, Namespace, wait_until},
};

use rustix::mount::{UnmountFlags, mount_bind, unmount};

const LEASE_NS: u64 = 3_600_000_000_000;

/// One end of the pair.
struct Node {
    namespace: Namespace,
    device: &'static str,
    me: u8,
}

/// Two voters of two, joined by a veth pair.
struct Pair {
    one: Node,
    two: Node,
    mount: BpfMount,
}

fn address(voter: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, voter)
}

impl Pair {
    fn new() -> Self {
        let one = Node { namespace: Namespace::new(), device: "one", me: 1 };
        let two = Node { namespace: Namespace::new(), device: "two", me: 2 };
        one.namespace.connect("one", &two.namespace, "two");
        for node in [&one, &two] {
            node.namespace.ip(&format!("addr add {}/24 dev {}", address(node.me), node.device));
        }
        Self { one, two, mount: BpfMount::new() }
    }

    fn config(&self, node: &Node, incarnation: Incarnation, hook: LinkHook, chain: Chain) -> KernelConfig {
        let device = Device { ifindex: node.namespace.ifindex(node.device), name: node.device.into() };
        KernelConfig {
            node: format!("node.{}", node.me),
            bpffs: self.mount.path().to_owned(),
            me: VoterId(node.me),
            voters: vec![VoterId(1), VoterId(2)],
            incarnation,
            // Longer than any test, so that a stalled machine shortens nothing.
            lease_ns: LEASE_NS,
            links: vec![LinkConfig { device, hook }],
            chain,
            ..config()
        }
    }

    fn attach(&self, node: &Node, incarnation: Incarnation, hook: LinkHook, chain: Chain) -> Kernel {
        let config = self.config(node, incarnation, hook, chain);
        node.namespace.run(move || kernel::attach(&config)).expect("the programs attach")
    }
}

impl Node {
    /// The socket that beats are sent from, without UDP checksum.
    fn socket(&self) -> UdpSocket {
        let here = SocketAddr::from((address(self.me), PORT));
        self.namespace.run(move || {
            let socket = UdpSocket::bind(here).expect("the port is free");
            let on: libc::c_int = 1;
            // SAFETY: a valid socket and an integer of the size given.
            let done = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_SOCKET,
                    libc::SO_NO_CHECK,
                    (&raw const on).cast(),
                    size_of_val(&on) as u32,
                )
            };
            assert_eq!(done, 0);
            socket
        })
    }
}

/// Sends beats until a condition holds.
fn beat_until(
    tables: &Tables,
    socket: &UdpSocket,
    to: u8,
    from: u64,
    what: &str,
    mut condition: impl FnMut() -> bool,
) -> u64 {
    let mut sequence = from;
    wait_until(what, || {
        sequence += 1;
        let beat = tables.beat(VoterId(to), 0, sequence, &Said { token: sequence as u32, ..Said::default() });
        socket.send_to(&beat, (address(to), PORT)).expect("it is sent");
        condition()
    });
    sequence
}

/// The lease of voter 1 follows the acknowledgements of voter 2, and stops with its floor.
fn lease_is_earned_and_stopped(hook: LinkHook, chain: Chain, mechanism: Mechanism) {
    let pair = Pair::new();
    let one = pair.attach(&pair.one, 1, hook, chain);
    let two = pair.attach(&pair.two, 1, hook, chain);
    assert_eq!(
        one.hooks().iter().filter(|hook| hook.mechanism == mechanism).count(),
        if hook == LinkHook::Xdp { 1 } else { 3 }
    );
    assert!(one.hooks().iter().all(|hook| hook.fallback.is_none()));
    let socket = pair.one.socket();
    let (mine, theirs) = (one.tables(), two.tables());

    // Floors are infinite at first: beats are recorded, none is acknowledged.
    let sent = beat_until(&mine, &socket, 2, 0, "beats arrive", || {
        theirs.link_view(VoterId(1), 0).expect("link 0").received >= 20
    });
    assert_eq!(mine.lease_end(), 0);
    assert!(theirs.counters_view(0).expect("link 0").refused >= 20);
    assert_eq!(theirs.peer_view(VoterId(1)).last_acknowledged, 0);

    // With the floor down the kernel of two answers, with no process of two reading anything.
    theirs.set_floor(VoterId(1), 0);
    let sent = beat_until(&mine, &socket, 2, sent, "a lease", || mine.lease_end() > 0);
    assert!(mine.lease_end() > clock::now() && mine.lease_end() <= clock::now() + LEASE_NS);
    let link = mine.link_view(VoterId(2), 0).expect("link 0");
    assert!(link.acknowledged >= 1 && link.rtt.iter().sum::<u64>() == link.acknowledged);
    assert!(mine.peer_view(VoterId(2)).host_seen > 0);

    // The floor goes up: after what was under way has come, nothing moves any more.
    theirs.set_floor(VoterId(1), u64::MAX);
    let acknowledged = theirs.peer_view(VoterId(1)).last_acknowledged;
    let sent = beat_until(&mine, &socket, 2, sent, "the answers stop", {
        let received = theirs.link_view(VoterId(1), 0).expect("link 0").received;
        let theirs = Arc::clone(&theirs);
        move || theirs.link_view(VoterId(1), 0).expect("link 0").received >= received + 20
    });
    let end = mine.lease_end();
    beat_until(&mine, &socket, 2, sent, "more beats", {
        let received = theirs.link_view(VoterId(1), 0).expect("link 0").received;
        let theirs = Arc::clone(&theirs);
        move || theirs.link_view(VoterId(1), 0).expect("link 0").received >= received + 20
    });
    assert_eq!(mine.lease_end(), end);
    assert_eq!(theirs.peer_view(VoterId(1)).last_acknowledged, acknowledged);
    one.unpin_all().expect("everything goes");
    two.unpin_all().expect("everything goes");
}

/// Whether this kernel has TCX (Linux 6.6); without it, clsact is what programs attach by.
fn has_tcx() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("proc is mounted");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|word| word.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(6))
}

#[test]
fn the_kernels_own_chain_earns_a_lease_and_the_floor_stops_it() {
    let mechanism = if has_tcx() { Mechanism::Tcx } else { Mechanism::Clsact };
    lease_is_earned_and_stopped(LinkHook::Tc, Chain::Auto, mechanism);
}

#[test]
fn clsact_earns_a_lease_and_the_floor_stops_it() {
    lease_is_earned_and_stopped(LinkHook::Auto, Chain::Clsact, Mechanism::Clsact);
}

#[test]
fn native_xdp_earns_a_lease_and_the_floor_stops_it() {
    lease_is_earned_and_stopped(LinkHook::Xdp, Chain::Auto, Mechanism::Xdp);
}

#[test]
fn a_machine_without_bpf_answers_and_is_answered() {
    let pair = Pair::new();
    let one = pair.attach(&pair.one, 1, LinkHook::Tc, Chain::Auto);
    let two = kernel::in_memory(&pair.config(&pair.two, 1, LinkHook::Tc, Chain::Auto)).expect("memory");
    let (first, second) = (pair.one.socket(), pair.two.socket());
    let responder = Responder::start(two.tables(), &[(0, &second)], None).expect("a thread");
    one.tables().set_floor(VoterId(2), 0);
    two.tables().set_floor(VoterId(1), 0);
    beat_until(&one.tables(), &first, 2, 0, "a lease by user space", || one.tables().lease_end() > 0);
    beat_until(&two.tables(), &second, 1, 0, "a lease by the kernel", || two.tables().lease_end() > 0);
    drop(responder);
    one.unpin_all().expect("everything goes");
}

#[test]
fn a_new_incarnation_adopts_the_pins_and_inherits_no_right() {
    for chain in [Chain::Auto, Chain::Clsact] {
        let pair = Pair::new();
        let one = pair.attach(&pair.one, 1, LinkHook::Tc, chain);
        let two = pair.attach(&pair.two, 1, LinkHook::Tc, chain);
        let socket = pair.one.socket();
        two.tables().set_floor(VoterId(1), 0);
        let sent = beat_until(&one.tables(), &socket, 2, 0, "a lease", || one.tables().lease_end() > 0);
        assert!(one.tables().set_gate(3, 9, OWNER));
        one.tables().set_gate_index(44);
        let received = two.tables().link_view(VoterId(1), 0).expect("link 0").received;
        drop(one);

        // The programs stay without their agent.
        let inspector = Inspector::of_node(pair.mount.path(), "test", "node.1").expect("pinned");
        assert!(inspector.lease_end() > 0);
        assert_eq!(inspector.gates().len(), 1);
        assert!(inspector.gate(3).expect("slot 3").open());

        let one = pair.attach(&pair.one, 2, LinkHook::Tc, chain);
        assert_eq!(inspector.incarnation(), 2);
        assert_eq!((inspector.lease_end(), inspector.gate_index()), (0, 0));
        let gate = inspector.gate(3).expect("slot 3");
        assert_eq!((gate.epoch, gate.role), (9, GateRole::Closed));
        assert_eq!(one.tables().peer_view(VoterId(2)).floor, u64::MAX);
        assert_eq!(one.tables().link_view(VoterId(2), 0), inspector.link(VoterId(2), 0));
        let hooks = one.hooks().to_vec();
        let first: Vec<_> = pair.one.namespace.run(move || hooks.iter().map(Hook::is_first).collect());
        assert_eq!(first, [(chain == Chain::Auto && has_tcx()).then_some(true); 3]);
        // Its own beats earn it a lease, and the peer knows the new incarnation.
        beat_until(&one.tables(), &socket, 2, 0, "a lease of its own", || one.tables().lease_end() > 0);
        assert_eq!(two.tables().peer_view(VoterId(1)).incarnation, 2);
        assert!(two.tables().link_view(VoterId(1), 0).expect("link 0").received > received);
        assert!(sent > 0);

        // A device that is no longer configured loses its programs.
        drop(one);
        let mut bare = pair.config(&pair.one, 3, LinkHook::Tc, chain);
        bare.links.clear();
        let one = pair.one.namespace.run(move || kernel::attach(&bare)).expect("it attaches");
        assert!(one.hooks().is_empty());
        one.unpin_all().expect("everything goes");
        assert!(Inspector::of_node(pair.mount.path(), "test", "node.1").is_err());
    }
}

#[test]
fn the_gate_holds_a_vip_on_the_wire_until_role_and_lease_allow_it() {
    [Chain::Auto, Chain::Clsact].into_iter().for_each(the_gate_holds_a_vip);
}

fn the_gate_holds_a_vip(chain: Chain) {
    let vip = Ipv4Addr::new(10, 77, 0, 100);
    let pair = Pair::new();
    let node = &pair.one;
    node.namespace.ip(&format!("addr add {vip}/32 dev one"));
    let front = Device { ifindex: node.namespace.ifindex("one"), name: "one".into() };
    // No call after attach is needed: a gate that did not know its VIPs from the start would let them pass meanwhile.
    let config = KernelConfig {
        links: Vec::new(),
        fronts: vec![front],
        vips: vec![kernel_support::vip(vip, 7)],
        ..pair.config(node, 1, LinkHook::Tc, chain)
    };
    let kernel = node.namespace.run(move || kernel::attach(&config)).expect("the gate attaches");
    let tables = kernel.tables();
    let server = node.namespace.run(move || UdpSocket::bind((vip, 9000)).expect("bound"));
    server.set_nonblocking(true).expect("non-blocking");
    let client = pair.two.namespace.run(|| UdpSocket::bind((address(2), 0)).expect("bound"));
    let inspector = Inspector::of_node(pair.mount.path(), "test", "node.1").expect("pinned");
    let gate = || inspector.gate(7).expect("slot 7");
    let arrived = || server.recv_from(&mut [0; 16]).is_ok();
    let send = || drop(client.send_to(b"hello", (vip, 9000)));

    // Somebody's XDP program on the front is reported; our own programs are not.
    let (kernel, bypasses) = node.namespace.run(move || {
        let bypasses = kernel.bypasses().expect("netlink answers");
        (kernel, bypasses)
    });
    assert!(bypasses.is_empty());
    let stranger =
        KernelConfig { node: "stranger".into(), fronts: Vec::new(), ..pair.config(node, 1, LinkHook::Xdp, chain) };
    let (kernel, bypasses) = node.namespace.run(move || {
        let stranger = kernel::attach(&stranger).expect("it attaches");
        let bypasses = kernel.bypasses().expect("netlink answers");
        stranger.unpin_all().expect("everything goes");
        (kernel, bypasses)
    });
    assert_eq!(bypasses.len(), 1);
    assert_eq!(bypasses[0].0.name, "one");

    // Closed: the client's question for the MAC is not even answered.
    wait_until("questions are held", || {
        send();
        gate().counters.dropped_neighbour >= 1
    });
    // Open, but without a lease; with the lease, but closed.
    tables.set_gate(7, 1, OWNER);
    let held = gate().counters.dropped_ingress;
    wait_until("no lease, no answer", || {
        send();
        gate().counters.dropped_ingress > held
    });
    tables.set_gate(7, 1, GateRole::Closed);
    tables.control().lease_end.store(clock::now() + LEASE_NS);
    let held = gate().counters.dropped_ingress;
    wait_until("no role, no answer", || {
        send();
        gate().counters.dropped_ingress > held
    });
    assert!(!arrived());
    assert!(kernel.tenures().expect("read").is_empty());

    // Both: it passes, and the tenure is on record.
    tables.set_gate(7, 2, OWNER);
    wait_until("it is served", || {
        send();
        arrived()
    });
    let tenures = inspector.tenures().expect("read");
    let [(7, 2, tenure)] = tenures[..] else { panic!("{tenures:?}") };
    assert!(tenure.first_answer > 0 && tenure.first_flow >= tenure.first_answer, "{tenure:?}");

    // The lease ends: nothing more arrives, and what the node itself sends from the VIP is held.
    tables.control().lease_end.store(clock::now());
    while arrived() {}
    let held = gate().counters.dropped_ingress;
    wait_until("the lease ended", || {
        send();
        gate().counters.dropped_ingress > held
    });
    assert!(!arrived());
    let held = gate().counters.dropped_egress;
    server.send_to(b"late", (address(2), 9)).ok();
    wait_until("egress is held", || gate().counters.dropped_egress > held);

    // Another address of the same device was never touched.
    let own = node.namespace.run(|| UdpSocket::bind((address(1), 9001)).expect("bound"));
    own.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
    client.send_to(b"own", (address(1), 9001)).expect("sent");
    assert_eq!(own.recv(&mut [0; 16]).expect("it arrives"), 3);
    kernel.unpin_all().expect("everything goes");
}

#[test]
fn one_device_may_be_front_and_backplane_and_what_is_gone_is_not_first() {
    let pair = Pair::new();
    let node = &pair.one;
    let both = |name: &str| {
        let config = pair.config(node, 1, LinkHook::Tc, Chain::Auto);
        let fronts = vec![config.links[0].device.clone()];
        KernelConfig { node: name.into(), fronts, ..config }
    };
    let (config, stranger) = (both("node"), both("stranger"));
    let first = |kernel: &Kernel| kernel.hooks().iter().map(Hook::is_first).collect::<Vec<_>>();
    node.namespace.run(move || {
        let kernel = kernel::attach(&config).expect("it attaches");
        assert_eq!(first(&kernel), [has_tcx().then_some(true); 5]);
        kernel.unpin_all().expect("everything goes");
        // What is gone from the device is first no more.
        let kernel = kernel::attach(&stranger).expect("it attaches");
        let hooks = kernel.hooks().to_vec();
        kernel.unpin_all().expect("everything goes");
        let gone = has_tcx().then_some(false);
        wait_until("the links are released", || hooks.iter().all(|hook| hook.is_first() == gone));
    });
}

#[test]
fn filters_of_a_device_that_is_front_and_backplane_do_not_replace_each_other() {
    let pair = Pair::new();
    let node = &pair.one;
    let filters = |direction: &'static str| {
        node.namespace.run(move || {
            let tc = Command::new("tc").args(["filter", "show", "dev", "one", direction]).output();
            let text = tc.expect("iproute2 is installed").stdout;
            let mut programs = Vec::new();
            for name in ["gate_ingress", "gate_egress", "beat_ingress", "beat_egress", "steer_ingress"] {
                programs.extend(vec![
                    name;
                    String::from_utf8_lossy(&text).matches(&format!("{name} direct-action")).count()
                ]);
            }
            programs
        })
    };
    // The second agent finds the first one's filters and swaps its programs in.
    for incarnation in 1..=2 {
        let config = pair.config(node, incarnation, LinkHook::Tc, Chain::Clsact);
        let config = KernelConfig { fronts: vec![config.links[0].device.clone()], ..config };
        let kernel = node.namespace.run(move || kernel::attach(&config)).expect("it attaches");
        assert_eq!(filters("ingress"), ["gate_ingress", "beat_ingress", "steer_ingress"]);
        assert_eq!(filters("egress"), ["gate_egress", "beat_egress"]);
        if incarnation == 2 {
            node.namespace.run(move || kernel.unpin_all()).expect("everything goes");
        }
    }
    assert!(filters("ingress").is_empty() && filters("egress").is_empty());
}

#[test]
fn what_is_no_ethernet_device_is_refused_by_name() {
    let pair = Pair::new();
    let mut config = pair.config(&pair.one, 1, LinkHook::Tc, Chain::Auto);
    config.others = vec![Device { ifindex: 1, name: "lo".into() }];
    let refused = config.clone();
    let error = pair.one.namespace.run(move || kernel::attach(&refused).err()).expect("loopback is refused");
    assert!(error.to_string().contains("lo is no Ethernet device"), "{error}");
    config.others[0].ifindex = 4_000;
    let error =
        pair.one.namespace.run(move || kernel::attach(&config).err()).expect("a device that is not there is refused");
    assert!(error.to_string().contains("device lo cannot be looked at"), "{error}");
}

#[test]
fn user_space_takes_over_from_programs_that_were_left() {
    for chain in [Chain::Auto, Chain::Clsact] {
        let pair = Pair::new();
        let one = pair.attach(&pair.one, 1, LinkHook::Tc, Chain::Auto);
        drop(pair.attach(&pair.two, 1, LinkHook::Tc, chain));
        let config = pair.config(&pair.two, 2, LinkHook::Tc, chain);
        let two = pair.two.namespace.run(move || kernel::in_memory(&config)).expect("memory");
        let (first, second) = (pair.one.socket(), pair.two.socket());
        let _responder = Responder::start(two.tables(), &[(0, &second)], None).expect("a thread");
        two.tables().set_floor(VoterId(1), 0);
        beat_until(&one.tables(), &first, 2, 0, "a lease by user space", || one.tables().lease_end() > 0);
        one.unpin_all().expect("everything goes");
    }
}

#[test]
fn user_space_does_not_begin_where_programs_that_were_left_cannot_be_removed() {
    let pair = Pair::new();
    drop(pair.attach(&pair.two, 1, LinkHook::Tc, Chain::Auto));
    let config = pair.config(&pair.two, 2, LinkHook::Tc, Chain::Auto);
    // A folder that something is mounted on cannot be removed: the programs would go on answering by their own floors.
    let pins = pair.mount.path().join("baton/test-node_2");
    mount_bind(&pins, &pins).expect("mounted");
    let refused = config.clone();
    let error = pair.two.namespace.run(move || kernel::in_memory(&refused).err());
    unmount(&pins, UnmountFlags::DETACH).expect("unmounted");
    let error = error.expect("refused");
    assert!(matches!(error, KernelError::Pin { .. }), "{error}");
    pair.two.namespace.run(move || kernel::in_memory(&config)).expect("nothing is in the way any more");
}
