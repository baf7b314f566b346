//! Puts facts and marks together into failover records. Pure: instants come in, finished stories go out.

use std::collections::{BTreeMap, VecDeque};

use super::{mark::Mark, record::PhaseName};
use crate::cluster::{
    command::Fact,
    entry::Cause,
    ids::{Epoch, GroupId, MILLISECOND, Nanos, VoterId},
};

/// How long after its last change of owner a story waits for marks that may never come (no client, no packet).
const SETTLE_NS: Nanos = 2_000 * MILLISECOND;
/// How long marks wait for the change of owner that they belong to.
const EARLY_NS: Nanos = 10_000 * MILLISECOND;
/// How long after the conclusion changes of owner may still belong to a round.
const ROUND_NS: Nanos = 1_000 * MILLISECOND;
/// A round whose last sign is older than this has nothing to do with a change of owner now.
const STALE_NS: Nanos = 30_000 * MILLISECOND;
/// Bounds: steps of one story, stories under way, marks that wait.
const STEPS_MAX: usize = 64;
const OPEN_MAX: usize = 512;
const EARLY_MAX: usize = 2_048;

/// A phase reached at an instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub phase: PhaseName,
    pub at: Nanos,
    pub detail: String,
}

/// A finished story: a record without names, numbers and the wall clock.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub group: Option<GroupId>,
    pub epoch: Epoch,
    pub cause: Cause,
    pub from: Option<VoterId>,
    pub to: Option<VoterId>,
    /// Sorted by instant, never empty.
    pub steps: Vec<Step>,
    changed: Nanos,
    /// The epoch of the old owner: what stops there names it.
    ended: Epoch,
}

/// What is known of the newest round about a node.
#[derive(Debug, Default)]
struct Round {
    steps: Vec<Step>,
    cause: Option<Cause>,
    concluded: Option<Nanos>,
    moved: bool,
}

/// The stories under way.
#[derive(Debug)]
pub(super) struct Story {
    me: VoterId,
    rounds: BTreeMap<VoterId, Round>,
    open: VecDeque<Draft>,
    early: VecDeque<(GroupId, Epoch, Step)>,
    /// The first steps of planned moves that have not changed the owner yet.
    planned: BTreeMap<GroupId, Vec<Step>>,
}

impl Story {
    /// Nothing has happened yet on voter `me`.
    pub fn new(me: VoterId) -> Self {
        Self { me, rounds: BTreeMap::new(), open: VecDeque::new(), early: VecDeque::new(), planned: BTreeMap::new() }
    }

    /// Whether anything is under way, so that [`Self::settle`] has to be called again.
    pub fn is_busy(&self) -> bool {
        !self.open.is_empty() || !self.rounds.is_empty() || !self.early.is_empty()
    }

    /// Takes a fact of the core.
    pub fn fact(&mut self, at: Nanos, fact: &Fact, name: impl Fn(VoterId) -> String) {
        match fact {
            Fact::Silent(node) => self.sign(*node, at, PhaseName::Silent),
            Fact::RoundBegan(node, cause) => {
                let round = self.round(*node);
                round.cause = Some(*cause);
                push(&mut round.steps, PhaseName::Round, at, String::new());
            }
            Fact::FloorRaised(node) => push(&mut self.round(*node).steps, PhaseName::FloorRaised, at, String::new()),
            Fact::Promised(node, by) => push(&mut self.round(*node).steps, PhaseName::Promised, at, name(*by)),
            Fact::ConclusionProposed(node) => {
                push(&mut self.round(*node).steps, PhaseName::Proposed, at, String::new())
            }
            Fact::Concluded(node) => {
                if let Some(round) = self.rounds.get_mut(node) {
                    round.concluded.get_or_insert(at);
                }
            }
            Fact::OwnerChanged { group, epoch, from, to, cause } => {
                self.owner_changed(at, group, *epoch, (*from, *to), *cause)
            }
            Fact::Moving { group, to, ready, steers, .. } => {
                let (phase, detail) = match (ready, steers) {
                    (false, _) => (PhaseName::Prepared, name(*to)),
                    (true, true) => (PhaseName::Ready, "open flows will go on".to_owned()),
                    (true, false) => (PhaseName::Ready, "open connections will break".to_owned()),
                };
                if phase == PhaseName::Prepared {
                    self.planned.remove(group);
                }
                push(self.planned.entry(group.clone()).or_default(), phase, at, detail);
            }
            Fact::Abandoned { group, .. } => drop(self.planned.remove(group)),
            // Refused entries and hand-overs of leadership are no part of a failover's time line.
            _ => (),
        }
    }

