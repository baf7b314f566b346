//! Questions and answers over UDP: each flow is one connected socket, and the server remembers each flow.
//!
//! An answer tells the node and how many questions of this flow it has seen: a flow that another node goes on with, which
//! knows nothing of it, is noticed.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};

use crate::{netns::NetNs, realtime, responder};

/// The port of the servers.
pub const PORT: u16 = 7008;
/// A question: number of the flow and of the question. An answer: the same, the node, and how many this flow has asked.
const QUESTION: usize = 16;
const ANSWER: usize = QUESTION + 1 + 8;
/// A question without an answer for so long is lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// Flows that a server remembers.
const FLOWS_MAX: usize = 1 << 16;

/// A running server; it ends when dropped.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers at `vip` in `ns` as `node`. The node need not have the address yet.
    pub fn start(ns: &NetNs, vip: IpAddr, node: u8) -> Result<Self> {
        let socket = ns.run(move || responder::bind_early(SocketAddr::new(vip, PORT)))??;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let inside = stop.clone();
        let thread = realtime::spawn(&format!("udp{node}"), realtime::LOAD, move || {
            Ok(move || {
                let mut seen: HashMap<SocketAddr, u64> = HashMap::new();
                let mut buffer = [0; ANSWER];
                while !inside.load(Ordering::Relaxed) {
                    let Ok((QUESTION, asker)) = socket.recv_from(&mut buffer) else { continue };
                    if seen.len() >= FLOWS_MAX && !seen.contains_key(&asker) {
                        continue;
                    }
                    let count = seen.entry(asker).or_default();
                    *count += 1;
                    buffer[QUESTION] = node;
                    buffer[QUESTION + 1..].copy_from_slice(&count.to_le_bytes());
                    // An answer that cannot be sent is a lost question: the client counts it.
                    socket.send_to(&buffer, asker).ok();
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

/// What became of the questions of all flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Questions sent.
    pub sent: u64,
    /// Questions never answered.
    pub lost: u64,
    /// Questions that could not be sent, or came back as an ICMP error.
    pub refused: u64,
    /// Flows that were answered by a node that had not seen the flow's earlier questions.
    pub strayed: u64,
    /// Answers by node.
    pub by: BTreeMap<u8, u64>,
}

/// Running flows; they end when dropped.
#[derive(Debug)]
pub struct Flows {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Report>>,
}

impl Flows {
    /// Starts `count` flows from within `ns`, each of which asks `target` once every `every`.
    pub fn start(ns: &NetNs, target: SocketAddr, count: usize, every: Duration) -> Result<Self> {
        let any: IpAddr = if target.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let sockets = ns.run(move || {
            let open = |_| {
                let socket = UdpSocket::bind((any, 0))?;
                socket.connect(target)?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            };
            (0..count).map(open).collect::<io::Result<Vec<_>>>()
        })?;
        let mut flows: Vec<Flow> =
            sockets.context("cannot make the flows")?.into_iter().zip(0..).map(|(s, n)| Flow::new(s, n)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let inside = stop.clone();
        let thread = thread::Builder::new().name("udp-flows".to_owned()).spawn(move || {
            let mut report = Report::default();
            let pause = (every / u32::try_from(flows.len().max(1)).unwrap_or(u32::MAX)).max(Duration::from_millis(1));
            let begin = Instant::now();
            let phase = |n: usize| begin + every.mul_f64(n as f64 / flows_len(count));
            let mut due: Vec<Instant> = (0..flows.len()).map(phase).collect();
            while !inside.load(Ordering::Relaxed) {
                for (flow, due) in flows.iter_mut().zip(&mut due) {
                    flow.take(&mut report);
                    if Instant::now() >= *due {
                        flow.ask(&mut report);
                        *due += every;
                    }
                }
                thread::sleep(pause.min(Duration::from_millis(2)));
            }
            let end = Instant::now() + PATIENCE;
            while Instant::now() < end && flows.iter().any(|f| !f.waiting.is_empty()) {
                flows.iter_mut().for_each(|flow| flow.take(&mut report));
                thread::sleep(Duration::from_millis(1));
            }
            report.lost += flows.iter().map(|f| f.waiting.len() as u64).sum::<u64>();
            report
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Asks no more, waits for the answers that are missing, and tells what became of all questions.
    pub fn finish(mut self) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("the flows have ended already")?;
        thread.join().map_err(|_panic| anyhow!("the thread of the flows panicked"))
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn flows_len(count: usize) -> f64 {
    count.max(1) as f64
}

struct Flow {
    socket: UdpSocket,
    number: u64,
    asked: u64,
    /// Questions that were answered so far by the node that answered last.
    known: Option<(u8, u64)>,
    waiting: BTreeMap<u64, Instant>,
}

impl Flow {
    fn new(socket: UdpSocket, number: u64) -> Self {
        Self { socket, number, asked: 0, known: None, waiting: BTreeMap::new() }
    }

    fn ask(&mut self, report: &mut Report) {
        let old = |at: &Instant| at.elapsed() > PATIENCE;
        let before = self.waiting.len();
        self.waiting.retain(|_, at| !old(at));
        report.lost += (before - self.waiting.len()) as u64;
        let mut question = [0; QUESTION];
        question[..8].copy_from_slice(&self.number.to_le_bytes());
        question[8..].copy_from_slice(&self.asked.to_le_bytes());
        report.sent += 1;
        match self.socket.send(&question) {
            Ok(_) => drop(self.waiting.insert(self.asked, Instant::now())),
            Err(_) => report.refused += 1,
        }
        self.asked += 1;
    }

    fn take(&mut self, report: &mut Report) {
        let mut answer = [0; ANSWER + 1];
        loop {
            match self.socket.recv(&mut answer) {
                Ok(ANSWER) => {}
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    report.refused += 1;
                    continue;
                }
                Err(_) => return,
            }
            let word = |at: usize| answer[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            let (flow, question, node, count) = (word(0), word(8), answer[QUESTION], word(QUESTION + 1));
            if flow != self.number || self.waiting.remove(&question).is_none() {
                continue;
            }
            *report.by.entry(node).or_default() += 1;
            if self.known.is_some_and(|(by, seen)| by != node || count < seen) {
                report.strayed += 1;
            }
            self.known = Some((node, count));
        }
    }
}
