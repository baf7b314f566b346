//! Sizes of memory as people write them, "4GiB", and numbers with up to three decimals.

/// The units: of 1,024 each.
const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

/// Reads "4GiB", "1.5 GiB", "512MiB", "65536KiB" as bytes. `None` for anything else, for what is no whole number of bytes, and for
/// what overflows. Units of 1,000 are not read: of "4GB" nobody knows which was meant.
pub fn parse(text: &str) -> Option<u64> {
    let (number, shift) = UNITS.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?.trim_end(), *shift)))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |s: &str| !s.is_empty() && s.len() <= 12 && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let parts = whole.parse::<u128>().ok()? * scale + fraction.parse::<u128>().ok()?;
    let bytes = parts << shift;
    u64::try_from(bytes / scale).ok().filter(|_| bytes.is_multiple_of(scale))
}

/// Reads "2", "0.5", "1.25" as thousandths. `None` for anything else, more decimals included.
pub fn thousandths(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |s: &str, most: usize| !s.is_empty() && s.len() <= most && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole, 9) || !digits(fraction, 3) {
        return None;
    }
    let below = fraction.parse::<u64>().ok()? * 10u64.pow(3 - u32::try_from(fraction.len()).ok()?);
    Some(whole.parse::<u64>().ok()? * 1_000 + below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read() {
        assert_eq!(parse("4GiB"), Some(4 << 30));
        assert_eq!(parse("1.5 GiB"), Some(3 << 29));
        assert_eq!(parse("512MiB"), Some(512 << 20));
        assert_eq!(parse("0KiB"), Some(0));
        assert_eq!(parse("16383TiB"), Some(16_383 << 40));
        for bad in ["", "4", "GiB", "4GB", "4G", "4gib", "-1GiB", ".5GiB", "1.GiB", "1e3MiB", "16777216TiB", "0.3KiB"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn decimals_are_exact() {
        for (text, value) in [("2", 2_000), ("0.5", 500), ("1.25", 1_250), ("2.0", 2_000), ("0.001", 1)] {
            assert_eq!(thousandths(text), Some(value), "{text}");
        }
        for bad in ["", "-1", "1.", ".5", "0.0001", "1e3", "inf", "9999999999", "+2"] {
            assert_eq!(thousandths(bad), None, "{bad:?}");
        }
    }
}
