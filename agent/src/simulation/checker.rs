//! What must hold at every step (docs/safety.md), asked in true time, which no machine knows.
//!
//! Two gates: whether a machine serves changes in its favour only when a gate opens or a lease grows, and both are events;
//! leases end by the clock alone. So asking at exactly these events, with the exact end of every other lease, finds
//! every overlap, however short, that begins between or at events.

use std::collections::{BTreeMap, VecDeque};

use super::{clock::Instant, machine::Machine};
use crate::cluster::{
    command::GateRole,
    entry::Entry,
    ids::{GroupId, Index, VoterId},
    state::State,
};

/// States kept for comparison; a machine further behind is compared by its entries alone.
const STATES_MAX: usize = 256;

/// What was violated, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// True time.
    pub at: Instant,
    /// What and who.
    pub what: String,
    /// Whether it is about safety; otherwise the cluster did not recover.
    pub safety: bool,
}

/// Numbers of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Events that happened.
    pub events: u64,
    /// Faults that were injected.
    pub faults: u64,
    /// Entries that were committed.
    pub entries: u64,
    /// Changes of an owner to another node.
    pub takeovers: u64,
    /// Planned moves that were completed.
    pub moves: u64,
    /// Conclusions that were applied.
    pub conclusions: u64,
    /// Terms that had a leader.
    pub terms: u64,
    /// Switches that were flipped.
    pub switches: u64,
    /// Stopped groups that their owners gave up.
    pub given_up: u64,
    /// Starts of resources that failed.
    pub failed_starts: u64,
    /// From the end of the faults until every group was served for good, and everybody had caught up.
    pub recovery_ns: u64,
    /// From the end of the faults until the leader also stood where it belongs.
    pub settled_ns: u64,
}

/// The observer.
#[derive(Default)]
pub struct Checker {
    entries: BTreeMap<Index, Option<Entry>>,
    states: VecDeque<(Index, State)>,
    leaders: BTreeMap<u64, VoterId>,
    /// The first violation.
    pub violation: Option<Violation>,
    /// The numbers.
    pub statistics: Statistics,
}

impl Checker {
    /// Takes note of a violation; the first one counts.
    pub fn violated(&mut self, at: Instant, what: String) {
        self.violation.get_or_insert(Violation { at, what, safety: true });
    }

    /// The cluster did not recover, or its core does not come to rest.
    pub fn stuck(&mut self, at: Instant, what: String) {
        self.violation.get_or_insert(Violation { at, what, safety: false });
    }

    /// The newest committed state that any machine has applied.
    pub fn newest(&self) -> Option<&State> {
        self.states.back().map(|(_, state)| state)
    }

    /// The index of the newest entry that any machine has applied.
    pub fn newest_index(&self) -> Index {
        self.states.back().map_or(0, |(index, _)| *index)
    }

    /// At most one machine accepts new flows of a group.
    pub fn serving(&mut self, machines: &[Machine], groups: &[GroupId], now: Instant) {
        for (slot, group) in groups.iter().enumerate() {
            let mut first: Option<VoterId> = None;
            for machine in machines.iter().filter(|machine| accepts(machines, machine, slot, now)) {
                match first {
                    Some(other) => {
                        let (a, b) = (epoch_of(machines, other, slot), epoch_of(machines, machine.id, slot));
                        let what = format!(
                            "two owners: {other} (epoch {a}) and {} (epoch {b}) both serve {group}",
                            machine.id
                        );
                        self.violated(now, what);
                    }
                    None => first = Some(machine.id),
                }
            }
        }
    }

    /// A machine leads a term.
    pub fn leads(&mut self, now: Instant, term: u64, leader: VoterId) {
        let known = *self.leaders.entry(term).or_insert(leader);
        self.statistics.terms = self.leaders.len() as u64;
        if known != leader {
            self.violated(now, format!("two leaders: {known} and {leader} both lead term {term}"));
        }
    }

