//! Amounts of memory as people write them: a number and a unit, "512MiB".

/// The units; a bare number is bytes.
const UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads "512MiB", "4 GiB", "65536B". `None` for anything else, and for what overflows.
pub fn parse(text: &str) -> Option<u64> {
    let (number, scale) = UNITS.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?.trim_end(), *scale)))?;
    let digits = !number.is_empty() && number.len() <= 18 && number.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| number.parse::<u64>().ok()?.checked_mul(scale)).flatten()
}

/// Writes an amount with the largest unit that leaves no fraction.
pub fn show(bytes: u64) -> String {
    let (unit, scale) = UNITS.iter().find(|(_, scale)| bytes > 0 && bytes.is_multiple_of(*scale)).unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read_and_reads_back() {
        for (text, bytes) in
            [("512MiB", 512 << 20), ("4 GiB", 4 << 30), ("0B", 0), ("65537B", 65_537), ("1TiB", 1 << 40)]
        {
            assert_eq!(parse(text), Some(bytes), "{text}");
            assert_eq!(parse(&show(bytes)), Some(bytes));
        }
        for bad in ["", "12", "MiB", "-1MiB", "1.5GiB", "1GB", "9999999999999999999B", "99999999999999999TiB"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
