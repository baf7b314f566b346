//! What one step of the core gathers: commands in order, proposals that are not in flight already, the next wake-up.

use std::collections::BTreeMap;

use super::{
    command::{Command, Fact},
    entry::{Entry, Switch, Verdict},
    ids::{GroupId, MILLISECOND, Nanos, VoterId},
    timing::Timing,
};

/// How long a proposal of unknown fate is left alone before it is made again, at least.
const RETRY_MIN: Nanos = 50 * MILLISECOND;
/// How long the core waits after a proposal failed, at least.
const PACE_MIN: Nanos = 5 * MILLISECOND;

/// What a proposal is about: at most one a subject is in flight.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Configure,
    Barrier(VoterId),
    Conclude { node: VoterId, lost: bool },
    Standby(VoterId),
    Switch(Switch),
    Group(GroupId, Step),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Release,
    Assign,
    Prepare,
    Ready,
    Diverted,
    Drained,
    Abandon,
}

impl Subject {
    fn of(entry: &Entry) -> Self {
        let group = |id: &GroupId, step| Self::Group(id.clone(), step);
        match entry {
            Entry::Configure { .. } => Self::Configure,
            Entry::Barrier { voter, .. } => Self::Barrier(*voter),
            Entry::Conclude { node, verdict, .. } => {
                Self::Conclude { node: *node, lost: matches!(verdict, Verdict::Lost { .. }) }
            }
            Entry::Standby { node, .. } => Self::Standby(*node),
            Entry::Switch { what, .. } => Self::Switch(what.clone()),
            Entry::Release { group: id, .. } | Entry::ReleaseTo { group: id, .. } => group(id, Step::Release),
            Entry::Assign { group: id, .. } => group(id, Step::Assign),
            Entry::Prepare { group: id, .. } => group(id, Step::Prepare),
            Entry::Ready { group: id, .. } => group(id, Step::Ready),
            Entry::Diverted { group: id, .. } => group(id, Step::Diverted),
            Entry::Drained { group: id, .. } => group(id, Step::Drained),
            Entry::Abandon { group: id, .. } => group(id, Step::Abandon),
        }
    }
}

/// The proposals in flight, so that the level-triggered core does not repeat itself at each step.
#[derive(Debug)]
pub(super) struct Proposals {
    in_flight: BTreeMap<Subject, Nanos>,
    retry_ns: Nanos,
    pace_ns: Nanos,
}

impl Proposals {
    pub(super) fn new(timing: &Timing) -> Self {
        Self {
            in_flight: BTreeMap::new(),
            retry_ns: RETRY_MIN.max(10 * timing.interval_ns),
            pace_ns: PACE_MIN.max(2 * timing.interval_ns),
        }
    }

    /// An entry was applied: the next one about its subject may go at once.
    pub(super) fn settled(&mut self, entry: &Entry) {
        self.in_flight.remove(&Subject::of(entry));
    }

    /// The proposal's fate is unknown, or there was no leader: again, after a pause.
    pub(super) fn failed(&mut self, now: Nanos, entry: &Entry) {
        if let Some(retry_at) = self.in_flight.get_mut(&Subject::of(entry)) {
            *retry_at = now + self.pace_ns;
        }
    }

    /// An entry was refused. The next one, from what is known by now, goes after a pause: should it be refused as well, the
    /// log does not fill with refusals.
    pub(super) fn refused(&mut self, now: Nanos, entry: &Entry) {
        self.in_flight.insert(Subject::of(entry), now + self.pace_ns);
    }

    /// There is another leader: everything may be proposed again.
    pub(super) fn forget(&mut self) {
        self.in_flight.clear();
    }

    /// Forgets what may be proposed again anyway, so that the table stays small.
    fn expire(&mut self, now: Nanos) {
        self.in_flight.retain(|_, retry_at| *retry_at > now);
    }
}

/// The output of one step.
pub(super) struct Out<'a> {
    pub(super) now: Nanos,
    pub(super) commands: Vec<Command>,
    pub(super) wake: Option<Nanos>,
    proposals: &'a mut Proposals,
    has_leader: bool,
}

impl<'a> Out<'a> {
    pub(super) fn new(now: Nanos, commands: Vec<Command>, proposals: &'a mut Proposals, has_leader: bool) -> Self {
        proposals.expire(now);
        Self { now, commands, wake: None, proposals, has_leader }
    }

    pub(super) fn push(&mut self, command: Command) {
        self.commands.push(command);
    }

    pub(super) fn record(&mut self, fact: Fact) {
        self.push(Command::Record(fact));
    }

    /// Asks to be stepped at `at`. Instants that have passed are left out: what they are about is done in this very step.
    pub(super) fn wake_at(&mut self, at: Nanos) {
        if at > self.now {
            self.wake = Some(self.wake.map_or(at, |w| w.min(at)));
        }
    }

    /// Proposes an entry unless one about the same subject is in flight. Returns whether it went out now.
    pub(super) fn propose(&mut self, entry: Entry) -> bool {
        let subject = Subject::of(&entry);
        if let Some(retry_at) = self.proposals.in_flight.get(&subject).copied() {
            self.wake_at(retry_at);
            return false;
        }
        if !self.has_leader {
            // Whoever learns of a leader steps the core; the pause covers a missed notice.
            self.wake_at(self.now + self.proposals.pace_ns);
            return false;
        }
        let retry_at = self.now + self.proposals.retry_ns;
        self.proposals.in_flight.insert(subject, retry_at);
        self.wake_at(retry_at);
        self.push(Command::Propose(entry));
        true
    }
}
