//! Order statistics of a handful of values: exact, no buckets.

/// The value at a quantile by nearest rank, or 0 without values.
pub fn quantile(values: &[u64], q: f64) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// The middle value; the mean of the two middle ones of an even number.
pub fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => 0,
        n if n % 2 == 1 => sorted[half],
        _ => sorted[half - 1].midpoint(sorted[half]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_statistics() {
        assert_eq!((median(&[]), quantile(&[], 0.95)), (0, 0));
        assert_eq!((median(&[7]), quantile(&[7], 0.95)), (7, 7));
        assert_eq!((median(&[3, 1, 2]), median(&[4, 1, 3, 2])), (2, 2));
        let hundred: Vec<u64> = (1..=100).rev().collect();
        assert_eq!((quantile(&hundred, 0.95), quantile(&hundred, 1.0), quantile(&hundred, 0.0)), (95, 100, 1));
    }
}
