//! Flows that are known by their TCP sockets alone: established ones, half-open ones, SYN cookies; and copies of fragments. In a
//! network namespace, whose loopback is the device of a test run. Needs root; fails where BPF cannot be had.

mod kernel_support;

use std::{
    io::Read,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{FromRawFd, OwnedFd},
    time::Duration,
};

use baton::kernel::Path;
use etherparse::{PacketBuilder, TcpHeader};
use kernel_support::{
    OUR_MAC, OWNER, PEER_MAC,
    namespace::{Namespace, wait_until},
    packets::*,
    steered::{Fate::*, *},
};

/// A namespace whose loopback has the client and the VIP.
fn machine() -> Namespace {
    let machine = Namespace::new();
    for address in [Ipv4Addr::from(CLIENT), Ipv4Addr::from(VIP)] {
        machine.ip(&format!("addr add {address}/32 dev lo"));
    }
    for address in [Ipv6Addr::from(client6()), Ipv6Addr::from(vip6())] {
        machine.ip(&format!("addr add {address}/128 dev lo nodad"));
    }
    machine
}

fn vip(family: Family) -> SocketAddr {
    let address: IpAddr = if family == Family::V4 { Ipv4Addr::from(VIP).into() } else { Ipv6Addr::from(vip6()).into() };
    SocketAddr::from((address, 80))
}

fn client(family: Family) -> SocketAddr {
    let address: IpAddr =
        if family == Family::V4 { Ipv4Addr::from(CLIENT).into() } else { Ipv6Addr::from(client6()).into() };
    SocketAddr::from((address, 0))
}

/// A connection from the client's address.
fn connect(family: Family) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::for_address(vip(family)), socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.bind(&client(family).into()).expect("bound");
    socket.connect(&vip(family).into()).expect("connected");
    socket.into()
}

#[test]
fn an_established_connection_is_known_by_its_socket() {
    machine().run(|| {
        for family in FAMILIES {
            let listener = TcpListener::bind(vip(family)).expect("bound");
            let stream = connect(family);
            let port = stream.local_addr().expect("bound").port();
            let (server, _) = listener.accept().expect("accepted");
            let node = Node::new(OWNER);
            for (role, from_front) in [(NEW_OWNER, true), (DRAIN, true), (NEW_OWNER, false), (RECEIVE, false)] {
                node.take(role);
                let fate = |frame: &[u8]| if from_front { node.front(frame) } else { node.taken(frame) };
                let elsewhere = if from_front { ToPeer } else { Back };
                for flags in [ACK, FIN | ACK, RST] {
                    assert_eq!(fate(&to_vip(family, port, flags)), Pass, "{family:?} {role:?}");
                }
                assert_eq!(fate(&segment_error(family, port)), Pass);
                // The listening socket alone knows nothing of a flow.
                let other = if port == 9 { 10 } else { 9 };
                assert_eq!(fate(&to_vip(family, other, ACK)), elsewhere);
                assert_eq!(fate(&segment_error(family, other)), elsewhere);
            }
            // A drain ends with its sockets: no segment of one moves the instant of those without.
            assert_eq!(node.counters().drained_at, 0);
            // A new flow from a port that is still in use here, or waits here for its end (TIME_WAIT).
            node.take(DRAIN);
            assert_eq!(node.front(&to_vip(family, port, SYN)), ToPeer);
            assert_eq!(node.front(&to_vip(family, port, ACK)), ToPeer, "it is the peer's from now on");
            let node = Node::new(DRAIN);
            drop(server);
            let mut stream = stream;
            assert_eq!(stream.read(&mut [0; 1]).expect("closed"), 0);
            drop(stream);
            // Found by moves under load: the socket in TIME_WAIT was of an earlier flow, and its client had used the port again at
            // the other node.
            for role in [DRAIN, NEW_OWNER] {
                node.take(role);
                assert_eq!(node.front(&to_vip(family, port, ACK)), ToPeer, "TIME_WAIT claims no flow");
            }
            node.take(DRAIN);
            assert_eq!(
                node.taken(&to_vip(family, port, ACK)),
                Pass,
                "but what the peer does not know either is told that it ended"
            );
            assert_eq!(node.front(&to_vip(family, port, SYN)), ToPeer);
        }
    });
}

/// A raw socket by which whole IPv4 packets are sent.
fn raw(protocol: i32) -> socket2::Socket {
    // SAFETY: plain integers; the descriptor is this socket's alone.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    assert!(fd >= 0, "a raw socket: run as root");
    // SAFETY: a fresh descriptor.
    unsafe { OwnedFd::from_raw_fd(fd) }.into()
}

