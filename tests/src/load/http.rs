//! The HTTP load: long-lived connections that each ask at a fixed period, and new connections at a steady rate.
//!
//! One thread in the client's namespace, one request at a time on a connection. Every answer is compared with its question.
//! Connections are opened one after the other at first, so that the load itself overruns nobody's accept queue.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use baton::{clock, cluster::ids::Nanos};

use super::{
    netstat::Tcp,
    record::{Event, Kind, Record},
    report::Report,
};
use crate::{netns::NetNs, realtime, wait};

mod connection;
mod engine;

use engine::Engine;

/// Records that are kept: ten minutes of the usual load.
const RECORDS_MAX: usize = 1 << 23;
/// A request without an answer for so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What a load consists of.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Address and port of the service.
    pub target: SocketAddr,
    /// Long-lived connections.
    pub kept: usize,
    /// Between two requests on each of them.
    pub every: Duration,
    /// New connections a second, each for one request.
    pub fresh_per_second: u32,
    /// The long-lived connections are opened over so long a time, the new ones follow.
    pub ramp: Duration,
}

impl Spec {
    /// The usual load: 500 connections that ask every 50 ms, and 200 new ones a second.
    pub fn usual(target: SocketAddr) -> Self {
        let (every, ramp) = (Duration::from_millis(50), Duration::from_secs(2));
        Self { target, kept: 500, every, fresh_per_second: 200, ramp }
    }

    /// The same with a part of the connections.
    #[must_use]
    pub fn scaled(mut self, part: f64) -> Self {
        self.kept = (self.kept as f64 * part).ceil() as usize;
        self.fresh_per_second = (f64::from(self.fresh_per_second) * part).ceil() as u32;
        self
    }
}

/// A running load; it ends when dropped.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the load's thread and its owner share.
#[derive(Debug, Default)]
struct Shared {
    /// No further request is begun.
    finish: AtomicBool,
    /// All of it ends at once.
    stop: AtomicBool,
    /// Long-lived connections that have had an answer.
    alive: AtomicU64,
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    records: Vec<Record>,
    /// Records that found no room.
    dropped: u64,
    /// Counters of the client's TCP by time, oldest first.
    tcp: Vec<(Nanos, Tcp)>,
    /// (when a request was due, when it was sent): those that were worse than all in the 100 ms before.
    late: Vec<(Nanos, Nanos)>,
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, kind: Kind, event: Event) {
        let mut log = self.log();
        if log.records.len() < RECORDS_MAX {
            log.records.push(Record { at: clock::now(), kind, event });
        } else {
            log.dropped += 1;
        }
    }
}

impl Load {
    /// Starts the load in `ns`.
    pub fn start(ns: &NetNs, spec: Spec) -> Result<Self> {
        super::raise_file_limit()?;
        let shared = Arc::new(Shared::default());
        let (inside, ns) = (shared.clone(), ns.clone());
        let thread = realtime::spawn("load", realtime::LOAD, move || {
            ns.enter()?;
            let mut engine = Engine::new(spec, inside)?;
            Ok(move || {
                if let Err(error) = engine.run() {
                    eprintln!("baton-lab: the load ends: {error:#}");
                }
            })
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Waits until every long-lived connection has had an answer.
    pub fn ready(&self, spec: &Spec, limit: Duration) -> Result<()> {
        let alive = || self.shared.alive.load(Ordering::Relaxed);
        wait::until(limit, "all connections of the load to be answered", || Ok(alive() >= spec.kept as u64))
            .with_context(|| format!("{} of {} connections were answered", alive(), spec.kept))
    }

    /// What the client saw in a window of time. Its end should be old enough for the last answers to have come.
    pub fn report(&self, from: Nanos, to: Nanos) -> Result<Report> {
        let log = self.shared.log();
        if log.dropped > 0 {
            return Err(anyhow!("{} records found no room: the load ran for too long", log.dropped));
        }
        let mut report = Report::of(&log.records, from, to)?;
        let at = |instant: Nanos| {
            let before = log.tcp.iter().rev().find(|(at, _)| *at <= instant).or(log.tcp.first());
            before.map(|(_, tcp)| *tcp).unwrap_or_default()
        };
        // Counted every 100 ms: the window's end takes the first count after it, so that nothing in it is missed.
        let end = log.tcp.iter().find(|(at, _)| *at >= to).or(log.tcp.last()).map(|(_, tcp)| *tcp).unwrap_or_default();
        report.tcp = end.since(&at(from));
        let late = log.late.iter().filter(|(_, sent)| (from..to).contains(sent));
        report.late_ns = late.map(|(due, sent)| sent.saturating_sub(*due)).max().unwrap_or(0);
        Ok(report)
    }

    /// When the first request that `node` answered over a connection of this kind was answered, from `from` on.
    pub fn first_answer(&self, from: Nanos, kind: Kind, node: usize) -> Option<Nanos> {
        let log = self.shared.log();
        let by_node = |event| matches!(event, Event::Answered { by, .. } if usize::from(by) == node);
        log.records.iter().filter(|r| r.at >= from && r.kind == kind).find(|r| by_node(r.event)).map(|r| r.at)
    }

    /// Begins no further request, waits for the answers that are missing, and reports on everything since `from`.
    pub fn finish(mut self, from: Nanos) -> Result<Report> {
        self.shared.finish.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_panic| anyhow!("the load's thread panicked"))?;
        }
        // The end of the window is the last thing that happened: silence after the end is no gap.
        let to = self.shared.log().records.last().map_or(from, |r| r.at + 1);
        self.report(from, to)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