    /// Takes a mark of the executor.
    pub fn mark(&mut self, at: Nanos, mark: &Mark) {
        if let Mark::LastBeat { node } = mark {
            return self.sign(*node, at, PhaseName::LastBeat);
        }
        let Some((group, epoch)) = mark.place() else {
            return;
        };
        if epoch == 0 {
            // The clearing at an agent's start belongs to no change of owner.
            return;
        }
        let (phase, detail) = mark.phase();
        let me = self.me;
        let story = self.open.iter_mut().rev().find(|s| belongs(s, me, group, epoch, phase));
        match story {
            Some(story) => push(&mut story.steps, phase, at, detail),
            None => {
                if self.early.len() == EARLY_MAX {
                    self.early.pop_front();
                }
                self.early.push_back((group.clone(), epoch, Step { phase, at, detail }));
            }
        }
    }

    /// The stories that are finished now.
    pub fn settle(&mut self, now: Nanos) -> Vec<Draft> {
        let me = self.me;
        let mut finished = Vec::new();
        let (done, open) =
            self.open.drain(..).partition::<Vec<_>, _>(|s| is_told(s, me) || now >= s.changed + SETTLE_NS);
        self.open = open.into();
        finished.extend(done);
        self.early.retain(|(_, _, step)| now < step.at + EARLY_NS);
        let over = |r: &Round| match r.concluded {
            Some(at) => now >= at + ROUND_NS,
            None => r.steps.iter().all(|s| now >= s.at + STALE_NS),
        };
        let ended: Vec<VoterId> = self.rounds.iter().filter(|(_, r)| over(r)).map(|(node, _)| *node).collect();
        for node in ended {
            finished.extend(self.rounds.remove(&node).and_then(|round| moved_nothing(node, round)));
        }
        for story in &mut finished {
            // Stable: what carries one stamp stays in the order in which it was told.
            story.steps.sort_by_key(|s| s.at);
        }
        finished.retain(|s| !s.steps.is_empty());
        finished
    }

    /// The round about a node that is under way; a new one if the last is over.
    fn round(&mut self, node: VoterId) -> &mut Round {
        let round = self.rounds.entry(node).or_default();
        if round.concluded.is_some() || round.moved {
            *round = Round::default();
        }
        round
    }

    /// The last beat of a node, or the end of the hold on it: the first signs of a round that may follow.
    fn sign(&mut self, node: VoterId, at: Nanos, phase: PhaseName) {
        let round = self.round(node);
        let known = round.steps.iter().any(|s| s.phase == phase);
        let began = round.steps.iter().any(|s| s.phase > PhaseName::Silent);
        if known && !began {
            // An earlier silence that ended by itself.
            *round = Round::default();
        }
        push(&mut round.steps, phase, at, String::new());
    }

