//! Garbage for the ports of a running agent: empty, truncated, oversized and random bytes, over UDP, TCP and Unix sockets.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream, UdpSocket},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use rand::{Rng, RngCore, rngs::SmallRng};
use socket2::{Domain, Socket, Type};

use crate::netns::NetNs;

/// How long an answer, or the end of a connection, is waited for.
const LIMIT: Duration = Duration::from_millis(500);
/// Lengths around that of a heartbeat (72), around the Ethernet MTU, and in several IP fragments.
const LENGTHS: [usize; 12] = [0, 1, 8, 63, 64, 71, 72, 73, 144, 1_472, 1_473, 9_000];

/// Sends datagrams of every awkward length to a heartbeat port, from `source` inside `ns`. Returns how many.
pub fn datagrams(ns: &NetNs, source: Ipv4Addr, target: Ipv4Addr, port: u16, random: &mut SmallRng) -> Result<u64> {
    let payloads: Vec<_> = LENGTHS.iter().map(|length| bytes(*length, random)).collect();
    send(ns, source, target, port, payloads)
}

/// Sends datagrams as they are, from `source` inside `ns`. Returns how many the kernel took.
pub fn send(ns: &NetNs, source: Ipv4Addr, target: Ipv4Addr, port: u16, payloads: Vec<Vec<u8>>) -> Result<u64> {
    ns.run(move || {
        let socket = UdpSocket::bind((source, 0)).with_context(|| format!("cannot send from {source}"))?;
        // A refusal (ICMP, a full queue) only costs that datagram.
        Ok(payloads.iter().filter(|p| socket.send_to(p, (target, port)).is_ok()).count() as u64)
    })?
}

/// Opens connections to a TCP port, from `source` inside `ns`, and sends each another kind of nonsense.
pub fn connections(ns: &NetNs, source: Ipv4Addr, target: SocketAddr, random: &mut SmallRng) -> Result<()> {
    let payloads = nonsense(random);
    ns.run(move || {
        for payload in payloads {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SocketAddr::from(SocketAddrV4::new(source, 0)).into())?;
            socket.set_write_timeout(Some(LIMIT))?;
            socket.set_read_timeout(Some(LIMIT))?;
            // The agent may refuse, or have hung up already: either is its right.
            if socket.connect_timeout(&target.into(), LIMIT).is_ok() {
                let mut stream: TcpStream = socket.into();
                drop(stream.write_all(&payload));
                drop(stream.shutdown(Shutdown::Write));
                drop(read_off(&mut stream));
            }
        }
        Ok(())
    })?
}

/// The same over a Unix socket.
pub fn unix(path: &Path, random: &mut SmallRng) -> Result<()> {
    for payload in nonsense(random) {
        let mut stream = UnixStream::connect(path).context("the control socket takes nobody")?;
        stream.set_write_timeout(Some(LIMIT))?;
        stream.set_read_timeout(Some(LIMIT))?;
        drop(stream.write_all(&payload));
        drop(stream.shutdown(Shutdown::Write));
        drop(read_off(&mut stream));
    }
    Ok(())
}

/// The loopback address as a source.
pub const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A socket address from its parts.
pub fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(address), port)
}

/// Waits for the other side to hang up; a limited number of bytes is looked at.
fn read_off(stream: &mut impl Read) -> io::Result<usize> {
    stream.take(1 << 20).read_to_end(&mut Vec::new())
}

/// What a stranger may say: nothing, noise, lengths that lie, halves of requests, lines that never end.
fn nonsense(random: &mut SmallRng) -> Vec<Vec<u8>> {
    let mut huge = vec![0xff, 0xff];
    huge.extend(bytes(1 << 17, random));
    let mut short = vec![0x00, 0x30];
    short.extend(bytes(5, random));
    let mut lines = bytes(4_096, random);
    lines.push(b'\n');
    let length = random.random_range(1..512);
    vec![
        Vec::new(),
        vec![0],
        vec![0; 3],
        bytes(length, random),
        huge,
        short,
        lines,
        b"{\"request\":\"status\"".to_vec(),
        b"{\"request\":\"move\",\"group\":7}\n[]\nnull\n{}\n".to_vec(),
        vec![b'['; 4_000],
        b"GET /metrics HTTP/1.1\r\n".to_vec(),
        [b"GET /".to_vec(), vec![b'a'; 70_000], b" HTTP/1.1\r\n\r\n".to_vec()].concat(),
        b"POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551615\r\n\r\nx".to_vec(),
    ]
}

fn bytes(length: usize, random: &mut SmallRng) -> Vec<u8> {
    let mut bytes = vec![0; length];
    random.fill_bytes(&mut bytes);
    bytes
}
