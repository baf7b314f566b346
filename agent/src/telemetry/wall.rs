//! The wall clock, for people: instants since 1970 as dates.

/// A wall-clock instant as `2026-01-31 12:34:56.789Z` (proleptic Gregorian, UTC).
pub fn wall(nanos: u64) -> String {
    let (seconds, millis) = (nanos / 1_000_000_000, nanos / 1_000_000 % 1_000);
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{millis:03}Z", clock / 3_600, clock / 60 % 60, clock % 60)
}

/// Year, month and day of a day counted from 1970-01-01, by eras of 400 years that begin on the first of March.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_is_right() {
        assert_eq!(wall(0), "1970-01-01 00:00:00.000Z");
        assert_eq!(wall(951_782_400_000_000_000), "2000-02-29 00:00:00.000Z");
        assert_eq!(wall(1_735_689_599_999_000_000), "2024-12-31 23:59:59.999Z");
        assert_eq!(wall(4_107_542_400_000_000_000), "2100-03-01 00:00:00.000Z");
    }
}
