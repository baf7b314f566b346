//! Servers that say who they are, and a client that checks every byte.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

const LIMIT: Duration = Duration::from_secs(20);
const CHUNK: usize = 64 * 1024;

/// The byte at a place of a stream.
fn pattern(at: usize) -> u8 {
    (at.wrapping_mul(31) >> 3) as u8
}

fn chunk(at: usize, length: usize) -> Vec<u8> {
    (at..at + length).map(pattern).collect()
}

/// Writes so many bytes of the pattern.
fn write(stream: &mut TcpStream, length: usize) -> std::io::Result<()> {
    for at in (0..length).step_by(CHUNK) {
        stream.write_all(&chunk(at, CHUNK.min(length - at)))?;
    }
    Ok(())
}

/// Reads so many bytes; true when they are the pattern.
fn read(stream: &mut TcpStream, length: usize) -> std::io::Result<bool> {
    let mut right = true;
    for at in (0..length).step_by(CHUNK) {
        let mut bytes = vec![0; CHUNK.min(length - at)];
        stream.read_exact(&mut bytes)?;
        right &= bytes == chunk(at, bytes.len());
    }
    Ok(right)
}

/// Serves requests on a connection until it ends: so many bytes up, then the name and whether they were right, so many down.
fn serve(mut stream: TcpStream, name: u8) -> std::io::Result<()> {
    loop {
        let mut lengths = [0; 8];
        stream.read_exact(&mut lengths)?;
        let [a, b, c, d, e, f, g, h] = lengths;
        let right = read(&mut stream, u32::from_le_bytes([a, b, c, d]) as usize)?;
        stream.write_all(&[name, u8::from(right)])?;
        write(&mut stream, u32::from_le_bytes([e, f, g, h]) as usize)?;
    }
}

/// Serves TCP and UDP at an address, on threads of the caller's network namespace that live as long as the test. UDP: the name,
/// and whether all was right; a short answer, which needs no path MTU.
pub fn start(address: SocketAddr, name: u8) {
    let listener = TcpListener::bind(address).expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream, name));
        }
    });
    let socket = UdpSocket::bind(address).expect("bound");
    thread::spawn(move || {
        let mut packet = vec![0; CHUNK];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            let right = packet[..length] == chunk(0, length);
            socket.send_to(&[name, u8::from(right)], from).ok();
        }
    });
}

/// A TCP client.
pub struct Stream(TcpStream);

impl Stream {
    /// Connects.
    pub fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&to, LIMIT).expect("connected");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        stream.set_write_timeout(Some(LIMIT)).expect("a limit");
        Self(stream)
    }

    /// Sends `up` bytes and takes `down`: the name of who served.
    pub fn ask(&mut self, up: usize, down: usize) -> char {
        let stream = &mut self.0;
        stream.write_all(&(up as u32).to_le_bytes()).expect("sent");
        stream.write_all(&(down as u32).to_le_bytes()).expect("sent");
        write(stream, up).expect("sent");
        let mut answer = [0; 2];
        stream.read_exact(&mut answer).expect("answered");
        assert_eq!(answer[1], 1, "what went up arrived whole");
        assert!(read(stream, down).expect("it comes down"), "what came down is whole");
        answer[0].into()
    }
}

/// A UDP client.
pub struct Datagrams(UdpSocket);

impl Datagrams {
    /// A socket of its own.
    pub fn open(to: SocketAddr) -> Self {
        let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).expect("bound");
        socket.connect(to).expect("connected");
        socket.set_read_timeout(Some(LIMIT)).expect("a limit");
        Self(socket)
    }

    /// Sends a datagram of a length; the name of who got it.
    pub fn ask(&self, length: usize) -> char {
        self.0.send(&chunk(0, length)).expect("sent");
        let mut answer = [0; 2];
        self.0.recv(&mut answer).expect("answered");
        assert_eq!(answer[1], 1, "it arrived whole");
        answer[0].into()
    }
}
