//! The replicated state: voters, groups, owners. Every replica applies the same entries and gets the same result.
//!
//! [`State::apply`] is a compare-and-set (docs/safety.md, rules 4 to 7): an entry whose premises no longer hold is refused
//! and changes nothing but [`State::applied`]. The state is also the snapshot.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    entry::{Cause, DrainSummary, Entry, Switch},
    ids::{Epoch, GroupId, Incarnation, Index, Nanos, Role, VoterId},
    mutations::Mutations,
    refusal::Refusal,
    timing::majority,
};

mod conclusion;
mod ownership;
mod switches;
#[cfg(test)]
mod tests;

pub use switches::Held;

/// What the log says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The voters of the lease.
    pub voters: BTreeMap<VoterId, VoterState>,
    /// The groups.
    pub groups: BTreeMap<GroupId, GroupState>,
    /// Epochs of groups that were removed: a group of the same name goes on from there, so that no epoch ever falls.
    pub retired: BTreeMap<GroupId, Epoch>,
    /// The longest lease that these voters may have granted, in nanoseconds.
    pub lease_ns: Nanos,
    /// The newest entry that this state reflects.
    pub applied: Index,
    /// What operators have switched on.
    #[serde(default)]
    pub switches: BTreeSet<Switch>,
    /// Groups that lost their owner while it was in maintenance: they wait for that to end.
    #[serde(default)]
    pub waiting: BTreeMap<GroupId, VoterId>,
}

/// What the log says about a voter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterState {
    /// Node or arbiter.
    pub role: Role,
    /// The incarnation of its last barrier, 0 if it never had one.
    pub incarnation: Incarnation,
    /// The index of its last barrier.
    pub barrier: Index,
    /// The index of the last conclusion about it, 0 if none. It is every voter's floor for it (rule 1).
    pub concluded: Index,
    /// Whether an operator put it on standby: it shall own nothing.
    pub standby: bool,
}

/// What the log says about a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupState {
    /// Grows by one whenever the group gets another owner; a conclusion that finds no successor counts too.
    pub epoch: Epoch,
    /// Who may serve it.
    pub owner: Option<VoterId>,
    /// Why the owner last changed.
    pub cause: Cause,
    /// The entry that last changed the owner.
    pub since: Index,
    /// The planned move under way.
    pub movement: Option<Movement>,
    /// The node that still serves flows from before the last planned move (rule 7); never the owner.
    #[serde(default)]
    pub drain: Option<VoterId>,
}

/// A planned move between its `Prepare` and its `Diverted` or its end (rule 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Movement {
    /// The index of its `Prepare`: its name.
    pub id: Index,
    /// The owner.
    pub from: VoterId,
    /// The target.
    pub to: VoterId,
    /// The owner's incarnation at the `Prepare`.
    pub from_incarnation: Incarnation,
    /// The target's incarnation at the `Prepare`.
    pub to_incarnation: Incarnation,
    /// Whether the target said that it can receive.
    pub ready: bool,
    /// Whether the target said that it can steer.
    #[serde(default)]
    pub steers: bool,
}

impl Movement {
    /// Whether `voter` is its owner or its target.
    pub fn involves(&self, voter: VoterId) -> bool {
        self.from == voter || self.to == voter
    }
}

/// What an applied entry changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The voters are known now.
    Formed,
    /// A group was created.
    Created(GroupId),
    /// A group was removed.
    Removed(GroupId),
    /// A voter's barrier.
    Started(VoterId, Incarnation),
    /// A round about a node ended; whether the node was found lost.
    Concluded {
        /// The node.
        node: VoterId,
        /// Whether it lost what it owned.
        lost: bool,
    },
    /// A group changed owner.
    Owner {
        /// The group.
        group: GroupId,
        /// Its epoch now.
        epoch: Epoch,
        /// Who owned it.
        from: Option<VoterId>,
        /// Who owns it.
        to: Option<VoterId>,
        /// Why.
        cause: Cause,
    },
    /// A planned move began, or became ready.
    Moving(GroupId),
    /// A planned move to this node ended without a change of owner.
    Abandoned(GroupId, VoterId),
    /// A drain on this node ended.
    Drained(GroupId, VoterId, Option<DrainSummary>),
    /// A node was put on standby (`true`) or taken off.
    Standby(VoterId, bool),
    /// Something was switched on (`true`) or off.
    Switched(Switch, bool),
}

