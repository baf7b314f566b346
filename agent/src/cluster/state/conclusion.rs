//! The end of a round about a node: who promised, and which groups go where (docs/safety.md, rule 4).

use std::collections::{BTreeMap, BTreeSet};

use super::{Effect, State};
use crate::cluster::{
    entry::Verdict,
    ids::{Epoch, GroupId, Incarnation, Index, VoterId},
    mutations::Mutations,
    refusal::Refusal,
};

impl State {
    pub(super) fn conclude(
        &mut self,
        index: Index,
        node: VoterId,
        last: Index,
        promised: &[(VoterId, Incarnation)],
        verdict: &Verdict,
        m: &Mutations,
    ) -> Result<Vec<Effect>, Refusal> {
        let concluded = self.concluded(node).ok_or(Refusal::UnknownVoter(node))?;
        if concluded != last && !m.skip_promise_index_check {
            return Err(Refusal::OtherRound(node));
        }
        let mut effects = Vec::new();
        if let Verdict::Lost { moves, cause } = verdict {
            self.check_promises(node, promised, m)?;
            let moves = self.check_moves(node, moves)?;
            effects.push(Effect::Concluded { node, lost: true });
            // Whoever proposed this may not have known of a switch: what is held stays without an owner.
            let held: BTreeSet<&GroupId> = moves
                .iter()
                .filter(|(id, to)| to.is_some_and(|to| self.check_held(id, to).is_err()))
                .map(|(id, _)| *id)
                .collect();
            for (id, to) in moves {
                let to = to.filter(|_| !held.contains(id));
                if to.is_none() && self.groups.get(id).is_some_and(|g| g.owner == Some(node)) {
                    self.note_waiting(id, node);
                }
                let Some(g) = self.groups.get_mut(id) else {
                    continue;
                };
                g.movement = None;
                if g.owner == Some(node) {
                    effects.push(g.hand_over(id, index, to, *cause));
                } else {
                    effects.push(Effect::Abandoned(id.clone(), node));
                }
            }
            for (id, g) in self.groups.iter_mut().filter(|(_, g)| g.drain == Some(node)) {
                g.drain = None;
                effects.push(Effect::Drained(id.clone(), node, None));
            }
        } else {
            effects.push(Effect::Concluded { node, lost: false });
        }
        if let Some(v) = self.voters.get_mut(&node) {
            v.concluded = index;
        }
        Ok(effects)
    }

    /// The promises: a majority of all voters, distinct, without the node itself, each from the incarnation on record.
    fn check_promises(&self, node: VoterId, promised: &[(VoterId, Incarnation)], m: &Mutations) -> Result<(), Refusal> {
        let mut seen = BTreeSet::new();
        for &(voter, incarnation) in promised {
            let on_record = self.incarnation(voter).ok_or(Refusal::UnknownVoter(voter))?;
            if voter == node || !seen.insert(voter) {
                return Err(Refusal::PromiseNotCounted(voter));
            }
            if (incarnation != on_record || incarnation == 0) && !m.skip_barrier {
                return Err(Refusal::StaleIncarnation(voter));
            }
        }
        if seen.len() < self.majority() {
            return Err(Refusal::NoMajority { node, promised: seen.len(), needed: self.majority() });
        }
        Ok(())
    }

    /// The moves: exactly the groups that the node owns or moves, each at its epoch, each to somebody who may own it.
    fn check_moves<'a>(
        &self,
        node: VoterId,
        moves: &'a [(GroupId, Epoch, Option<VoterId>)],
    ) -> Result<BTreeMap<&'a GroupId, Option<VoterId>>, Refusal> {
        let named: BTreeMap<&GroupId, Option<VoterId>> = moves.iter().map(|(g, _, to)| (g, *to)).collect();
        if named.len() != moves.len() || !self.concerned(node).map(|(id, _)| id).eq(named.keys().copied()) {
            return Err(Refusal::OtherGroups(node));
        }
        for (id, epoch, to) in moves {
            let g = self.group(id, *epoch)?;
            if g.owner != Some(node) {
                // Moving to the node: the present owner goes on.
                if g.owner != *to {
                    return Err(Refusal::OtherOwner(id.clone()));
                }
            } else if let Some(to) = *to {
                self.may_own(to)?;
                if to == node {
                    return Err(Refusal::OtherOwner(id.clone()));
                }
            }
        }
        Ok(named)
    }
}
