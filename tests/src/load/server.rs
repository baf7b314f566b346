//! The service that a load asks: HTTP/1.1 in one thread on a node, every answer tells the node.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /echo/TEXT` | `NODE TEXT` |
//! | `GET /bulk/BYTES` | so many bytes of the [`pattern`] |
//! | `PUT /bulk/BYTES` | `NODE same` if the body was the pattern, else `NODE differs at OFFSET` |
//! | `GET /chat` with `Connection: Upgrade` | 101, then every byte back |

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};
use socket2::{Domain, Socket, Type};

use super::{
    message::{self, wrong},
    pattern,
};
use crate::{netns::NetNs, realtime};

/// The port that it listens on, at all addresses.
pub const PORT: u16 = 8080;
const LISTENER: Token = Token(0);
const BACKLOG: i32 = 4096;
const CHUNK: usize = 256 * 1024;
/// Bytes that a connection moves before the others have their turn.
const TURN: usize = 4 * CHUNK;

/// A running server; it ends when dropped.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves on [`PORT`] in `ns`, over IPv4 and IPv6, as `node`.
    pub fn start(ns: &NetNs, node: u8) -> Result<Self> {
        let listener = ns.run(|| {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
            socket.set_only_v6(false)?;
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)).into())?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            io::Result::Ok(socket)
        })?;
        let listener = TcpListener::from_std(listener.context("cannot serve HTTP")?.into());
        let stop = Arc::new(AtomicBool::new(false));
        let inside = stop.clone();
        let mut serving = Serving::new(listener, node)?;
        let thread = realtime::spawn(&format!("server{node}"), realtime::LOAD, move || {
            Ok(move || {
                while !inside.load(Ordering::Relaxed) {
                    if let Err(error) = serving.turn() {
                        eprintln!("baton-lab: the load's server {node} ends: {error}");
                        return;
                    }
                }
            })
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

struct Serving {
    poll: Poll,
    events: Events,
    listener: TcpListener,
    connections: HashMap<Token, Connection>,
    next: usize,
    node: u8,
    /// Connections that had not done all they could when their turn ended.
    unfinished: Vec<Token>,
    scratch: Vec<u8>,
}

impl Serving {
    fn new(mut listener: TcpListener, node: u8) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let events = Events::with_capacity(1024);
        let (connections, unfinished) = (HashMap::new(), Vec::new());
        Ok(Self { poll, events, listener, connections, next: 1, node, unfinished, scratch: vec![0; CHUNK] })
    }

    /// Waits for something to do, for 100 ms at most, and does it.
    fn turn(&mut self) -> io::Result<()> {
        let wait = if self.unfinished.is_empty() { Duration::from_millis(100) } else { Duration::ZERO };
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        let mut ready: Vec<Token> = self.events.iter().map(|event| event.token()).collect();
        ready.append(&mut self.unfinished);
        ready.sort_unstable();
        ready.dedup();
        for token in ready {
            if token == LISTENER {
                self.accept()?;
                continue;
            }
            let Some(connection) = self.connections.get_mut(&token) else { continue };
            match connection.serve(self.node, &mut self.scratch) {
                Ok(Turn::Waits) => {}
                Ok(Turn::Unfinished) => self.unfinished.push(token),
                // How a client or a proxy ends its connection is its own affair: the client counts.
                Ok(Turn::Over) | Err(_) => drop(self.connections.remove(&token)),
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((mut stream, _)) => {
                    let token = Token(self.next);
                    self.next += 1;
                    stream.set_nodelay(true)?;
                    self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
                    self.connections.insert(token, Connection::new(stream));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // A client that hung up before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// How a connection's turn ended.
enum Turn {
    Waits,
    Unfinished,
    Over,
}

/// What a connection's input is.
enum Input {
    Requests,
    /// The body of an upload: (offset, end, first difference).
    Body(u64, u64, Option<u64>),
    Chat,
}

struct Connection {
    stream: TcpStream,
    input: Input,
    bytes: Vec<u8>,
    output: Vec<u8>,
    /// Pattern to send after `output`: from, to.
    bulk: (u64, u64),
    close: bool,
    ended: bool,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        let (bytes, output) = (Vec::new(), Vec::new());
        Self { stream, input: Input::Requests, bytes, output, bulk: (0, 0), close: false, ended: false }
    }

    fn serve(&mut self, node: u8, scratch: &mut [u8]) -> io::Result<Turn> {
        let mut moved = 0;
        loop {
            let written = self.write()?;
            let full = !self.output.is_empty() || self.bulk.0 < self.bulk.1;
            if self.close && !full {
                return Ok(Turn::Over);
            }
            let read = if full || self.ended { 0 } else { self.read(scratch)? };
            self.understand(node)?;
            moved += written + read;
            if written + read == 0 && (full || self.output.is_empty() && self.bulk.0 >= self.bulk.1) {
                return Ok(if self.ended && !full { Turn::Over } else { Turn::Waits });
            }
            if moved > TURN {
                return Ok(Turn::Unfinished);
            }
        }
    }

    /// Writes what it can; returns how many bytes that was.
    fn write(&mut self) -> io::Result<usize> {
        let mut total = 0;
        while !self.output.is_empty() || self.bulk.0 < self.bulk.1 {
            let from_bulk = self.output.is_empty();
            let limit = CHUNK.min(usize::try_from(self.bulk.1 - self.bulk.0).unwrap_or(CHUNK));
            let bytes = if from_bulk { pattern::slice(self.bulk.0, limit) } else { &self.output };
            match self.stream.write(bytes) {
                Ok(count) => {
                    total += count;
                    if from_bulk {
                        self.bulk.0 += count as u64;
                    } else {
                        self.output.drain(..count);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if total > TURN {
                break;
            }
        }
        Ok(total)
    }

    fn read(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
        match self.stream.read(scratch) {
            Ok(0) => {
                self.ended = true;
                Ok(0)
            }
            Ok(count) => {
                self.take(&scratch[..count]);
                Ok(count)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Bodies are compared as they come; all else waits to be understood.
    fn take(&mut self, mut fresh: &[u8]) {
        if let Input::Body(offset, end, difference) = &mut self.input {
            let body = fresh.len().min(usize::try_from(*end - *offset).unwrap_or(usize::MAX));
            if difference.is_none() {
                *difference = pattern::first_difference(*offset, &fresh[..body]).map(|at| *offset + at as u64);
            }
            *offset += body as u64;
            fresh = &fresh[body..];
        }
        self.bytes.extend_from_slice(fresh);
    }

    /// Answers what has come whole, one request at a time.
    fn understand(&mut self, node: u8) -> io::Result<()> {
        match self.input {
            Input::Chat => self.output.append(&mut self.bytes),
            Input::Body(offset, end, difference) if offset == end => {
                let verdict = difference.map_or_else(|| "same".to_owned(), |at| format!("differs at {at}"));
                self.input = Input::Requests;
                self.answer(&format!("{node} {verdict}"));
            }
            Input::Body(..) => {}
            Input::Requests => {
                let Some(head) = message::head(&self.bytes)? else { return Ok(()) };
                let rest = self.bytes.split_off(head.bytes);
                self.bytes.clear();
                self.close = head.close;
                let (method, target) = head.request().ok_or_else(|| wrong("no request"))?;
                match (method, target.split_at_checked(6).unwrap_or((target, ""))) {
                    ("GET", ("/echo/", text)) => self.answer(&format!("{node} {text}")),
                    ("GET", ("/bulk/", count)) => {
                        let count = count.parse().map_err(|_| wrong("no count of bytes"))?;
                        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {count}\r\n\r\n");
                        self.output.extend_from_slice(head.as_bytes());
                        self.bulk = (0, count);
                    }
                    ("PUT", ("/bulk/", _)) => {
                        let end = head.length.ok_or_else(|| wrong("an upload without a length"))?;
                        self.input = Input::Body(0, end, None);
                    }
                    ("GET", ("/chat", _)) if head.upgrade => {
                        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
                        self.output.extend_from_slice(answer.as_bytes());
                        self.input = Input::Chat;
                    }
                    _ => self.output.extend_from_slice(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
                }
                self.take(&rest);
                if !rest.is_empty() {
                    // What came behind the head may be whole already.
                    return self.understand(node);
                }
            }
        }
        Ok(())
    }

    fn answer(&mut self, body: &str) {
        let close = if self.close { "Connection: close\r\n" } else { "" };
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{close}\r\n{body}", body.len());
        self.output.extend_from_slice(text.as_bytes());
    }
}