impl State {
    /// Applies the entry at `index`. A refused entry changes nothing but `applied`.
    pub fn apply(&mut self, index: Index, entry: &Entry) -> Result<Vec<Effect>, Refusal> {
        self.apply_with(index, entry, &Mutations::default())
    }

    /// Takes note of an entry that says nothing to this state (raft's blank and membership entries).
    pub fn skip(&mut self, index: Index) {
        self.applied = index;
    }

    /// As [`State::apply`], with the simulation's switches.
    pub(super) fn apply_with(&mut self, index: Index, entry: &Entry, m: &Mutations) -> Result<Vec<Effect>, Refusal> {
        self.applied = index;
        match entry {
            Entry::Configure { voters, groups, lease_ns } => self.configure(voters, groups, *lease_ns),
            Entry::Barrier { voter, incarnation } => self.barrier(index, *voter, *incarnation),
            Entry::Conclude { node, last, promised, verdict } => {
                self.conclude(index, *node, *last, promised, verdict, m)
            }
            Entry::Release { group, epoch, node, incarnation, reason } => {
                self.release(index, group, *epoch, *node, *incarnation, *reason)
            }
            Entry::ReleaseTo { group, epoch, node, incarnation, reason, to } => {
                let mut effects = self.release(index, group, *epoch, *node, *incarnation, *reason)?;
                // A switch may stand against the next owner since he was named: then the group is nobody's for now.
                effects.extend(self.assign(index, group, *epoch, *to, *reason).unwrap_or_default());
                Ok(effects)
            }
            Entry::Assign { group, epoch, to, cause } => self.assign(index, group, *epoch, *to, *cause),
            Entry::Prepare { group, epoch, to, to_incarnation } => {
                self.prepare(index, group, *epoch, *to, *to_incarnation)
            }
            Entry::Ready { group, epoch, movement, to_incarnation, steers } => {
                self.ready(group, *epoch, *movement, *to_incarnation, *steers)
            }
            Entry::Diverted { group, epoch, movement, from_incarnation, steers } => {
                let (movement, from_incarnation, steers) = (*movement, *from_incarnation, *steers);
                let diversion = ownership::Diversion { movement, from_incarnation, steers };
                self.diverted(index, group, *epoch, diversion, m)
            }
            Entry::Drained { group, epoch, node, summary } => self.drained(group, *epoch, *node, *summary),
            Entry::Abandon { group, epoch, movement } => self.abandon(group, *epoch, *movement),
            Entry::Standby { node, on } => self.standby(*node, *on),
            Entry::Switch { what, on } => self.switch(what, *on),
        }
    }

    /// How many voters make a majority; no number of voters does while there are none.
    pub fn majority(&self) -> usize {
        if self.voters.is_empty() { usize::MAX } else { majority(self.voters.len()) }
    }

    /// The index of the last conclusion about `voter`; `None` for an unknown voter.
    pub fn concluded(&self, voter: VoterId) -> Option<Index> {
        self.voters.get(&voter).map(|v| v.concluded)
    }

    /// The incarnation on record; `None` for an unknown voter.
    pub fn incarnation(&self, voter: VoterId) -> Option<Incarnation> {
        self.voters.get(&voter).map(|v| v.incarnation)
    }

    /// Whether `voter` owns a group.
    pub fn owns_any(&self, voter: VoterId) -> bool {
        self.groups.values().any(|g| g.owner == Some(voter))
    }

    /// How many groups `voter` owns.
    pub fn owned(&self, voter: VoterId) -> usize {
        self.groups.values().filter(|g| g.owner == Some(voter)).count()
    }

    /// The groups that a conclusion about `node` must name: those that it owns, and those that move from or to it.
    pub fn concerned(&self, node: VoterId) -> impl Iterator<Item = (&GroupId, &GroupState)> {
        self.groups.iter().filter(move |(_, g)| g.owner == Some(node) || g.movement.is_some_and(|m| m.involves(node)))
    }

