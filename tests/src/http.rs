//! A small HTTP back end for the demonstration, and a client that asks over new connections.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use baton::{clock, cluster::ids::Nanos};

use crate::netns::NetNs;

/// The port of a back end.
pub const PORT: u16 = 8080;
const REQUEST_LIMIT: Duration = Duration::from_secs(1);
/// A connection that is not made by then is given up: without this, a lost SYN costs a whole second.
const CONNECT_LIMIT: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(10);
const RESULTS_MAX: usize = 1 << 20;

/// A running back end or client; it ends when dropped.
#[derive(Debug)]
struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// A back end that answers every request with its name.
#[derive(Debug)]
pub struct BackEnd {
    _worker: Worker,
}

impl BackEnd {
    /// Serves on [`PORT`] in `ns`.
    pub fn start(ns: &NetNs, name: &str) -> Result<Self> {
        let listener = ns.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))?.context("cannot serve HTTP")?;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let inside = stop.clone();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{name}", name.len());
        let thread = thread::spawn(move || {
            while !inside.load(Ordering::Relaxed) {
                match listener.accept() {
                    // A client that hangs up early is its own affair.
                    Ok((stream, _)) => drop(serve(stream, &answer)),
                    Err(_) => thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        Ok(Self { _worker: Worker { stop, thread: Some(thread) } })
    }
}

fn serve(mut stream: TcpStream, answer: &str) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(REQUEST_LIMIT))?;
    let mut request = [0; 1024];
    if stream.read(&mut request)? > 0 {
        stream.write_all(answer.as_bytes())?;
    }
    Ok(())
}

/// A client that asks the VIP again and again, each time over a new connection.
#[derive(Debug)]
pub struct Asker {
    _worker: Worker,
    results: Arc<Mutex<Vec<(Nanos, bool)>>>,
}

/// What an [`Asker`] saw in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Requests answered with 200.
    pub answered: u64,
    /// Requests that failed.
    pub failed: u64,
}

impl Asker {
    /// Asks `vip` on port 80 from within `ns`.
    pub fn start(ns: &NetNs, vip: IpAddr) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let results = Arc::new(Mutex::new(Vec::new()));
        let (inside, ns, sink) = (stop.clone(), ns.clone(), results.clone());
        let thread = thread::spawn(move || {
            if ns.enter().is_err() {
                return;
            }
            while !inside.load(Ordering::Relaxed) {
                let began = clock::now();
                let good = ask(SocketAddr::new(vip, 80)).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"));
                let mut results = sink.lock().unwrap_or_else(PoisonError::into_inner);
                if results.len() < RESULTS_MAX {
                    results.push((began, good));
                }
                drop(results);
                thread::sleep(PAUSE);
            }
        });
        Ok(Self { _worker: Worker { stop, thread: Some(thread) }, results })
    }

    /// The requests that began in a window.
    pub fn report(&self, from: Nanos, to: Nanos) -> Asked {
        let results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        let mut asked = Asked::default();
        for (_, good) in results.iter().filter(|(began, _)| (from..=to).contains(began)) {
            if *good {
                asked.answered += 1;
            } else {
                asked.failed += 1;
            }
        }
        asked
    }
}

fn ask(target: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&target, CONNECT_LIMIT)?;
    stream.set_read_timeout(Some(REQUEST_LIMIT))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(answer)
}
