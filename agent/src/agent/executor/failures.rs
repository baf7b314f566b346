//! How often each resource has failed here of late, and how long a restart waits.

use std::collections::BTreeMap;

use crate::cluster::ids::{MILLISECOND, Nanos};

/// The longest pause before a restart.
const PAUSE_MAX: Nanos = 30_000 * MILLISECOND;
const SECOND: Nanos = 1_000 * MILLISECOND;
/// As many failures as are remembered; no threshold is higher.
const REMEMBERED: usize = 1_000;

/// The failures of a group's resources on this node.
#[derive(Debug, Default)]
pub(super) struct Failures {
    of: BTreeMap<usize, Vec<Nanos>>,
}

impl Failures {
    /// A resource has failed. Returns how often it has, those forgotten left out.
    pub fn note(&mut self, slot: usize, now: Nanos, forgotten_after: Nanos) -> u32 {
        let failures = self.of.entry(slot).or_default();
        failures.retain(|at| now.saturating_sub(*at) < forgotten_after);
        if failures.len() < REMEMBERED {
            failures.push(now);
        }
        u32::try_from(failures.len()).unwrap_or(u32::MAX)
    }

    /// How often it has failed, those forgotten left out.
    pub fn count(&self, slot: usize, now: Nanos, forgotten_after: Nanos) -> u32 {
        let failures = self.of.get(&slot).map_or(&[][..], Vec::as_slice);
        let remembered = failures.iter().filter(|at| now.saturating_sub(**at) < forgotten_after).count();
        u32::try_from(remembered).unwrap_or(u32::MAX)
    }

    /// Forgets those of one resource.
    pub fn forget(&mut self, slot: usize) {
        self.of.remove(&slot);
    }
}

/// How long to wait before the restart that follows the nth failure: none, then a second, and twice as long each time.
pub(super) fn pause(failures: u32) -> Nanos {
    match failures {
        0 | 1 => 0,
        n => SECOND.saturating_mul(1 << (n - 2).min(16)).min(PAUSE_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_forgotten_one_by_one() {
        let mut failures = Failures::default();
        assert_eq!(failures.note(0, SECOND, 10 * SECOND), 1);
        assert_eq!(failures.note(0, 5 * SECOND, 10 * SECOND), 2);
        assert_eq!(failures.note(1, 5 * SECOND, 10 * SECOND), 1);
        assert_eq!(failures.count(0, 11 * SECOND, 10 * SECOND), 1);
        assert_eq!(failures.note(0, 12 * SECOND, 10 * SECOND), 2);
        failures.forget(0);
        assert_eq!((failures.count(0, 12 * SECOND, 10 * SECOND), failures.count(1, 12 * SECOND, 10 * SECOND)), (0, 1));
    }

    #[test]
    fn a_restart_waits_longer_each_time() {
        assert_eq!([1, 2, 3, 4, 7, 8, 100].map(|n| pause(n) / SECOND), [0, 1, 2, 4, 30, 30, 30]);
    }
}
