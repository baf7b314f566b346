//! The simulation's only source of chance: SplitMix64, integers alone, so that a seed means the same on every machine.

/// A small deterministic generator. Not for anything but simulation.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator for a seed and a purpose; different purposes of one seed are independent streams.
    pub fn new(seed: u64, purpose: u64) -> Self {
        let mut random = Self(seed ^ purpose.wrapping_mul(0xA24B_AED4_963E_E407));
        // Neighbouring seeds must not give neighbouring streams.
        let _warm = (random.draw(), random.draw());
        random
    }

    /// The next 64 bits (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators).
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound` (0 for a bound of 0). The bias of the modulus is of no matter here.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.draw() % bound }
    }

    /// A number from `low` to `high`, both included.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True once in a thousand times `per_mille`.
    pub fn per_mille(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// Every order of magnitude between `low` and `high` is equally likely.
    pub fn spread(&mut self, low: u64, high: u64) -> u64 {
        let low = low.max(1);
        let octaves = u64::from((high / low).max(1).ilog2());
        let base = low << self.below(octaves + 1);
        (base + self.below(base)).min(high)
    }

    /// An index into something of `len` elements.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_stream_and_bounds_hold() {
        let (mut a, mut b, mut c) = (Random::new(7, 1), Random::new(7, 1), Random::new(7, 2));
        assert_eq!(a.draw(), b.draw());
        assert_ne!(a.draw(), c.draw());
        for _ in 0..1000 {
            assert!((3..=9).contains(&a.range(3, 9)));
            assert!((10..=1000).contains(&a.spread(10, 1000)));
            assert_eq!(a.below(0), 0);
        }
    }
}