    fn owner_changed(
        &mut self,
        at: Nanos,
        group: &GroupId,
        epoch: Epoch,
        (from, to): (Option<VoterId>, Option<VoterId>),
        cause: Cause,
    ) {
        let vacant = self.open.iter_mut().rev().find(|s| s.group.as_ref() == Some(group) && s.to.is_none());
        match (from, to, vacant) {
            (None, Some(_), Some(story)) => {
                (story.to, story.epoch, story.changed) = (to, epoch, at);
                push(&mut story.steps, PhaseName::Committed, at, String::new());
            }
            (None, None, _) => return,
            _ => {
                let planned = self.planned.remove(group).filter(|_| matches!(cause, Cause::Order | Cause::Standby));
                let mut steps = from.map_or_else(Vec::new, |node| self.round_steps(node, at, cause));
                steps.extend(planned.unwrap_or_default());
                // A release leaves the epoch as it is; every other change begins a new one.
                let given_up = to.is_none() && !taken_away(cause);
                let (phase, ended) = match given_up {
                    true => (PhaseName::Released, epoch),
                    false => (PhaseName::Committed, epoch.saturating_sub(1)),
                };
                push(&mut steps, phase, at, String::new());
                if self.open.len() == OPEN_MAX {
                    self.open.pop_front();
                }
                let group = Some(group.clone());
                self.open.push_back(Draft { group, epoch, cause, from, to, steps, changed: at, ended });
            }
        }
        self.take_early(group);
    }

    /// What happened to the old owner before its group was taken away.
    fn round_steps(&mut self, node: VoterId, at: Nanos, cause: Cause) -> Vec<Step> {
        match self.rounds.get_mut(&node) {
            Some(round) if taken_away(cause) && round.steps.iter().any(|s| at < s.at + STALE_NS) => {
                round.moved = true;
                round.steps.clone()
            }
            _ => Vec::new(),
        }
    }

    /// Hands marks that came before the change of owner to the story that it began.
    fn take_early(&mut self, group: &GroupId) {
        let me = self.me;
        let Some(story) = self.open.iter_mut().rev().find(|s| s.group.as_ref() == Some(group)) else {
            return;
        };
        self.early.retain(|(g, epoch, step)| {
            let mine = belongs(story, me, g, *epoch, step.phase);
            if mine {
                push(&mut story.steps, step.phase, step.at, step.detail.clone());
            }
            !mine
        });
    }
}

/// Whether a group changes hands for this cause without its owner's doing.
const fn taken_away(cause: Cause) -> bool {
    matches!(cause, Cause::Silent | Cause::NoLease | Cause::Wedged)
}

/// Whether a mark is part of a story. What ends names the epoch that ended.
fn belongs(story: &Draft, me: VoterId, group: &GroupId, epoch: Epoch, phase: PhaseName) -> bool {
    if story.group.as_ref() != Some(group) {
        return false;
    }
    match phase {
        PhaseName::GateClosed
        | PhaseName::Diverted
        | PhaseName::Draining
        | PhaseName::ResourceFailed
        | PhaseName::Stopped => story.from == Some(me) && story.ended == epoch,
        _ => story.to == Some(me) && story.epoch == epoch,
    }
}

/// Whether everything that can be expected of this node has been told.
fn is_told(story: &Draft, me: VoterId) -> bool {
    let has = |phase| story.steps.iter().any(|s| s.phase == phase);
    let taken =
        story.to != Some(me) || has(PhaseName::StartFailed) || has(PhaseName::Started) && has(PhaseName::FirstPacket);
    let given = story.from != Some(me) || has(PhaseName::Stopped) || has(PhaseName::Draining);
    story.to.is_some() && taken && given
}

/// A round that ended with everything where it was, if it came as far as a floor.
fn moved_nothing(node: VoterId, round: Round) -> Option<Draft> {
    let went_far = round.steps.iter().any(|s| matches!(s.phase, PhaseName::Round | PhaseName::FloorRaised));
    if round.moved || round.concluded.is_none() || !went_far {
        return None;
    }
    let cause = round.cause.unwrap_or(Cause::Silent);
    Some(Draft { group: None, epoch: 0, cause, from: Some(node), to: None, steps: round.steps, changed: 0, ended: 0 })
}

/// Adds a step. All but promises and resources happen once: the first counts.
fn push(steps: &mut Vec<Step>, phase: PhaseName, at: Nanos, detail: String) {
    let repeats = matches!(phase, PhaseName::Promised | PhaseName::ResourceStarted);
    let known = steps.iter().any(|s| s.phase == phase && (!repeats || s.detail == detail));
    if !known && steps.len() < STEPS_MAX {
        steps.push(Step { phase, at, detail });
    }
}

#[cfg(test)]
#[path = "story_tests.rs"]
mod tests;
