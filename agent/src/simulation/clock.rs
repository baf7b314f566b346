//! A machine's CLOCK_BOOTTIME as a line through true time: it starts at boot and runs at its own rate.

use crate::cluster::ids::Nanos;

/// An instant of true time, in nanoseconds since the simulation began. Only the world knows it.
pub type Instant = u64;

const MILLION: u128 = 1_000_000;

/// What adjtimex(2) allows either way: 10 % by the tick, 500 ppm by the frequency.
pub const DRIFT_PPM_MAX: u64 = 100_500;

/// A clock of one boot of one machine.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    rate_ppm: u64,
    booted: Instant,
    at_boot: Nanos,
}

impl Clock {
    /// A clock that shows `at_boot` at `booted` and runs `rate_ppm` millionths as fast as true time.
    pub const fn new(rate_ppm: u64, booted: Instant, at_boot: Nanos) -> Self {
        Self { rate_ppm, booted, at_boot }
    }

    /// What the clock shows at a true instant.
    pub fn local(&self, at: Instant) -> Nanos {
        let elapsed = u128::from(at.saturating_sub(self.booted)) * u128::from(self.rate_ppm) / MILLION;
        self.at_boot + u64::try_from(elapsed).unwrap_or(u64::MAX / 2)
    }

    /// The first true instant at which the clock shows `local` or more.
    pub fn instant(&self, local: Nanos) -> Instant {
        let elapsed = (u128::from(local.saturating_sub(self.at_boot)) * MILLION).div_ceil(u128::from(self.rate_ppm));
        self.booted.saturating_add(u64::try_from(elapsed).unwrap_or(u64::MAX / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inverse_is_the_first_instant() {
        for rate in [1_000_000 - DRIFT_PPM_MAX, 999_983, 1_000_000, 1_000_000 + DRIFT_PPM_MAX] {
            let clock = Clock::new(rate, 1_000, 5_000_000);
            for local in [5_000_001, 5_000_777, 123_456_789] {
                let at = clock.instant(local);
                assert!(clock.local(at) >= local);
                assert!(clock.local(at - 1) < local);
            }
        }
    }
}
