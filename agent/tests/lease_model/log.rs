//! The replicated log: one sequence of entries, and what applying each makes of the state (rule 4).
//!
//! Raft is assumed correct: there is one order of committed entries, and each machine applies a prefix of it.

use super::rules::Rule;

/// A machine: 0 and 1 are nodes, 2 is the arbiter.
pub type Id = usize;

/// How many machines vote.
pub const VOTERS: usize = 3;
/// How many of them may own the group.
pub const NODES: usize = 2;
/// How many promises make a majority of the voters.
pub const MAJORITY: usize = VOTERS / 2 + 1;

/// The state after a prefix of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shared {
    /// Grows by one at each change of owner.
    pub epoch: u8,
    /// The group's owner: the machine's number plus one, 0 for none.
    pub owner: u8,
    /// The index of the last conclusion about each node.
    pub concluded: [u8; NODES],
    /// Each voter's incarnation on record.
    pub incarnation: [u8; VOTERS],
    /// The move that is open, if any.
    pub movement: Option<Movement>,
}

/// A planned move that was prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Movement {
    /// The index of its `Prepare`.
    pub id: u8,
    /// Where the group shall go.
    pub to: u8,
    /// The target's incarnation.
    pub to_incarnation: u8,
    /// The owner's incarnation.
    pub from_incarnation: u8,
    /// Whether the target said that it is ready.
    pub ready: bool,
}

/// An entry. The fields are what it names for the compare-and-set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// `voter` runs in this incarnation.
    Barrier { voter: Id, incarnation: u8 },
    /// `node` lost its lease; its group goes to `heir`, or to nobody.
    Lost { node: Id, last: u8, promised: [Option<(Id, u8)>; MAJORITY], epoch: u8, heir: Option<Id> },
    /// The round about `node` ends without a change.
    Alive { node: Id, last: u8 },
    /// The owner gives the group up.
    Release { node: Id, epoch: u8, incarnation: u8 },
    /// A group without owner gets one.
    Assign { to: Id, epoch: u8 },
    /// A move begins.
    Prepare { to: Id, epoch: u8, to_incarnation: u8 },
    /// The target is ready.
    Ready { id: u8, epoch: u8, to: Id, incarnation: u8 },
    /// The owner has closed its gate: the change of owner.
    Diverted { id: u8, epoch: u8, to: Id, incarnation: u8 },
    /// The move is given up.
    Abandon { id: u8, epoch: u8 },
}

impl Shared {
    /// Node 0 owns the group at epoch 1; nothing was ever concluded.
    pub fn initial() -> Self {
        Self { epoch: 1, owner: 1, ..Self::default() }
    }

    /// Whether the group belongs to `node`, or is about to.
    pub fn involves(&self, node: Id) -> bool {
        self.owned_by(node) || self.movement.is_some()
    }

    /// Whether the group belongs to `node`.
    pub fn owned_by(&self, node: Id) -> bool {
        usize::from(self.owner) == node + 1
    }

    /// The state after `entry` at `index`, or nothing if what it names no longer matches.
    pub fn apply(&self, index: u8, entry: &Entry, off: Option<Rule>) -> Option<Self> {
        let on = |rule| off != Some(rule);
        let mut next = *self;
        match *entry {
            Entry::Barrier { voter, incarnation } => {
                if incarnation <= self.incarnation[voter] {
                    return None;
                }
                next.incarnation[voter] = incarnation;
            }
            Entry::Lost { node, last, promised, epoch, heir } => {
                if on(Rule::PromiseIndex) && last != self.concluded[node] {
                    return None;
                }
                if epoch != self.epoch || !self.involves(node) || heir == Some(node) {
                    return None;
                }
                if !self.is_majority(node, &promised, off) {
                    return None;
                }
                next.movement = None;
                next.concluded[node] = index;
                if self.owned_by(node) {
                    next.owner = heir.map_or(0, |heir| heir as u8 + 1);
                    next.epoch += 1;
                } else if heir.is_some() {
                    return None;
                }
            }
            Entry::Alive { node, last } => {
                if last != self.concluded[node] {
                    return None;
                }
                next.concluded[node] = index;
            }
            Entry::Release { node, epoch, incarnation } => {
                if !self.owned_by(node)
                    || on(Rule::RolesByEpoch) && epoch != self.epoch
                    || on(Rule::ReleaseIncarnation) && incarnation != self.incarnation[node]
                {
                    return None;
                }
                next.owner = 0;
                next.movement = None;
            }
            Entry::Assign { to, epoch } => {
                if self.owner != 0 || epoch != self.epoch {
                    return None;
                }
                next.owner = to as u8 + 1;
                next.epoch += 1;
            }
            Entry::Prepare { to, epoch, to_incarnation } => {
                let from = usize::from(self.owner).checked_sub(1)?;
                if from == to
                    || epoch != self.epoch
                    || self.movement.is_some()
                    || to_incarnation != self.incarnation[to]
                {
                    return None;
                }
                next.movement = Some(Movement {
                    id: index,
                    to: to as u8,
                    to_incarnation,
                    from_incarnation: self.incarnation[from],
                    ready: false,
                });
            }
            Entry::Ready { id, epoch, to, incarnation } => {
                let movement = self.movement.filter(|m| m.id == id && usize::from(m.to) == to)?;
                if epoch != self.epoch
                    || movement.ready
                    || incarnation != movement.to_incarnation
                    || incarnation != self.incarnation[to]
                {
                    return None;
                }
                next.movement = Some(Movement { ready: true, ..movement });
            }
            Entry::Diverted { id, epoch, to, incarnation } => {
                let from = usize::from(self.owner).checked_sub(1)?;
                if from == to {
                    return None;
                }
                if on(Rule::MoveCompareAndSet)
                    && !self.movement.is_some_and(|m| m.id == id && m.ready && epoch == self.epoch)
                {
                    return None;
                }
                if on(Rule::DivertedIncarnation) && incarnation != self.incarnation[from] {
                    return None;
                }
                next.owner = to as u8 + 1;
                next.epoch += 1;
                next.movement = None;
            }
            Entry::Abandon { id, epoch } => {
                if epoch != self.epoch || self.movement.is_none_or(|m| m.id != id) {
                    return None;
                }
                next.movement = None;
            }
        }
        Some(next)
    }

    fn is_majority(&self, node: Id, promised: &[Option<(Id, u8)>; MAJORITY], off: Option<Rule>) -> bool {
        let needed = if off == Some(Rule::Promise) { 1 } else { MAJORITY };
        let mut mask = 0u8;
        for &(voter, incarnation) in promised.iter().flatten() {
            let known = off == Some(Rule::PromiseIncarnation) || incarnation == self.incarnation[voter];
            if voter == node || !known {
                return false;
            }
            mask |= 1 << voter;
        }
        mask.count_ones() as usize >= needed
    }
}
