//! When this machine stands for election. Raft's own timers are off; safety is raft's, this is only about speed.
//!
//! Candidates are ranked: the longest log first, then a node that owns nothing, the arbiter, a node on standby, an owner;
//! equals by number. Rank k waits k steps, so that the votes do not split.

use std::cmp::Reverse;

use super::{
    command::{Command, Fact},
    ids::{Index, MILLISECOND, Nanos, Role, VoterId},
    out::Out,
    rounds,
    sight::Sight,
};

#[cfg(test)]
mod tests;

/// The least wait between two ranks.
const STEP_MIN: Nanos = 5 * MILLISECOND;
/// The first pause after an attempt, and the longest.
const BACKOFF_MIN: Nanos = 30 * MILLISECOND;
const BACKOFF_MAX: Nanos = 1_000 * MILLISECOND;
/// A leader's beats may deny its leadership for this many intervals: they are older than its election.
const DENIAL_INTERVALS: u64 = 3;

/// What a candidate remembers.
#[derive(Debug, Default)]
pub(super) struct Election {
    /// Since when there has been no working leader.
    vacant_since: Option<Nanos>,
    /// Since when the leader's own beats have said that it is none.
    denied_since: Option<Nanos>,
    /// The leader and term that raft names, and since when.
    led: (Option<VoterId>, u64, Nanos),
    attempts: u32,
    next_attempt: Nanos,
    /// The term in which this machine last stood.
    stood_in: u64,
    /// The newest term known here, and when it was learnt.
    term: (u64, Nanos),
}

/// How good a leader somebody would make: less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Idle,
    Arbiter,
    OnStandby,
    Owner,
    Leaving,
}

impl Election {
    /// Stands for election if there is no working leader and it is this machine's turn.
    pub(super) fn step(&mut self, sight: &Sight<'_>, leaving: bool, out: &mut Out<'_>) {
        let raft = sight.view.raft;
        if (self.led.0, self.led.1) != (raft.leader, raft.term) {
            self.led = (raft.leader, raft.term, sight.now);
        }
        if raft.term != self.term.0 {
            self.term = (raft.term, sight.now);
        }
        let vacant = self.vacant(sight, out);
        if !vacant || sight.heard_voters() < super::timing::majority(sight.settings.voters.len()) {
            self.vacant_since = None;
            self.attempts = 0;
            return;
        }
        let since = *self.vacant_since.get_or_insert(sight.now);
        let step = STEP_MIN.max(sight.interval_ns());
        let turn = since + rank(sight, leaving) * step;
        let at = if self.attempts == 0 {
            turn
        } else if self.term.0 > self.stood_in {
            // Refused for its old term alone, it seems: raft here knows the new one now. Without this, candidates whose logs
            // are too short to win could keep the term ahead of all others for ever. A rival gets the time to win first.
            let again = self.term.1 + (1 + u64::from(sight.me().0)) * step;
            again.min(self.next_attempt)
        } else {
            self.next_attempt
        };
        if sight.now < at {
            out.wake_at(at);
            return;
        }
        out.record(Fact::Stood);
        out.push(Command::Elect);
        let backoff = (BACKOFF_MIN.max(3 * step) << self.attempts.min(5)).min(BACKOFF_MAX);
        self.attempts = self.attempts.saturating_add(1);
        self.stood_in = raft.term + 1;
        // Candidates that meet once must not meet for ever, nor stand in the same order each time: where the two with the
        // shorter logs always raise the term first, the one that could win never does.
        let number = (u64::from(sight.me().0) << 32) | u64::from(self.attempts);
        let jitter = (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % backoff;
        self.next_attempt = sight.now + backoff / 2 + jitter + u64::from(sight.me().0) * step;
        out.wake_at(self.next_attempt);
    }

    /// Whether nobody leads, or the leader that raft names does not work.
    fn vacant(&mut self, sight: &Sight<'_>, out: &mut Out<'_>) -> bool {
        let Some(leader) = sight.view.raft.leader else {
            self.denied_since = None;
            // Somebody who says that he leads, and is heard, will be known in a moment.
            return !sight.others().any(|v| claims(sight, v));
        };
        if leader == sight.me() {
            self.denied_since = None;
            return false;
        }
        // A majority has just elected it: what is known about it may be older. It gets a hold to be heard.
        let proven = self.led.2 + sight.hold_ns();
        if sight.now < proven {
            out.wake_at(proven);
            return false;
        }
        // A leader of a later term, of which raft here will hear in a moment.
        let later = |v: &VoterId| sight.peer(*v).is_some_and(|p| p.term > sight.view.raft.term);
        if sight.others().filter(later).any(|v| claims(sight, v)) {
            return false;
        }
        let denied = sight
            .peer(leader)
            .is_some_and(|p| sight.heard(leader) && p.leader != Some(leader) && p.term >= sight.view.raft.term);
        self.denied_since = denied.then(|| self.denied_since.unwrap_or(sight.now));
        if let Some(since) = self.denied_since {
            let at = since + DENIAL_INTERVALS * sight.interval_ns();
            out.wake_at(at);
            if sight.now >= at {
                return true;
            }
        }
        lost(sight, leader, out)
    }
}

/// Whether the leader is silent for a majority, wedged, or without a lease (it hears nobody, so it can commit nothing).
fn lost(sight: &Sight<'_>, leader: VoterId, out: &mut Out<'_>) -> bool {
    let due = |at: Nanos, out: &mut Out<'_>| {
        out.wake_at(at);
        sight.now >= at
    };
    let unheard_at = sight.unheard_at(leader);
    if due(unheard_at, out) {
        // Where only this machine's link to the leader is broken, standing would only disturb the others.
        return 1 + sight.others().filter(|v| *v != leader && misses(sight, *v, leader)).count()
            >= super::timing::majority(sight.settings.voters.len());
    }
    let wedged = sight.wedged_at(leader).is_some_and(|at| due(at, out));
    let lease = sight.detector.track(leader).held_lease;
    wedged || (lease && rounds::no_lease_at(sight, leader).is_some_and(|at| due(at, out)))
}

