//! One connection of the load: non-blocking, one request at a time.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
};

use baton::cluster::ids::Nanos;
use mio::{Interest, Registry, Token, net::TcpStream};

use super::super::{
    message::{self, wrong},
    record::{Kind, NOBODY},
};

/// Bytes of an answer that are read at once; answers of a load are far shorter.
const READ: usize = 4096;

/// What a look at a connection found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing that matters.
    Nothing,
    /// It is made.
    Opened,
    /// The request was answered, by this node; `true` if the server announced to close.
    Answered(u8, bool),
    /// The server closed in order, with no request on the way.
    Closed,
}

#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    pub(super) kind: Kind,
    /// The long-lived connection's number.
    pub(super) slot: usize,
    pub(super) made: bool,
    /// When the request on the way was sent (for a new connection: when connect(2) was called); 0 for none.
    pub(super) began: Nanos,
    /// The server announced the end: only the close is awaited.
    pub(super) closing: bool,
    /// What the request asked to be repeated.
    question: String,
    output: Vec<u8>,
    input: Vec<u8>,
}

impl Connection {
    pub(super) fn connect(
        registry: &Registry,
        token: Token,
        target: SocketAddr,
        kind: Kind,
        slot: usize,
        now: Nanos,
    ) -> io::Result<Self> {
        let mut stream = TcpStream::connect(target)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let (question, output, input) = (String::new(), Vec::new(), Vec::new());
        Ok(Self { stream, kind, slot, made: false, began: now, closing: false, question, output, input })
    }

    /// Whether a request waits for its answer.
    pub(super) fn asked(&self) -> bool {
        !self.question.is_empty()
    }

    /// Sends a request whose answer must repeat `question`.
    pub(super) fn ask(&mut self, question: String, close: bool, now: Nanos) -> io::Result<()> {
        let end = if close { "Connection: close\r\n" } else { "" };
        self.output = format!("GET /echo/{question} HTTP/1.1\r\nHost: vip\r\n{end}\r\n").into_bytes();
        self.question = question;
        if self.kind == Kind::Kept {
            self.began = now;
        }
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        while self.made && !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Does what can be done now.
    pub(super) fn look(&mut self) -> io::Result<Found> {
        if !self.made {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            match self.stream.peer_addr() {
                Ok(_) => {
                    self.made = true;
                    self.stream.set_nodelay(true)?;
                    return Ok(Found::Opened);
                }
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(Found::Nothing),
                Err(error) => return Err(error),
            }
        }
        self.write()?;
        let mut buffer = [0; READ];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    return if self.asked() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(Found::Closed) };
                }
                Ok(count) => {
                    self.input.extend_from_slice(&buffer[..count]);
                    if let Some(found) = self.answer()? {
                        return Ok(found);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Found::Nothing),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The answer, once it is whole.
    fn answer(&mut self) -> io::Result<Option<Found>> {
        if !self.asked() {
            return Err(wrong("an answer without a question"));
        }
        let Some(head) = message::head(&self.input)? else { return Ok(None) };
        let length =
            head.length.and_then(|l| usize::try_from(l).ok()).ok_or_else(|| wrong("an answer without a length"))?;
        if self.input.len() < head.bytes + length {
            return Ok(None);
        }
        let body = std::str::from_utf8(&self.input[head.bytes..head.bytes + length]).map_err(|_| wrong("no text"))?;
        let (node, text) = body.split_once(' ').ok_or_else(|| wrong("an answer by nobody"))?;
        if head.status() != Some(200) || text != self.question || self.input.len() > head.bytes + length {
            return Err(wrong("the answer to another question"));
        }
        let by = node.parse().unwrap_or(NOBODY);
        self.closing = head.close;
        self.question.clear();
        self.input.clear();
        Ok(Some(Found::Answered(by, head.close)))
    }

    /// Takes it out of the registry: it is closed when dropped, in order if nothing unread is left.
    pub(super) fn forget(&mut self, registry: &Registry) {
        // It may be gone already, with the socket.
        registry.deregister(&mut self.stream).ok();
    }
}
