//! Handing the leadership over: the leader stays off the owners, and goes to whoever reaches the most voters.
//!
//! Raft 0.9 has no transfer: the old leader stops its heartbeats (`StepAside`) and the new one is told to stand.

use super::{
    command::{Command, Fact},
    election::{Class, class},
    ids::{MILLISECOND, Nanos, VoterId},
    message::Message,
    out::Out,
    sight::Sight,
};

#[cfg(test)]
mod tests;

/// How long an owner that leads waits before it hands over.
const OWNER_WAITS: Nanos = 200 * MILLISECOND;
/// How long any other leader waits before it hands over to a better one.
const OTHER_WAITS: Nanos = 1_000 * MILLISECOND;
/// If nobody took over within this time, the old leader resumes.
const RESUME_AFTER: Nanos = 1_000 * MILLISECOND;
/// After a failed attempt the leader does not try again for this long.
const PAUSE: Nanos = 5_000 * MILLISECOND;
/// How often the successor stands, and the least pause in between.
const TRIES: u32 = 25;
const TRY_AGAIN_MIN: Nanos = 20 * MILLISECOND;

/// Both sides of a hand-over.
#[derive(Debug, Default)]
pub(super) struct Handover {
    better: Option<(VoterId, Nanos)>,
    aside: Option<Aside>,
    paused_until: Nanos,
    taking: Option<Taking>,
}

#[derive(Clone, Copy, Debug)]
struct Aside {
    term: u64,
    resume_at: Nanos,
}

#[derive(Clone, Copy, Debug)]
struct Taking {
    from: VoterId,
    term: u64,
    tries: u32,
    next: Nanos,
}

impl Handover {
    /// The leader of `term` asks this machine to take over.
    pub(super) fn take(&mut self, from: VoterId, term: u64) {
        if self.taking.is_none_or(|t| t.term < term) {
            self.taking = Some(Taking { from, term, tries: 0, next: 0 });
        }
    }

    /// Stands if asked to; steps aside if another makes a better leader and nothing urgent is open.
    pub(super) fn step(&mut self, sight: &Sight<'_>, busy: bool, leaving: bool, out: &mut Out<'_>) {
        self.stand(sight, out);
        let raft = sight.view.raft;
        if !sight.leads() {
            self.aside = None;
            self.better = None;
            return;
        }
        if let Some(aside) = self.aside.filter(|a| a.term == raft.term) {
            out.wake_at(aside.resume_at);
            if sight.now >= aside.resume_at {
                self.aside = None;
                self.paused_until = sight.now + PAUSE;
                out.push(Command::Resume);
            }
            return;
        }
        self.aside = None;
        let best = if busy || sight.now < self.paused_until { None } else { better(sight, leaving) };
        out.wake_at(self.paused_until);
        let Some(best) = best else {
            self.better = None;
            return;
        };
        let since = self.better.filter(|(v, _)| *v == best).map_or(sight.now, |(_, since)| since);
        self.better = Some((best, since));
        let waits = if leaving {
            0
        } else if class(sight, sight.me()) == Class::Owner || reach(sight, best) > reach(sight, sight.me()) {
            OWNER_WAITS
        } else {
            OTHER_WAITS
        };
        out.wake_at(since + waits);
        if sight.now >= since + waits {
            self.better = None;
            self.aside = Some(Aside { term: raft.term, resume_at: sight.now + RESUME_AFTER });
            out.wake_at(sight.now + RESUME_AFTER);
            out.push(Command::StepAside { to: best });
            out.push(Command::Send { to: best, message: Message::TakeLeadership { term: raft.term } });
            out.record(Fact::SteppedAside(best));
        }
    }

    fn stand(&mut self, sight: &Sight<'_>, out: &mut Out<'_>) {
        let Some(mut taking) = self.taking else {
            return;
        };
        let raft = sight.view.raft;
        // The term grows with this machine's own candidacy too: it is over only when somebody leads in a later one.
        let over = raft.leader.is_some_and(|l| l != taking.from || raft.term > taking.term);
        if over || taking.tries >= TRIES {
            self.taking = None;
            return;
        }
        if sight.now >= taking.next {
            taking.tries += 1;
            taking.next = sight.now + TRY_AGAIN_MIN.max(2 * sight.interval_ns());
            out.record(Fact::Stood);
            out.push(Command::Elect);
        }
        self.taking = Some(taking);
        out.wake_at(taking.next);
    }
}

/// How many voters `voter` hears, by its newest report.
fn reach(sight: &Sight<'_>, voter: VoterId) -> usize {
    let silent = if voter == sight.me() { Some(sight.silent_mask()) } else { sight.report(voter).map(|r| r.silent) };
    silent.map_or(0, |mask| sight.state.voters.keys().filter(|v| mask & v.bit() == 0).count())
}

/// Somebody who would make a better leader, is well, and has the whole log.
fn better(sight: &Sight<'_>, leaving: bool) -> Option<VoterId> {
    let key = |v: VoterId| (std::cmp::Reverse(reach(sight, v)), class(sight, v));
    let own = (std::cmp::Reverse(reach(sight, sight.me())), class(sight, sight.me()));
    let able = |v: &VoterId| {
        let current = sight.report(*v).is_some_and(|r| r.ready && r.same_configuration);
        let caught_up = sight.peer(*v).is_some_and(|p| p.log_index >= sight.view.raft.log_index);
        current && caught_up && sight.heard(*v) && !sight.wedged(*v)
    };
    let candidates = sight.others().filter(able).filter(|v| leaving || key(*v) < own);
    candidates.min_by_key(|v| (key(*v), *v))
}
