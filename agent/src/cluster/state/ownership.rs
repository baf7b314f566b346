//! Entries about one group: release, assignment, and the steps of a planned move (docs/safety.md, rules 6 and 7).

use super::{Effect, GroupState, Movement, State};
use crate::cluster::{
    entry::{Cause, DrainSummary},
    ids::{Epoch, GroupId, Incarnation, Index, Role, VoterId},
    mutations::Mutations,
    refusal::Refusal,
};

/// What an owner says when it diverts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Diversion {
    pub movement: Index,
    pub from_incarnation: Incarnation,
    pub steers: bool,
}

impl State {
    pub(super) fn release(
        &mut self,
        index: Index,
        id: &GroupId,
        epoch: Epoch,
        node: VoterId,
        incarnation: Incarnation,
        reason: Cause,
    ) -> Result<Vec<Effect>, Refusal> {
        self.check_incarnation(node, incarnation)?;
        let g = self.group_mut(id, epoch)?;
        if g.owner != Some(node) {
            return Err(Refusal::OtherOwner(id.clone()));
        }
        g.owner = None;
        g.movement = None;
        g.cause = reason;
        g.since = index;
        self.note_waiting(id, node);
        Ok(vec![Effect::Owner { group: id.clone(), epoch, from: Some(node), to: None, cause: reason }])
    }

    pub(super) fn assign(
        &mut self,
        index: Index,
        id: &GroupId,
        epoch: Epoch,
        to: VoterId,
        cause: Cause,
    ) -> Result<Vec<Effect>, Refusal> {
        self.may_own(to)?;
        let g = self.group(id, epoch)?;
        if g.owner.is_some() {
            return Err(Refusal::OtherOwner(id.clone()));
        }
        if g.movement.is_some() {
            return Err(Refusal::OtherMovement(id.clone()));
        }
        self.check_held(id, to)?;
        self.waiting.remove(id);
        let g = self.group_mut(id, epoch)?;
        Ok(vec![g.hand_over(id, index, Some(to), cause)])
    }

    pub(super) fn prepare(
        &mut self,
        index: Index,
        id: &GroupId,
        epoch: Epoch,
        to: VoterId,
        to_incarnation: Incarnation,
    ) -> Result<Vec<Effect>, Refusal> {
        self.may_own(to)?;
        self.check_incarnation(to, to_incarnation)?;
        let g = self.group(id, epoch)?;
        let from = g.owner.filter(|from| *from != to).ok_or_else(|| Refusal::OtherOwner(id.clone()))?;
        if g.movement.is_some() {
            return Err(Refusal::OtherMovement(id.clone()));
        }
        self.check_held(id, to)?;
        // Two nodes at a time have flows: back to the one that drains, or after it has.
        if g.drain.is_some_and(|node| node != to) {
            return Err(Refusal::Draining(id.clone()));
        }
        let from_incarnation = self.incarnation(from).ok_or(Refusal::UnknownVoter(from))?;
        let movement = Movement { id: index, from, to, from_incarnation, to_incarnation, ready: false, steers: false };
        self.group_mut(id, epoch)?.movement = Some(movement);
        Ok(vec![Effect::Moving(id.clone())])
    }

    pub(super) fn ready(
        &mut self,
        id: &GroupId,
        epoch: Epoch,
        movement: Index,
        to_incarnation: Incarnation,
        steers: bool,
    ) -> Result<Vec<Effect>, Refusal> {
        let m = self.movement(id, epoch, movement)?;
        self.check_incarnation(m.to, to_incarnation)?;
        if m.to_incarnation != to_incarnation {
            return Err(Refusal::StaleIncarnation(m.to));
        }
        self.group_mut(id, epoch)?.movement = Some(Movement { ready: true, steers, ..m });
        Ok(vec![Effect::Moving(id.clone())])
    }

    pub(super) fn diverted(
        &mut self,
        index: Index,
        id: &GroupId,
        epoch: Epoch,
        diversion: Diversion,
        m: &Mutations,
    ) -> Result<Vec<Effect>, Refusal> {
        let Diversion { movement, from_incarnation, steers } = diversion;
        if m.skip_move_check {
            return self.diverted_unchecked(index, id);
        }
        let m = self.movement(id, epoch, movement)?;
        if !m.ready {
            return Err(Refusal::NotReady(id.clone()));
        }
        self.check_incarnation(m.from, from_incarnation)?;
        if m.from_incarnation != from_incarnation {
            return Err(Refusal::StaleIncarnation(m.from));
        }
        if self.stopped(id) {
            return Err(Refusal::Held(id.clone()));
        }
        // The cause follows from the state, so that every replica names the same one.
        let standby = self.voters.get(&m.from).is_some_and(|v| v.standby);
        let cause = if standby { Cause::Standby } else { Cause::Order };
        let g = self.group_mut(id, epoch)?;
        g.movement = None;
        let effect = g.hand_over(id, index, Some(m.to), cause);
        g.drain = Some(m.from).filter(|_| steers && m.steers);
        Ok(vec![effect])
    }

    pub(super) fn drained(
        &mut self,
        id: &GroupId,
        epoch: Epoch,
        node: VoterId,
        summary: Option<DrainSummary>,
    ) -> Result<Vec<Effect>, Refusal> {
        let g = self.group_mut(id, epoch)?;
        if g.drain != Some(node) {
            return Err(Refusal::Draining(id.clone()));
        }
        g.drain = None;
        Ok(vec![Effect::Drained(id.clone(), node, summary)])
    }

    /// The mutation `skip_move_check`: whoever is not the owner gets the group, whatever became of the movement.
    fn diverted_unchecked(&mut self, index: Index, id: &GroupId) -> Result<Vec<Effect>, Refusal> {
        let nodes: Vec<VoterId> = self.voters.iter().filter(|(_, v)| v.role == Role::Node).map(|(v, _)| *v).collect();
        let g = self.groups.get_mut(id).ok_or_else(|| Refusal::UnknownGroup(id.clone()))?;
        let to = g.movement.map(|m| m.to).or_else(|| nodes.into_iter().find(|n| g.owner != Some(*n)));
        g.movement = None;
        Ok(vec![g.hand_over(id, index, to, Cause::Order)])
    }

    pub(super) fn abandon(&mut self, id: &GroupId, epoch: Epoch, movement: Index) -> Result<Vec<Effect>, Refusal> {
        let m = self.movement(id, epoch, movement)?;
        self.group_mut(id, epoch)?.movement = None;
        Ok(vec![Effect::Abandoned(id.clone(), m.to)])
    }
}

impl GroupState {
    /// Another owner, or none: a new epoch. It ends a drain: a node that gets back what it drains goes on with its flows as the
    /// owner, and whoever else gets the group knows of no flows but its own.
    pub(super) fn hand_over(&mut self, id: &GroupId, index: Index, to: Option<VoterId>, cause: Cause) -> Effect {
        let from = self.owner;
        self.epoch += 1;
        self.owner = to;
        self.cause = cause;
        self.since = index;
        self.drain = None;
        Effect::Owner { group: id.clone(), epoch: self.epoch, from, to, cause }
    }
}
