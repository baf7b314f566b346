//! Connections that change to another protocol and then stay silent, as WebSockets of an idle browser do.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{message, record::Reason};
use crate::netns::NetNs;

const PATIENCE: Duration = Duration::from_secs(5);

/// Upgraded connections.
#[derive(Debug)]
pub struct Idle {
    streams: Vec<TcpStream>,
}

impl Idle {
    /// Opens `count` connections to `target` from within `ns`, one after the other, and upgrades them.
    pub fn open(ns: &NetNs, target: SocketAddr, count: usize) -> Result<Self> {
        let streams = ns.run(move || (0..count).map(|_| open(target)).collect::<Result<_>>())??;
        Ok(Self { streams })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Sends a text of its own over each and reads it back. Returns those that failed, and why.
    pub fn exchange(&mut self, text: &str) -> Vec<(usize, Reason)> {
        let numbered = self.streams.iter_mut().enumerate();
        let tried = numbered.map(|(n, stream)| (n, exchange(stream, &format!("{text} {n}"))));
        tried.filter_map(|(n, result)| result.err().map(|error| (n, Reason::of(&error)))).collect()
    }
}

fn open(target: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /chat HTTP/1.1\r\nHost: vip\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")?;
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(head) = message::head(&bytes)? {
            break head;
        }
        // Byte by byte: what follows the head belongs to the other protocol.
        let mut byte = [0];
        stream.read_exact(&mut byte).context("no answer to the upgrade")?;
        bytes.extend(byte);
    };
    ensure!(head.status() == Some(101), "the upgrade was refused: {}", head.start);
    Ok(stream)
}

fn exchange(stream: &mut TcpStream, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).map_err(|error| match error.kind() {
        // What a socket with a time limit says.
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    })?;
    if answer == text.as_bytes() { Ok(()) } else { Err(message::wrong("another text came back")) }
}
