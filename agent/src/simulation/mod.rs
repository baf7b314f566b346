//! The seeded simulation: the real cluster core of several voters in a world of its own.
//!
//! A seed decides everything: clocks that drift up to the bound, a network that delays, loses, duplicates, reorders and
//! cuts, slow and hanging disks, paused processes, stalled machines, crashes, restarts (planned ones too), orders, switches. Running a seed again gives the
//! same run, bit by bit. What is real: all of [`crate::cluster`]. What is modelled: the kernel side ([`kernel`], with
//! the arithmetic of crate `baton_ebpf`), raft ([`raft`], its differences from openraft are stated there), the driver and
//! the executor, which lag.
//!
//! Asserted at each step, in true time (`checker`): at most one node has an open gate and a valid lease for a group; logs and
//! states agree; epochs grow by one; a term has one leader; a group's resources stop before they start in a later epoch; a stopped group gets no owner, and one in maintenance no
//! other than that of a move under way. When
//! the faults stop, every group is served for good, by an owner that is not the leader where that is possible, no floor
//! is infinite, and nothing changes any more, all within [`RECOVERY_MAX_NS`].
//!
//! A machine that stalls as a whole keeps its clock running, as CLOCK_BOOTTIME does in a suspend. A virtual machine whose clock
//! stands still while it is paused may keep its lease after it resumes; docs/safety.md says so, and this is not simulated.

mod carry;
mod checker;
pub mod clock;
mod disk;
mod driver;
mod faults;
pub mod kernel;
mod log;
mod machine;
mod mutation;
mod network;
mod queue;
pub mod raft;
mod random;
mod recovery;
mod restarts;
mod runner;
mod setup;
mod strikes;
mod switches;
mod trace;
mod world;

pub use checker::{Statistics, Violation};
pub use mutation::Mutation;
pub use recovery::{RECOVERY_MAX_NS, REFUSAL_MAX_NS, SETTLED_MAX_NS};
pub use runner::{Summary, first_failing, main_loop};
pub use trace::LEGEND;

use world::World;

/// Most events of one run; more means that the world itself is broken.
const EVENTS_MAX: u64 = 20_000_000;

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many voters: 3 or 5 (any number up to 8 runs).
    pub voters: u8,
    /// How long the faults last, in nanoseconds of true time; `None`: 70 holds of the seed's profile.
    pub faults_ns: Option<u64>,
    /// A rule to leave out.
    pub mutation: Option<Mutation>,
}

impl Options {
    /// The real code, for the seed's own time.
    pub const fn new(voters: u8) -> Self {
        Self { voters, faults_ns: None, mutation: None }
    }

    /// The same with a rule left out.
    pub const fn without(self, mutation: Mutation) -> Self {
        Self { mutation: Some(mutation), ..self }
    }
}

/// The outcome of a seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The number of voters.
    pub voters: u8,
    /// What was violated, if anything was.
    pub violation: Option<Violation>,
    /// The numbers of the run.
    pub statistics: Statistics,
    /// The last lines before the violation; empty without one.
    pub trace: Vec<String>,
}

/// Runs a seed. A run that fails is run again with a trace, which the report carries.
pub fn run(seed: u64, options: &Options) -> Report {
    let report = run_once(seed, options, false);
    if report.violation.is_some() { run_once(seed, options, true) } else { report }
}

/// Runs a seed once, with a trace or without.
pub fn run_once(seed: u64, options: &Options, trace: bool) -> Report {
    let mut world = World::new(seed, options, trace);
    while !world.done
        && world.checker.violation.is_none()
        && let Some((at, event)) = world.queue.pop()
    {
        world.now = at;
        world.checker.statistics.events += 1;
        world.happen(event);
        if world.checker.statistics.events > EVENTS_MAX {
            world.checker.stuck(at, "the simulation does not come to an end".to_owned());
        }
    }
    if let Some(violation) = world.checker.violation.clone() {
        world.note(None, || format!("VIOLATION {}", violation.what));
    }
    Report {
        seed,
        voters: options.voters,
        violation: world.checker.violation,
        statistics: world.checker.statistics,
        trace: world.trace.into_lines(),
    }
}