    fn configure(
        &mut self,
        voters: &[(VoterId, Role)],
        groups: &[GroupId],
        lease_ns: Nanos,
    ) -> Result<Vec<Effect>, Refusal> {
        let named: BTreeMap<VoterId, Role> = voters.iter().copied().collect();
        let valid = |v: &VoterId| (1..=VoterId::MAX).contains(&v.0);
        if named.is_empty() || named.len() != voters.len() || !named.keys().all(valid) {
            return Err(Refusal::VotersInvalid);
        }
        let mut effects = Vec::new();
        if self.voters.is_empty() {
            let fresh = |role| VoterState { role, incarnation: 0, barrier: 0, concluded: 0, standby: false };
            self.voters = named.into_iter().map(|(v, role)| (v, fresh(role))).collect();
            self.lease_ns = lease_ns;
            effects.push(Effect::Formed);
        } else if !self.voters.iter().map(|(v, s)| (*v, s.role)).eq(named) {
            return Err(Refusal::VotersDiffer);
        } else if self.lease_ns != lease_ns {
            return Err(Refusal::LeaseDiffers);
        }
        let wanted: BTreeSet<&GroupId> = groups.iter().collect();
        let gone: Vec<GroupId> = self
            .groups
            .iter()
            .filter(|(id, g)| g.owner.is_none() && !wanted.contains(id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            if let Some(g) = self.groups.remove(&id) {
                self.retired.insert(id.clone(), g.epoch);
            }
            self.forget_switches(&id);
            effects.push(Effect::Removed(id));
        }
        for id in wanted {
            if !self.groups.contains_key(id) {
                let epoch = self.retired.remove(id).unwrap_or(0);
                let group =
                    GroupState { epoch, owner: None, cause: Cause::Initial, since: 0, movement: None, drain: None };
                self.groups.insert(id.clone(), group);
                effects.push(Effect::Created(id.clone()));
            }
        }
        Ok(effects)
    }

    fn barrier(&mut self, index: Index, voter: VoterId, incarnation: Incarnation) -> Result<Vec<Effect>, Refusal> {
        let v = self.voters.get_mut(&voter).ok_or(Refusal::UnknownVoter(voter))?;
        if incarnation <= v.incarnation {
            return Err(Refusal::StaleIncarnation(voter));
        }
        v.incarnation = incarnation;
        v.barrier = index;
        Ok(vec![Effect::Started(voter, incarnation)])
    }

    fn standby(&mut self, node: VoterId, on: bool) -> Result<Vec<Effect>, Refusal> {
        self.may_own(node)?;
        let v = self.voters.get_mut(&node).ok_or(Refusal::UnknownVoter(node))?;
        v.standby = on;
        Ok(vec![Effect::Standby(node, on)])
    }

    fn group(&self, id: &GroupId, epoch: Epoch) -> Result<&GroupState, Refusal> {
        let g = self.groups.get(id).ok_or_else(|| Refusal::UnknownGroup(id.clone()))?;
        if g.epoch == epoch { Ok(g) } else { Err(Refusal::OtherEpoch(id.clone())) }
    }

    fn group_mut(&mut self, id: &GroupId, epoch: Epoch) -> Result<&mut GroupState, Refusal> {
        let g = self.groups.get_mut(id).ok_or_else(|| Refusal::UnknownGroup(id.clone()))?;
        if g.epoch == epoch { Ok(g) } else { Err(Refusal::OtherEpoch(id.clone())) }
    }

    fn movement(&self, id: &GroupId, epoch: Epoch, movement: Index) -> Result<Movement, Refusal> {
        let g = self.group(id, epoch)?;
        g.movement.filter(|m| m.id == movement).ok_or_else(|| Refusal::OtherMovement(id.clone()))
    }

    fn check_incarnation(&self, voter: VoterId, incarnation: Incarnation) -> Result<(), Refusal> {
        let on_record = self.incarnation(voter).ok_or(Refusal::UnknownVoter(voter))?;
        if on_record == incarnation && incarnation != 0 { Ok(()) } else { Err(Refusal::StaleIncarnation(voter)) }
    }

    fn may_own(&self, voter: VoterId) -> Result<(), Refusal> {
        let v = self.voters.get(&voter).ok_or(Refusal::UnknownVoter(voter))?;
        if v.role == Role::Node { Ok(()) } else { Err(Refusal::NotANode(voter)) }
    }
}
