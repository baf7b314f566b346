//! One long-lived connection that a test holds in its hands: ask, upload, and know to the nanosecond how long it took.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use baton::{clock, cluster::ids::Nanos};

use super::{
    message::{self, wrong},
    pattern,
};
use crate::netns::NetNs;

const PATIENCE: Duration = Duration::from_secs(20);
const CHUNK: usize = 256 * 1024;

/// A connection to the load's server, or to a proxy in front of it.
#[derive(Debug)]
pub struct Line {
    stream: TcpStream,
    asked: u64,
}

/// An answer to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// From the sending to the end of the answer, in nanoseconds.
    pub took_ns: Nanos,
    /// The node that answered.
    pub by: usize,
}

impl Line {
    /// Connects from within `ns`.
    pub fn open(ns: &NetNs, target: SocketAddr) -> Result<Self> {
        let stream = ns.run(move || TcpStream::connect_timeout(&target, PATIENCE))?;
        let stream = stream.with_context(|| format!("cannot connect to {target}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, asked: 0 })
    }

    /// A short question and its answer.
    pub fn ask(&mut self) -> Result<Answer> {
        self.asked += 1;
        let request = format!("GET /echo/{} HTTP/1.1\r\nHost: vip\r\n\r\n", self.asked);
        let began = clock::now();
        self.stream.write_all(request.as_bytes()).context("the question could not be sent")?;
        let body = self.answer()?;
        let took_ns = clock::now().saturating_sub(began);
        let (by, text) = body.split_once(' ').context("an answer by nobody")?;
        ensure!(text == self.asked.to_string(), "the answer to another question: {body}");
        Ok(Answer { took_ns, by: by.parse()? })
    }

    /// Sends so many bytes, which the server compares. The result is how long it took until the server had all.
    pub fn upload(&mut self, bytes: u64) -> Result<Nanos> {
        let request = format!("PUT /bulk/{bytes} HTTP/1.1\r\nHost: vip\r\nContent-Length: {bytes}\r\n\r\n");
        let began = clock::now();
        self.stream.write_all(request.as_bytes()).context("the upload could not begin")?;
        let mut offset = 0;
        while offset < bytes {
            let limit = CHUNK.min(usize::try_from(bytes - offset).unwrap_or(CHUNK));
            offset += self.stream.write(pattern::slice(offset, limit)).context("the upload broke off")? as u64;
        }
        let verdict = self.answer()?;
        ensure!(verdict.ends_with(" same"), "the service received other bytes: {verdict}");
        Ok(clock::now().saturating_sub(began))
    }

    /// The body of an answer.
    fn answer(&mut self) -> Result<String> {
        let (head, mut body) = read_head(&mut self.stream).context("no answer came")?;
        let length = head.length.context("an answer without a length")?;
        while (body.len() as u64) < length {
            let mut more = [0; 1024];
            let count = self.stream.read(&mut more).context("the answer broke off")?;
            ensure!(count > 0, "the answer was cut short");
            body.extend_from_slice(&more[..count]);
        }
        Ok(String::from_utf8(body)?)
    }
}

/// The head of an answer that must be a 200, and what of its body came with it.
pub(super) fn read_head(stream: &mut TcpStream) -> io::Result<(message::Head, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(head) = message::head(&bytes)? {
            if head.status() != Some(200) {
                return Err(wrong("an answer that is no 200"));
            }
            let body = bytes.split_off(head.bytes);
            return Ok((head, body));
        }
        let mut more = [0; 4096];
        match stream.read(&mut more)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(&more[..count]),
        }
    }
}
