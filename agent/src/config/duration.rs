//! Durations as people write them: a number and a unit, "10ms".

use crate::cluster::ids::Nanos;

/// The units, longest spelling first so that "ms" is not read as "m" and "s".
const UNITS: [(&str, u64); 6] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads "10ms", "1.5ms", "500us", "2s", "5m", "1h". `None` for anything else, and for what overflows.
pub fn parse(text: &str) -> Option<Nanos> {
    let (number, scale) = UNITS.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?.trim_end(), *scale)))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |s: &str| !s.is_empty() && s.len() <= 18 && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let fraction_scale = 10u64.pow(u32::try_from(fraction.len()).ok()?);
    let below = u128::from(fraction.parse::<u64>().ok()?) * u128::from(scale) / u128::from(fraction_scale);
    whole.parse::<u64>().ok()?.checked_mul(scale)?.checked_add(u64::try_from(below).ok()?)
}

/// Writes a duration with the largest unit that keeps it readable: "10ms", "1.5ms", "42us".
pub fn show(nanos: Nanos) -> String {
    let (unit, scale) = match nanos {
        0..1_000 => ("ns", 1),
        1_000..1_000_000 => ("us", 1_000),
        1_000_000..1_000_000_000 => ("ms", 1_000_000),
        _ => ("s", 1_000_000_000),
    };
    let (whole, rest) = (nanos / scale, nanos % scale);
    let thousandths = if scale == 1 { 0 } else { rest * 1_000 / scale };
    match thousandths {
        0 => format!("{whole}{unit}"),
        t => format!("{whole}.{}{unit}", format!("{t:03}").trim_end_matches('0')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read() {
        assert_eq!(parse("10ms"), Some(10_000_000));
        assert_eq!(parse("1.5ms"), Some(1_500_000));
        assert_eq!(parse("500us"), Some(500_000));
        assert_eq!(parse("2 s"), Some(2_000_000_000));
        assert_eq!(parse("10m"), Some(600_000_000_000));
        assert_eq!(parse("1.5h"), Some(5_400_000_000_000));
        for bad in
            ["", "10", "ms", "-1ms", "1.ms", ".5ms", "10d", "1e3ms", "99999999999999999999s", "18446744073709551615s"]
        {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for n in [0, 7, 999, 1_500, 42_000, 1_500_000, 10_000_000, 2_000_000_000, 61_001_000_000] {
            assert_eq!(parse(&show(n)), Some(n), "{}", show(n));
        }
    }
}
