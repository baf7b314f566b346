//! Many bytes over one connection, compared at the end that receives them.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};

use super::{line::read_head, pattern};
use crate::netns::NetNs;

/// 100 MiB.
pub const USUAL_BYTES: u64 = 100 << 20;
const CHUNK: usize = 64 * 1024;
/// Nothing moved for so long: the transfer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the service.
    Upload,
    /// From the service.
    Download,
}

/// What a transfer consists of.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Address and port of the service.
    pub target: SocketAddr,
    /// Which way the bytes go.
    pub way: Way,
    /// How many.
    pub bytes: u64,
    /// Bytes a second that the client sends or takes at most, so that the transfer lasts; no limit if `None`.
    pub pace: Option<u64>,
}

/// A transfer that was completed, every byte right.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// From the request to the end of the answer.
    pub took: Duration,
    /// Bytes a second.
    pub rate: f64,
}

/// A transfer on its way.
#[derive(Debug)]
pub struct Transfer {
    moved: Arc<AtomicU64>,
    thread: JoinHandle<Result<Done>>,
}

impl Transfer {
    /// Starts a transfer from within `ns`.
    pub fn start(ns: &NetNs, spec: Spec) -> Result<Self> {
        let moved = Arc::new(AtomicU64::new(0));
        let (inside, ns) = (moved.clone(), ns.clone());
        let thread = thread::Builder::new().name("transfer".to_owned()).spawn(move || {
            ns.enter()?;
            match spec.way {
                Way::Upload => upload(spec, &inside),
                Way::Download => download(spec, &inside),
            }
        })?;
        Ok(Self { moved, thread })
    }

    /// Bytes that the client has sent or taken so far.
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Whether it has ended, well or not.
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end. An error if a byte was lost, doubled or changed, or the connection broke.
    pub fn finish(self) -> Result<Done> {
        let moved = self.moved();
        let done = self.thread.join().map_err(|_panic| anyhow!("the transfer's thread panicked"))?;
        done.map_err(|error| error.context(format!("the transfer broke off after {moved} bytes or more")))
    }
}

fn open(spec: Spec, request: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&spec.target, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

fn upload(spec: Spec, moved: &AtomicU64) -> Result<Done> {
    let began = Instant::now();
    let head = format!("PUT /bulk/{0} HTTP/1.1\r\nHost: vip\r\nContent-Length: {0}\r\n\r\n", spec.bytes);
    let mut stream = open(spec, &head)?;
    let mut offset = 0;
    while offset < spec.bytes {
        let limit = CHUNK.min(usize::try_from(spec.bytes - offset).unwrap_or(CHUNK));
        offset += stream.write(pattern::slice(offset, limit))? as u64;
        moved.store(offset, Ordering::Relaxed);
        keep_pace(spec, began, offset);
    }
    let (head, mut body) = read_head(&mut stream)?;
    let length = head.length.context("an answer without a length")?;
    while (body.len() as u64) < length {
        let mut more = [0; 256];
        let count = stream.read(&mut more)?;
        ensure!(count > 0, "the answer was cut short");
        body.extend_from_slice(&more[..count]);
    }
    let verdict = String::from_utf8_lossy(&body).into_owned();
    ensure!(verdict.ends_with(" same"), "the service received other bytes: {verdict}");
    Ok(done(spec, began))
}

fn download(spec: Spec, moved: &AtomicU64) -> Result<Done> {
    let began = Instant::now();
    let mut stream = open(spec, &format!("GET /bulk/{} HTTP/1.1\r\nHost: vip\r\n\r\n", spec.bytes))?;
    let (head, body) = read_head(&mut stream)?;
    let length = head.length.context("an answer without a length")?;
    ensure!(length == spec.bytes, "{length} bytes were offered instead of {}", spec.bytes);
    let mut offset = 0;
    let mut take = |bytes: &[u8]| {
        let difference = pattern::first_difference(offset, bytes);
        ensure!(difference.is_none(), "byte {} differs", offset + difference.unwrap_or(0) as u64);
        offset += bytes.len() as u64;
        ensure!(offset <= length, "more bytes came than were announced");
        moved.store(offset, Ordering::Relaxed);
        keep_pace(spec, began, offset);
        Ok(offset < length)
    };
    let mut more = take(&body)?;
    let mut buffer = vec![0; CHUNK];
    while more {
        let count = stream.read(&mut buffer)?;
        ensure!(count > 0, "the connection was closed in the middle");
        more = take(&buffer[..count])?;
    }
    Ok(done(spec, began))
}

fn keep_pace(spec: Spec, began: Instant, offset: u64) {
    if let Some(pace) = spec.pace {
        let due = Duration::from_secs_f64(offset as f64 / pace as f64);
        thread::sleep(due.saturating_sub(began.elapsed()));
    }
}

fn done(spec: Spec, began: Instant) -> Done {
    let took = began.elapsed();
    Done { took, rate: spec.bytes as f64 / took.as_secs_f64() }
}
