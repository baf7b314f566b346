//! The time constants of the lease, and the arithmetic between them (docs/safety.md, rules 1 to 3).

use serde::{Deserialize, Serialize};

use super::ids::{MILLISECOND, Nanos};

/// The intervals that all voters of a cluster share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// Between two heartbeats on one link.
    pub interval_ns: Nanos,
    /// How long a lease lasts after the departure of the newest acknowledged heartbeat.
    pub lease_ns: Nanos,
    /// A token of progress that stands still for this long marks an agent as wedged.
    pub wedge_ns: Nanos,
}

impl Timing {
    /// What virtual machines bear: 10 ms beats, 50 ms lease.
    pub const DEFAULT: Self = Self::of(10 * MILLISECOND, 50 * MILLISECOND);
    /// Steady hardware: 4 ms beats, 16 ms lease.
    pub const QUICK: Self = Self::of(4 * MILLISECOND, 16 * MILLISECOND);
    /// Isolated, realtime hardware: 1 ms beats, 4 ms lease.
    pub const FAST: Self = Self::of(MILLISECOND, 4 * MILLISECOND);

    /// Timing from an interval and a lease, with the wedge bound that follows from them.
    pub const fn of(interval_ns: Nanos, lease_ns: Nanos) -> Self {
        let by_lease = 8 * lease_ns;
        let floor = 200 * MILLISECOND;
        Self { interval_ns, lease_ns, wedge_ns: if by_lease > floor { by_lease } else { floor } }
    }

    /// How long a voter waits after its last acknowledgement before it may promise: 1.25 L + 0.5 ms.
    ///
    /// adjtimex(2) lets two clocks run apart by a ratio below 1.23, so the other side's lease has ended by then.
    pub const fn hold_ns(&self) -> Nanos {
        self.lease_ns + self.lease_ns / 4 + MILLISECOND / 2
    }
}

/// How many of `voters` make a majority.
pub const fn majority(voters: usize) -> usize {
    voters / 2 + 1
}