/// Whether `voter` says that `leader` is silent, or knows no leader or another one.
fn misses(sight: &Sight<'_>, voter: VoterId, leader: VoterId) -> bool {
    sight.heard(voter)
        && (sight.reports.get(&voter).is_some_and(|r| r.silent & leader.bit() != 0)
            || sight.peer(voter).is_some_and(|p| p.leader != Some(leader)))
}

/// Whether `voter`'s beats say that it leads, in a term that is not over.
fn claims(sight: &Sight<'_>, voter: VoterId) -> bool {
    let claims = sight.peer(voter).is_some_and(|p| p.leader == Some(voter) && p.term >= sight.view.raft.term);
    claims && sight.heard(voter) && !sight.wedged(voter)
}

/// This machine's place among the candidates, 0 first.
fn rank(sight: &Sight<'_>, leaving: bool) -> u64 {
    let key = |v: VoterId, log_index: Index, class: Class| (Reverse(log_index), class, v);
    let own_class = if leaving { Class::Leaving } else { class(sight, sight.me()) };
    let own = key(sight.me(), sight.view.raft.log_index, own_class);
    let rivals = sight.others().filter(|v| sight.heard(*v) && !sight.wedged(*v) && Some(*v) != sight.view.raft.leader);
    let better = rivals.filter(|v| sight.peer(*v).is_some_and(|p| key(*v, p.log_index, class(sight, *v)) < own));
    better.count().try_into().unwrap_or(u64::MAX)
}

/// How good a leader `voter` would make.
pub(super) fn class(sight: &Sight<'_>, voter: VoterId) -> Class {
    let role = sight.settings.voters.iter().find(|(v, _)| *v == voter).map(|(_, role)| *role);
    if sight.state.owns_any(voter) {
        Class::Owner
    } else if role != Some(Role::Node) {
        Class::Arbiter
    } else if sight.state.voters.get(&voter).is_some_and(|v| v.standby) {
        Class::OnStandby
    } else {
        Class::Idle
    }
}