    /// A machine has applied an entry and its core has this state now.
    pub fn applied(&mut self, now: Instant, who: VoterId, index: Index, entry: Option<&Entry>, state: &State) {
        match self.entries.get(&index) {
            Some(known) if known.as_ref() != entry => {
                self.violated(now, format!("logs differ: {who} applied {entry:?} at {index}, others {known:?}"));
            }
            Some(_) => {}
            None => {
                self.entries.insert(index, entry.cloned());
            }
        }
        if index > self.newest_index() {
            self.first_applied(now, index, entry, state);
        } else if let Some((_, known)) = self.states.iter().rev().find(|(at, _)| *at == index)
            && ((&known.groups, &known.voters) != (&state.groups, &state.voters)
                || (&known.switches, &known.waiting) != (&state.switches, &state.waiting))
        {
            self.violated(now, format!("states differ at {index}: {who} has {state:?}, others {known:?}"));
        }
    }

    fn first_applied(&mut self, now: Instant, index: Index, entry: Option<&Entry>, state: &State) {
        self.statistics.entries += 1;
        if let Some((_, before)) = self.states.back() {
            self.statistics.switches += u64::from(before.switches != state.switches);
            let mut wrong = None;
            for (id, group) in &state.groups {
                let Some(old) = before.groups.get(id) else {
                    continue;
                };
                let changed = old.owner != group.owner && group.owner.is_some();
                if group.owner.is_none() && old.owner.is_some() && before.stopped(id) {
                    self.statistics.given_up += 1;
                }
                // A planned move that had begun may end in maintenance, but not in a stopped group.
                let begun = old.movement.is_some_and(|m| Some(m.to) == group.owner) && !before.stopped(id);
                if changed
                    && !begun
                    && let Some(why) = before.held(id)
                {
                    let (from, to) = (old.owner, group.owner);
                    wrong = Some(format!("switches: {id} went from {from:?} to {to:?} at {index} though {why}"));
                }
                let grown = group.epoch == old.epoch + 1;
                if !grown && (changed || group.epoch != old.epoch) {
                    wrong = Some(format!(
                        "epochs: {id} went from {:?} in epoch {} to {:?} in epoch {} at {index}",
                        old.owner, old.epoch, group.owner, group.epoch
                    ));
                }
                if grown {
                    self.statistics.takeovers += u64::from(changed && old.owner.is_some());
                    self.statistics.moves += u64::from(matches!(entry, Some(Entry::Diverted { .. })));
                }
            }
            for (id, voter) in &state.voters {
                let Some(old) = before.voters.get(id) else {
                    continue;
                };
                self.statistics.conclusions += u64::from(old.concluded != voter.concluded);
                if voter.incarnation < old.incarnation || voter.concluded < old.concluded {
                    wrong = Some(format!("voter {id}: incarnation or conclusion went back at {index}"));
                }
            }
            if let Some(what) = wrong {
                self.violated(now, what);
            }
        }
        if self.states.len() == STATES_MAX {
            self.states.pop_front();
        }
        self.states.push_back((index, state.clone()));
    }
}

/// Whether a machine accepts new flows: as the owner, or as the target of a planned move to which the owner forwards them.
fn accepts(machines: &[Machine], machine: &Machine, slot: usize, now: Instant) -> bool {
    match machine.role(slot, now) {
        GateRole::Owner { .. } => true,
        GateRole::Receive { from } => {
            let diverts = GateRole::Drain { to: machine.id };
            machines.iter().any(|other| other.id == from && other.role(slot, now) == diverts)
        }
        GateRole::Drain { .. } | GateRole::Closed => false,
    }
}

fn epoch_of(machines: &[Machine], id: VoterId, slot: usize) -> u64 {
    machines
        .iter()
        .find(|machine| machine.id == id)
        .and_then(|machine| machine.kernel.as_ref())
        .and_then(|kernel| kernel.gates.get(slot))
        .map_or(0, |gate| gate.0)
}
