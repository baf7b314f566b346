//! What steering costs a flow: latency beside a round trip over the backplane, and the throughput of an upload.
//!
//! In the middle of a drain one connection lives on the old owner, so that what it sends passes the new owner and the
//! backplane, and another on the new owner, so that it doesn't. Both are asked in turns, and so is the backplane.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use baton::{clock, cluster::ids::Nanos};
use baton_lab::{
    baton::{Baton, GROUP, Profile},
    gates,
    load::{
        line::Line,
        server,
        stage::{Proxied, Stage, at_vips},
    },
    topology::{Machine, Spec},
};

use crate::stats::{median, quantile};

const LIMIT: Duration = Duration::from_secs(60);
const ECHO_PORT: u16 = 7009;
const UPLOAD_BYTES: u64 = 100 << 20;
/// Rounds that are not counted: caches and windows grow first.
const WARM_UP: usize = 50;

/// What was measured, in nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct Steering {
    /// A question over the connection that isn't steered, and its answer.
    direct: Vec<Nanos>,
    /// The same over the steered one.
    steered: Vec<Nanos>,
    /// A datagram over the backplane and back, from one program to the other.
    backplane: Vec<Nanos>,
    /// 100 MiB that are not steered.
    upload_direct: Vec<Nanos>,
    /// 100 MiB that are.
    upload_steered: Vec<Nanos>,
}

/// Measures so many rounds of questions, and of uploads.
pub fn measure(profile: &Profile, rounds: usize, uploads: usize) -> Result<Steering> {
    let agents = Baton::new(profile.clone(), gates::INSPECT);
    let mut stage = Stage::new(Spec::usual("steering"), Box::new(agents), Proxied::No)?;
    let old = stage.steady(LIMIT)?;
    let (client, target) = (stage.client()?, at_vips(server::PORT)[0]);
    let mut steered = Line::open(&client, target)?;
    ensure!(steered.ask()?.by == old, "the owner does not answer");
    let (owner, standby) = (&stage.lab.nodes[old], &stage.lab.nodes[1 - old]);
    let desk = stage.lab.arbiter.as_ref().context("the lab has no arbiter")?;
    Baton::command(&stage.lab, desk, &["move", "--no-drain", GROUP, &standby.name])?;
    let mut direct = Line::open(&client, target)?;
    ensure!(direct.ask()?.by == 1 - old && steered.ask()?.by == old, "flows are not where they should be");

    let echo = Echo::start(owner)?;
    let backplane = echo.line(standby)?;
    let mut found = Steering::default();
    let before = gates::counters(&stage.lab, 1 - old)?.steered;
    for round in 0..rounds + WARM_UP {
        let took = [direct.ask()?.took_ns, steered.ask()?.took_ns, ask(&backplane)?];
        if round >= WARM_UP {
            found.direct.push(took[0]);
            found.steered.push(took[1]);
            found.backplane.push(took[2]);
        }
    }
    for _ in 0..uploads {
        found.upload_direct.push(direct.upload(UPLOAD_BYTES)?);
        found.upload_steered.push(steered.upload(UPLOAD_BYTES)?);
    }
    let passed = gates::counters(&stage.lab, 1 - old)?.steered - before;
    ensure!(passed >= rounds as u64, "only {passed} packets were steered");
    ensure!(steered.ask()?.by == old, "the steered connection went elsewhere");
    Ok(found)
}

impl Steering {
    /// Lines for people on standard error.
    pub fn print(&self) {
        let us = |values: &[Nanos], q: f64| format!("{:.1}", quantile(values, q) as f64 / 1e3);
        let line = |what: &str, values: &[Nanos]| {
            eprintln!("  {what}: median {} µs, p99 {} µs", us(values, 0.5), us(values, 0.99));
        };
        eprintln!("steering, {} questions of each kind in turns:", self.direct.len());
        line("question and answer, not steered", &self.direct);
        line("question and answer, steered", &self.steered);
        line("round trip over the backplane, program to program", &self.backplane);
        let added = median(&self.steered) as f64 - median(&self.direct) as f64;
        let trip = median(&self.backplane) as f64;
        eprintln!(
            "  added by steering: {:.1} µs, {:.2} of a backplane round trip (target: ≤ 1)",
            added / 1e3,
            added / trip
        );
        let rate = |values: &[Nanos]| UPLOAD_BYTES as f64 / (1 << 20) as f64 / (median(values) as f64 / 1e9);
        let (direct, steered) = (rate(&self.upload_direct), rate(&self.upload_steered));
        eprintln!(
            "  upload of 100 MiB, {} of each kind in turns: {direct:.0} MiB/s not steered, {steered:.0} MiB/s steered, {:.0} % \
             (target: ≥ 90 %)",
            self.upload_direct.len(),
            100.0 * steered / direct
        );
    }
}

/// A program that sends datagrams back over the backplane.
struct Echo {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn start(machine: &Machine) -> Result<Self> {
        let address = SocketAddr::new((*machine.backplane.first().context("no backplane")?).into(), ECHO_PORT);
        let socket = machine.ns.run(move || UdpSocket::bind(address))??;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let inside = stop.clone();
        let thread = thread::spawn(move || {
            let mut bytes = [0; 64];
            while !inside.load(Ordering::Relaxed) {
                if let Ok((count, asker)) = socket.recv_from(&mut bytes) {
                    // An answer that is not sent ends the measurement, by the asker's time limit.
                    socket.send_to(&bytes[..count], asker).ok();
                }
            }
        });
        Ok(Self { address, stop, thread: Some(thread) })
    }

    fn line(&self, from: &Machine) -> Result<UdpSocket> {
        let (to, own) = (self.address, *from.backplane.first().context("no backplane")?);
        let socket = from.ns.run(move || UdpSocket::bind((own, 0)).and_then(|s| s.connect(to).map(|()| s)))??;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        Ok(socket)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn ask(socket: &UdpSocket) -> Result<Nanos> {
    let began = clock::now();
    socket.send(&[1; 16])?;
    socket.recv(&mut [0; 64]).context("nothing came back over the backplane")?;
    Ok(clock::now().saturating_sub(began))
}
