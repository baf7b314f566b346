//! The quorum lease: which instant a majority's acknowledgements reach (docs/safety.md, rule 1).
//!
//! S is the newest stamp such that `others_needed` other voters acknowledged a beat stamped at or after it; with this
//! voter, which counts without asking, they are a majority. The lease ends at S plus its length, on the sender's clock.

use crate::{
    layout::{Control, PEERS},
    wire::VOTERS_MAX,
};

/// 1 when a >= b. Both must be below 2^63 (292 years of nanoseconds). Arithmetic rather than a branch: with a branch
/// for each pair of voters the verifier would walk every combination.
#[inline(always)]
const fn at_least(a: u64, b: u64) -> u64 {
    1 ^ (a.wrapping_sub(b) >> 63)
}

/// The larger one, without a branch; both below 2^63.
#[inline(always)]
const fn larger(a: u64, b: u64) -> u64 {
    let take = 0u64.wrapping_sub(at_least(a, b));
    (a & take) | (b & !take)
}

/// The newest stamp that at least `needed` of `stamps` have reached; 0 when there is none.
#[inline(always)]
pub fn majority_stamp(stamps: &[u64; VOTERS_MAX], needed: u64) -> u64 {
    let mut best = 0;
    let mut i = 0;
    while i < VOTERS_MAX {
        let mut reached = 0;
        let mut j = 0;
        while j < VOTERS_MAX {
            reached += at_least(stamps[j], stamps[i]);
            j += 1;
        }
        let enough = 0u64.wrapping_sub(at_least(reached, needed));
        best = larger(best, stamps[i] & enough);
        i += 1;
    }
    best
}

/// Works out the lease from the acknowledged stamps and extends `lease_end`; it never shortens it.
#[inline(always)]
pub fn renew(control: &Control) {
    let needed = control.others_needed.load();
    if needed == 0 {
        return;
    }
    let others = control.others.load();
    let started = control.started.load() & (u64::MAX >> 1);
    let mut stamps = [0; VOTERS_MAX];
    let mut i = 1;
    while i < PEERS {
        let stamp = control.acked[i].load() & (u64::MAX >> 1);
        // Strangers count for nothing, and neither does what an earlier incarnation earned.
        let counts = (others >> i & 1) & at_least(stamp, started);
        stamps[i - 1] = stamp & 0u64.wrapping_sub(counts);
        i += 1;
    }
    let reached = majority_stamp(&stamps, needed);
    if reached != 0 {
        control.lease_end.raise(reached + control.lease_ns.load());
    }
}

/// A cluster of one voter is its own majority: the pulse renews by this, and no acknowledgement is needed.
pub fn renew_alone(control: &Control, now: u64) {
    if control.others_needed.load() == 0 && control.incarnation.load() != 0 {
        control.lease_end.raise(now + control.lease_ns.load());
    }
}