/// A SYN from a client's port, as an IPv4 packet with checksums.
fn syn(source: [u8; 4], port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4(source, VIP, 64).tcp(port, 80, 1, 1000).syn();
    builder.write(&mut packet, &[]).expect("built");
    packet
}

fn send(packet: &[u8]) {
    let to = SocketAddr::from((VIP, 0));
    raw(libc::IPPROTO_RAW).send_to(packet, &to.into()).expect("sent");
}

#[test]
fn a_handshake_ends_where_it_began() {
    let machine = machine();
    // A client that never answers: its packets come from loopback, and answers to it go there.
    machine.ip("route add 198.51.100.0/24 dev lo");
    machine.run(|| {
        let _listener = TcpListener::bind(vip(Family::V4)).expect("bound");
        let source = [198, 51, 100, 7];
        let frame = |flags| {
            let mut frame = to_vip(Family::V4, 4000, flags);
            frame[26..30].copy_from_slice(&source);
            frame
        };
        let node = Node::new(DRAIN);
        assert_eq!(node.front(&frame(SYN)), ToPeer, "nothing is half open yet");
        let node = Node::new(DRAIN);
        send(&syn(source, 4000));
        wait_until("it is half open", || node.front(&frame(ACK)) == Pass);
        assert_eq!(node.front(&frame(SYN)), Pass, "the answer was lost, the question is repeated");
        assert_eq!(node.front(&frame(ACK)), Pass);
    });
}

#[test]
fn a_syn_cookie_that_comes_back_is_known() {
    let machine = machine();
    machine.run(|| {
        // Always cookies: no socket remembers the SYN.
        std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2").expect("written");
        let _listener = TcpListener::bind(vip(Family::V4)).expect("bound");
        let answers = raw(libc::IPPROTO_TCP);
        answers.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        send(&syn(CLIENT, 4000));
        let cookie = loop {
            let mut packet = [0; 128];
            let length = (&answers).read(&mut packet).expect("the answer");
            let (tcp, _) = TcpHeader::from_slice(&packet[20..length]).expect("a TCP header");
            if tcp.syn && tcp.ack && tcp.destination_port == 4000 {
                break tcp.sequence_number;
            }
        };
        for (role, unknown) in [(NEW_OWNER, ToPeer), (DRAIN, ToPeer)] {
            let node = Node::new(role);
            let acknowledgement = |number: u32, flags| {
                let mut frame = to_vip(Family::V4, 4000, flags);
                frame[38..42].copy_from_slice(&2u32.to_be_bytes());
                frame[42..46].copy_from_slice(&number.to_be_bytes());
                frame
            };
            assert_eq!(node.front(&acknowledgement(cookie.wrapping_add(1), ACK)), Pass);
            assert_eq!(node.front(&acknowledgement(cookie ^ 0x80_0000, ACK)), unknown);
            assert_eq!(node.front(&acknowledgement(cookie.wrapping_add(1), RST)), unknown);
        }
    });
}

#[test]
fn a_later_fragment_without_a_first_one_goes_both_ways() {
    let machine = machine();
    machine.ip("link add out type veth peer name in");
    machine.ip("link set out up");
    machine.ip("link set in up");
    let ifindex = machine.ifindex("out");
    machine.run(move || {
        // What comes out of the other end, whatever it is.
        // SAFETY: plain integers; the descriptor is this socket's alone.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(3u16.to_be())) };
        assert!(fd >= 0, "a packet socket: run as root");
        // SAFETY: a fresh descriptor.
        let ends: socket2::Socket = unsafe { OwnedFd::from_raw_fd(fd) }.into();
        ends.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        for role in [NEW_OWNER, DRAIN] {
            for family in FAMILIES {
                let node = Node::new(role);
                node.0.tables().set_path(PEER, Some(Path { ifindex, peer_mac: PEER_MAC, own_mac: OUR_MAC }));
                let frame = fragment(family, 6, 80, true);
                assert_eq!(node.front(&frame), Pass);
                assert_eq!(node.counters().steered, 1);
                let expected = [&PEER_MAC[..], &OUR_MAC, &frame[12..]].concat();
                loop {
                    let mut packet = [0; 2048];
                    let length = (&ends).read(&mut packet).expect("a copy");
                    if packet[..length] == expected {
                        break;
                    }
                }
                // Without a way it stays here.
                node.0.tables().set_path(PEER, None);
                assert_eq!(node.front(&frame), Pass);
                assert_eq!(node.counters().steered, 1);
            }
        }
    });
}
