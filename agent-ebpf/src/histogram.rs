//! Histograms with one bucket a power of two, in nanoseconds.

use crate::word::Word;

/// Buckets of a histogram.
pub const BUCKETS: usize = 32;

/// A histogram: bucket b counts values in [2^b, 2^(b+1)) ns, bucket 0 also 0, the last one everything above 2.1 s.
#[repr(C)]
#[derive(Debug)]
pub struct Histogram {
    /// The counts.
    pub buckets: [Word; BUCKETS],
}

impl Histogram {
    /// Counts `value`.
    #[inline(always)]
    pub fn record(&self, value: u64) {
        if let Some(word) = self.buckets.get(bucket(value)) {
            word.add(1);
        }
    }
}

/// The bucket of `value`, always below [`BUCKETS`].
#[inline(always)]
pub fn bucket(value: u64) -> usize {
    if value >> 31 != 0 {
        return BUCKETS - 1;
    }
    // A binary search by hand: the BPF target has no instruction that counts leading zeros.
    let mut v = value;
    let mut b = 0;
    if v >> 16 != 0 {
        v >>= 16;
        b += 16;
    }
    if v >> 8 != 0 {
        v >>= 8;
        b += 8;
    }
    if v >> 4 != 0 {
        v >>= 4;
        b += 4;
    }
    if v >> 2 != 0 {
        v >>= 2;
        b += 2;
    }
    if v >> 1 != 0 {
        b += 1;
    }
    b & (BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, bucket};

    #[test]
    fn buckets_are_powers_of_two() {
        assert_eq!(bucket(0), 0);
        for b in 0..BUCKETS - 1 {
            assert_eq!(bucket(1 << b), b);
            assert_eq!(bucket((2u64 << b) - 1), b);
        }
        assert_eq!(bucket(1 << 40), BUCKETS - 1);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }
}
