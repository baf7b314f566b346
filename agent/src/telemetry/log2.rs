//! Histograms by powers of two, as the BPF programs keep them: cheap to add to, good enough to read off a median.

use crate::cluster::ids::Nanos;

/// How many buckets there are.
pub const BUCKETS: usize = 32;

/// Counts of durations. Bucket `i` holds those from 2^i up to but not including 2^(i+1) nanoseconds; bucket 0 also holds
/// zero, the last one everything longer (2.1 s and more).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log2 {
    /// The counts.
    pub buckets: [u64; BUCKETS],
    /// The sum of all durations, if it was kept; otherwise it is estimated from the buckets.
    pub sum_ns: Option<u64>,
}

impl Log2 {
    /// From the kernel's counts.
    pub const fn from_buckets(buckets: [u64; BUCKETS]) -> Self {
        Self { buckets, sum_ns: None }
    }

    /// Counts one duration, and keeps the exact sum if the histogram was empty or has one.
    pub fn add(&mut self, nanos: Nanos) {
        if self.count() == 0 {
            self.sum_ns = Some(0);
        }
        self.buckets[bucket(nanos)] += 1;
        self.sum_ns = self.sum_ns.map(|s| s.saturating_add(nanos));
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// The sum in seconds: exact, or each counted in the middle of its bucket.
    pub fn sum_seconds(&self) -> f64 {
        match self.sum_ns {
            Some(sum) => seconds(sum),
            None => self.buckets.iter().enumerate().map(|(i, n)| *n as f64 * 1.5 * seconds(1 << i)).sum(),
        }
    }

    /// The duration below which the share `q` (0 to 1) of all lie, interpolated within its bucket; `None` if empty.
    pub fn quantile(&self, q: f64) -> Option<Nanos> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let wanted = (q.clamp(0.0, 1.0) * count as f64).max(1.0);
        let mut below = 0.0;
        for (i, n) in self.buckets.iter().enumerate().filter(|(_, n)| **n > 0) {
            let here = *n as f64;
            if below + here >= wanted {
                let low = if i == 0 { 0.0 } else { (1u64 << i) as f64 };
                let width = if i == 0 { 2.0 } else { low };
                return Some((low + width * (wanted - below) / here) as Nanos);
            }
            below += here;
        }
        None
    }

    /// Upper bounds in seconds and counts, for Prometheus: not cumulative, the finest buckets put together, none left out.
    pub fn exposition(&self) -> Vec<(f64, u64)> {
        /// 2^10 ns: below a microsecond nothing is told apart.
        const FIRST: usize = 9;
        let mut out = Vec::with_capacity(BUCKETS - FIRST);
        out.push((seconds(1 << (FIRST + 1)), self.buckets[..=FIRST].iter().sum()));
        for i in FIRST + 1..BUCKETS - 1 {
            out.push((seconds(1 << (i + 1)), self.buckets[i]));
        }
        out.push((f64::INFINITY, self.buckets[BUCKETS - 1]));
        out
    }
}

/// The bucket of a duration.
fn bucket(nanos: Nanos) -> usize {
    (nanos.max(1).ilog2() as usize).min(BUCKETS - 1)
}

/// Nanoseconds as seconds.
pub fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_bucket_of_their_highest_bit() {
        for (nanos, expected) in [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (1 << 31, 31), (u64::MAX, 31)] {
            assert_eq!(bucket(nanos), expected, "{nanos}");
        }
    }

    #[test]
    fn a_quantile_lies_in_the_bucket_that_holds_it() {
        let mut h = Log2::default();
        assert_eq!(h.quantile(0.5), None);
        for _ in 0..99 {
            h.add(5_000);
        }
        h.add(3_000_000);
        let median = h.quantile(0.5).unwrap();
        assert!((4_096..=8_192).contains(&median), "{median}");
        assert!((2_097_152..=4_194_304).contains(&h.quantile(1.0).unwrap()));
        assert_eq!(h.sum_ns, Some(99 * 5_000 + 3_000_000));
    }

    #[test]
    fn nothing_is_left_out_of_the_exposition_and_the_estimated_sum_is_near() {
        let mut buckets = [0; BUCKETS];
        for (i, b) in buckets.iter_mut().enumerate() {
            *b = i as u64 + 1;
        }
        let h = Log2::from_buckets(buckets);
        assert_eq!(h.exposition().iter().map(|(_, n)| n).sum::<u64>(), h.count());
        assert!(h.exposition().windows(2).all(|w| w[0].0 < w[1].0));
        let one = Log2 { buckets: std::array::from_fn(|i| u64::from(i == 12)), sum_ns: None };
        assert!((one.sum_seconds() - 6.144e-6).abs() < 1e-12);
    }
}
