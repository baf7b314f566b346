//! One trial: a steady cluster, a fault at a random phase, what the client and the wire saw, and the repair.

use std::{str::FromStr, thread, time::Duration};

use anyhow::{Context, Result, anyhow};
use baton::{clock, cluster::ids::Nanos};
use rand::{Rng, SeedableRng, rngs::SmallRng};

use crate::{
    scene::{Overlap, Scene},
    topology::FRONT,
};

/// How a trial harms the owner, or the cluster around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The owner is cut off all networks; its own links stay up.
    CutOff,
    /// The owner's agent is killed.
    Kill,
    /// The owner's agent is stopped, and continued in the repair.
    Stop,
    /// The owner's front link goes down.
    FrontDown,
    /// The owner's whole backplane is cut off, its front stays.
    Backplane,
    /// The two nodes no longer hear each other over the backplane; both hear the arbiter.
    Partition,
    /// One of the owner's backplane links is cut off.
    OneLink,
    /// The owner hears nobody on the backplane.
    Deaf,
    /// Nobody hears the owner on the backplane.
    Mute,
    /// The agent's asynchronous part hangs, its heartbeats go on.
    Wedge,
    /// The arbiter's agent is killed.
    ArbiterDead,
    /// An operator asks for a move.
    Move,
}

/// What a fault should lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// Another node serves.
    Moves,
    /// The owner goes on.
    Stays,
    /// Either is right, as long as one serves.
    Serves,
}

const NAMES: [(Fault, &str); 12] = [
    (Fault::CutOff, "cut-off"),
    (Fault::Kill, "sigkill"),
    (Fault::Stop, "sigstop"),
    (Fault::FrontDown, "front-down"),
    (Fault::Backplane, "backplane"),
    (Fault::Partition, "partition"),
    (Fault::OneLink, "one-link"),
    (Fault::Deaf, "deaf"),
    (Fault::Mute, "mute"),
    (Fault::Wedge, "wedge"),
    (Fault::ArbiterDead, "arbiter"),
    (Fault::Move, "move"),
];

impl Fault {
    /// The fault's name on command lines and in tables.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(f, _)| *f == self).map_or("?", |(_, name)| name)
    }

    /// What it should lead to in a cluster with an arbiter.
    pub fn expectation(self) -> Expectation {
        match self {
            Self::OneLink | Self::ArbiterDead => Expectation::Stays,
            // Both still reach a majority: the lease is leaderless, so the owner may rightly go on.
            Self::Partition => Expectation::Serves,
            _ => Expectation::Moves,
        }
    }

    /// Does the harm.
    pub fn apply(self, scene: &mut Scene, owner: usize) -> Result<()> {
        let (lab, system) = (&scene.lab, &mut scene.system);
        let other = (owner + 1) % lab.nodes.len();
        let (name, wires, backplanes) = (lab.nodes[owner].name.as_str(), lab.wires(), lab.backplanes());
        match self {
            Self::CutOff => wires.cut_off(name, &lab.networks()),
            Self::Kill => system.kill(owner),
            Self::Stop => system.pause(owner),
            Self::FrontDown => wires.link_down(name, FRONT),
            Self::Backplane => wires.cut_off(name, &backplanes),
            Self::Partition => wires.cut_between(name, &lab.nodes[other].name, &backplanes),
            Self::OneLink => wires.cut_off(name, &backplanes[..1]),
            Self::Deaf => wires.deafen(name, &backplanes),
            Self::Mute => wires.mute(name, &backplanes),
            Self::Wedge => system.wedge(lab, owner),
            Self::ArbiterDead => system.arbiter_process().context("no arbiter runs")?.kill(),
            Self::Move => system.planned_move(lab, owner, other),
        }
    }

    /// Repairs the networks and starts what does not run.
    pub fn repair(self, scene: &mut Scene, owner: usize) -> Result<()> {
        scene.lab.wires().heal()?;
        match self {
            Self::Stop => scene.system.resume(owner)?,
            // A wedged agent does not come back by itself: whoever supervises it starts it anew.
            Self::Wedge => scene.system.kill(owner)?,
            _ => {}
        }
        scene.system.start(&scene.lab)
    }
}

impl FromStr for Fault {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let names = || NAMES.map(|(_, name)| name).join(", ");
        let found = NAMES.iter().find(|(_, name)| *name == text);
        found.map(|(fault, _)| *fault).ok_or_else(|| anyhow!("no fault is named `{text}`; there are {}", names()))
    }
}

/// What came of a trial.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The node that served before.
    pub before: usize,
    /// The node that served afterwards, or none within the system's patience.
    pub after: Option<usize>,
    /// The client's longest time without an answer, in nanoseconds.
    pub gap_ns: Nanos,
    /// Probes never answered.
    pub lost: u64,
    /// Two owners at once, from the fault to the end of the repair.
    pub overlap: Overlap,
    /// The machine's longest stall from the fault to the takeover, in nanoseconds.
    pub stall_ns: Nanos,
    /// When the fault was begun, on the project's clock: changing the networks takes up to 20 ms to take effect.
    pub harmed: Nanos,
}

/// How a trial is watched.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// How long the cluster may take to become steady, before the fault and after the repair.
    pub steady_limit: Duration,
    /// How long the fault goes on after the takeover, so that a second owner would be seen.
    pub linger: Duration,
}

impl Default for Watch {
    fn default() -> Self {
        Self { steady_limit: Duration::from_secs(60), linger: Duration::from_millis(300) }
    }
}

/// The node must have served alone for so long to count as the new owner.
const SERVED_NS: Nanos = 20_000_000;
/// The window of a report begins so long before the fault.
const LEAD_NS: Nanos = 10_000_000;

/// Runs a trial: waits for a steady cluster, harms, watches, repairs, and waits for a steady cluster again.
pub fn run(scene: &mut Scene, fault: Fault, watch: Watch) -> Result<Outcome> {
    let before = scene.steady(watch.steady_limit)?;
    let period = scene.system.period();
    thread::sleep(period.mul_f64(SmallRng::from_os_rng().random_range(0.0..2.0)));

    let start = clock::now();
    fault.apply(scene, before).with_context(|| format!("cannot bring about `{}`", fault.name()))?;
    let patience = scene.system.patience();
    let after = match fault.expectation() {
        Expectation::Moves => scene.served_by_another(before, SERVED_NS, patience).ok(),
        Expectation::Stays | Expectation::Serves => {
            thread::sleep(watch.linger);
            crate::wait::until_some(patience, "a node to serve", || Ok(scene.probe.steady_owner(SERVED_NS)))
                .ok()
                .map(usize::from)
        }
    };
    let taken = clock::now();
    thread::sleep(watch.linger);

    // The window of the client's report ends at the takeover: what the repair costs is another matter.
    let seen = scene.probe.report(start - LEAD_NS, taken);
    let stall_ns = scene.stall.worst(start, taken);
    fault.repair(scene, before)?;
    scene.steady(watch.steady_limit).with_context(|| format!("after the repair of `{}`", fault.name()))?;
    let overlap = scene.overlap(start, clock::now())?;
    Ok(Outcome { before, after, gap_ns: seen.gap_ns, lost: seen.lost, overlap, stall_ns, harmed: start })
}
