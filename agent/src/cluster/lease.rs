//! The arithmetic of the hold: how long a voter waits before it may promise (docs/safety.md, rules 2 and 5).

use super::{ids::Nanos, mutations::Mutations, timing::Timing};

/// The instants from which a voter's hold for one node counts; the newest counts. All on the voter's own clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    /// R: when this voter last acknowledged the node. Read after the floor was raised.
    pub last_acknowledged: Nanos,
    /// Since when this voter's own timer has been punctual: a late one starts all holds afresh.
    pub punctual_since: Nanos,
    /// When this core started: an earlier incarnation may have acknowledged until then.
    pub started: Nanos,
    /// When this voter's own barrier was applied here.
    pub barrier: Nanos,
    /// When the last conclusion about the node was applied here, so that rounds never chase each other.
    pub concluded: Nanos,
}

impl Hold {
    /// The instant from which the hold counts.
    pub fn base(&self, m: &Mutations) -> Nanos {
        if m.skip_hold_after_barrier {
            return self.last_acknowledged;
        }
        let restarted = self.started.max(self.barrier);
        self.last_acknowledged.max(self.punctual_since).max(self.concluded).max(restarted)
    }

    /// The first instant at which the hold is over.
    pub fn end(&self, hold_ns: Nanos, m: &Mutations) -> Nanos {
        self.base(m).saturating_add(hold_ns)
    }
}

/// The hold for the longest lease that may have been granted: the configured one, or the one in the log.
pub fn hold_ns(timing: &Timing, lease_in_log_ns: Nanos) -> Nanos {
    Timing { lease_ns: timing.lease_ns.max(lease_in_log_ns), ..*timing }.hold_ns()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::ids::MILLISECOND;

    #[test]
    fn the_newest_instant_counts() {
        let m = Mutations::default();
        let zero = Hold::default();
        assert_eq!(zero.base(&m), 0);
        for hold in [
            Hold { last_acknowledged: 7, ..zero },
            Hold { punctual_since: 7, ..zero },
            Hold { started: 7, ..zero },
            Hold { barrier: 7, ..zero },
            Hold { concluded: 7, ..zero },
        ] {
            assert_eq!(hold.base(&m), 7);
            assert_eq!(hold.end(10, &m), 17);
        }
    }

    #[test]
    fn the_hold_outlasts_the_fastest_holder() {
        // The lease on a clock 10 % and 500 ppm slow, seen from a clock 10 % and 500 ppm fast, per million.
        for lease in [4, 16, 50, 1000] {
            let lease = lease * MILLISECOND;
            let seen = u128::from(lease) * 1_100_500 / 899_500;
            assert!(u128::from(Timing::of(MILLISECOND, lease).hold_ns()) > seen);
        }
    }

    #[test]
    fn the_longer_lease_counts() {
        let t = Timing::QUICK;
        assert_eq!(hold_ns(&t, 0), t.hold_ns());
        assert_eq!(hold_ns(&t, Timing::DEFAULT.lease_ns), Timing::DEFAULT.hold_ns());
    }
}
