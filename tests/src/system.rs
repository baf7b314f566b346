//! What stands under test: Baton, or a peer, behind one trait, so that both meet the same faults and the same observers.

use std::time::Duration;

use anyhow::{Context, Result};
use baton::cluster::ids::Nanos;

use crate::{overlap::Tenure, process::Proc, topology::Lab};

/// A system that keeps a lab's VIPs alive. Nodes are named by their position in [`Lab::nodes`].
pub trait System {
    /// `baton`, `keepalived`.
    fn name(&self) -> &str;

    /// The setting that it runs with, such as `quick` or `0.01s-rt`.
    fn profile(&self) -> &str;

    /// The period of its timers: a fault comes at a random phase of it.
    fn period(&self) -> Duration;

    /// Its lease, for systems that have one: what a stall of the machine is compared with.
    fn lease(&self) -> Option<Duration>;

    /// How long a takeover may last before a trial counts it as none.
    fn patience(&self) -> Duration;

    /// Starts every member that does not run.
    fn start(&mut self, lab: &Lab) -> Result<()>;

    /// Whether all members run and the standby is ready to take over, as far as the system itself can tell.
    fn ready(&mut self, lab: &Lab) -> Result<bool>;

    /// The same, and nothing of an earlier planned move goes on any more.
    fn settled(&mut self, lab: &Lab) -> Result<bool> {
        self.ready(lab)
    }

    /// The node that owns the VIP, as the system itself tells it.
    fn owner(&mut self, lab: &Lab) -> Result<Option<usize>>;

    /// The process on a node.
    fn process(&mut self, node: usize) -> Option<&mut Proc>;

    /// The process on the arbiter; peers have none.
    fn arbiter_process(&mut self) -> Option<&mut Proc> {
        None
    }

    /// Asks for a planned move of the VIP, the way an operator does.
    fn planned_move(&mut self, lab: &Lab, from: usize, to: usize) -> Result<()>;

    /// Stops the asynchronous part of the member on `node`, its heartbeats go on. Peers have no such part.
    fn wedge(&mut self, lab: &Lab, node: usize) -> Result<()>;

    /// How often an owner was named since the first start: what grew without a fault is a false failover.
    fn takeovers(&mut self, lab: &Lab) -> Result<u64>;

    /// From when to when each node's kernel side let answers or new flows for the VIP pass, if the system records it.
    fn tenures(&mut self, lab: &Lab) -> Result<Option<Vec<Tenure>>>;

    /// What the members wrote, for the message of a failed test.
    fn logs(&mut self) -> String;

    /// Ends all members, orderly where they can.
    fn stop(&mut self) -> Result<()>;

    /// SIGKILL for the member on `node`.
    fn kill(&mut self, node: usize) -> Result<()> {
        self.process(node).context("no process there to kill")?.kill()
    }

    /// SIGSTOP for the member on `node`.
    fn pause(&mut self, node: usize) -> Result<()> {
        self.process(node).context("no process there to stop")?.pause()
    }

    /// SIGCONT for the member on `node`, if it still runs.
    fn resume(&mut self, node: usize) -> Result<()> {
        self.process(node).context("no process there to continue")?.resume()
    }
}

/// The sum of the lease's end, in nanoseconds, for comparisons with stalls: a quarter of it, or of the period.
pub fn stall_limit_ns(system: &dyn System) -> Nanos {
    let span = system.lease().unwrap_or_else(|| 4 * system.period());
    u64::try_from(span.as_nanos()).unwrap_or(Nanos::MAX) / 4
}
