//! Overlap: for how long two holders held the same thing. Pure arithmetic over closed intervals of one clock.

use baton::cluster::ids::Nanos;

/// An interval in which somebody held something; both ends are instants at which the holding was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tenure {
    /// Who: a node's position in the lab, or any other number that tells holders apart.
    pub holder: usize,
    /// The first instant, in nanoseconds.
    pub first: Nanos,
    /// The last instant, in nanoseconds; not before `first`.
    pub last: Nanos,
}

/// For how long at least two different holders held at once, in nanoseconds.
///
/// Instants alone have no length: [`conflicts`] tells of those too.
pub fn overlap_ns(tenures: &[Tenure]) -> Nanos {
    // Sweep over the ends; openings come before closings of the same instant (closed intervals).
    let mut ends: Vec<(Nanos, bool, usize)> =
        tenures.iter().flat_map(|t| [(t.first, false, t.holder), (t.last, true, t.holder)]).collect();
    ends.sort_unstable();
    let mut open = std::collections::BTreeMap::<usize, usize>::new();
    let (mut total, mut before) = (0, 0);
    for (instant, closes, holder) in ends {
        if open.len() > 1 {
            total += instant - before;
        }
        before = instant;
        let count = open.entry(holder).or_default();
        if closes {
            *count -= 1;
            if *count == 0 {
                open.remove(&holder);
            }
        } else {
            *count += 1;
        }
    }
    total
}

/// The pairs of tenures of different holders that share an instant: there must be none.
pub fn conflicts(tenures: &[Tenure]) -> Vec<(Tenure, Tenure)> {
    let mut sorted = tenures.to_vec();
    sorted.sort_unstable_by_key(|t| t.first);
    let mut found = Vec::new();
    for (i, a) in sorted.iter().enumerate() {
        let later = sorted[i + 1..].iter().take_while(|b| b.first <= a.last);
        found.extend(later.filter(|b| b.holder != a.holder).map(|b| (*a, *b)));
    }
    found
}

/// Joins sightings `(holder, instant)` into tenures: two of a holder that are at most `join_ns` apart belong together.
pub fn tenures_of(sightings: impl IntoIterator<Item = (usize, Nanos)>, join_ns: Nanos) -> Vec<Tenure> {
    let mut sorted: Vec<_> = sightings.into_iter().collect();
    sorted.sort_unstable();
    let mut tenures: Vec<Tenure> = Vec::new();
    for (holder, instant) in sorted {
        match tenures.last_mut() {
            Some(t) if t.holder == holder && instant - t.last <= join_ns => t.last = instant,
            _ => tenures.push(Tenure { holder, first: instant, last: instant }),
        }
    }
    tenures
}

/// The parts of tenures that lie within a window.
pub fn within(tenures: &[Tenure], from: Nanos, to: Nanos) -> Vec<Tenure> {
    let inside = tenures.iter().filter(|t| t.first <= to && t.last >= from);
    inside.map(|t| Tenure { holder: t.holder, first: t.first.max(from), last: t.last.min(to) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(holder: usize, first: Nanos, last: Nanos) -> Tenure {
        Tenure { holder, first, last }
    }

    #[test]
    fn nothing_shared_is_no_overlap() {
        let tenures = [t(1, 0, 10), t(2, 11, 20), t(1, 21, 30)];
        assert_eq!(overlap_ns(&tenures), 0);
        assert!(conflicts(&tenures).is_empty());
    }

    #[test]
    fn two_and_three_holders_count_once() {
        assert_eq!(overlap_ns(&[t(1, 0, 10), t(2, 5, 20)]), 5);
        assert_eq!(overlap_ns(&[t(1, 0, 10), t(2, 5, 20), t(3, 6, 12)]), 7);
        assert_eq!(overlap_ns(&[t(1, 0, 100), t(2, 5, 20), t(2, 30, 40)]), 25);
    }

    #[test]
    fn the_same_holder_twice_is_no_overlap() {
        assert_eq!(overlap_ns(&[t(1, 0, 10), t(1, 5, 20)]), 0);
        assert!(conflicts(&[t(1, 0, 10), t(1, 5, 20)]).is_empty());
        // The holder still holds when one of its two tenures has ended.
        assert_eq!(overlap_ns(&[t(1, 0, 10), t(1, 5, 20), t(2, 15, 30)]), 5);
    }

    #[test]
    fn a_single_instant_is_a_conflict_without_length() {
        let tenures = [t(1, 0, 10), t(2, 7, 7)];
        assert_eq!(overlap_ns(&tenures), 0);
        assert_eq!(conflicts(&tenures), vec![(t(1, 0, 10), t(2, 7, 7))]);
        assert_eq!(conflicts(&[t(2, 10, 12), t(1, 0, 10)]).len(), 1, "closed intervals share their ends");
        assert_eq!(conflicts(&[t(1, 0, 50), t(2, 1, 2), t(1, 3, 4), t(2, 40, 60)]).len(), 2);
    }

    #[test]
    fn sightings_join_into_tenures() {
        let tenures = tenures_of([(1, 0), (2, 12), (1, 5), (1, 30), (2, 14)], 10);
        assert_eq!(tenures, vec![t(1, 0, 5), t(1, 30, 30), t(2, 12, 14)]);
        assert_eq!(within(&tenures, 3, 13), vec![t(1, 3, 5), t(2, 12, 13)]);
    }
}
