//! The last planned move of each group as this machine saw it, for `baton move` and `baton status`.

use std::collections::BTreeMap;

use crate::{
    api::status::MoveStage as Stage,
    cluster::{
        command::Fact,
        entry::{Cause, DrainSummary},
        ids::{Epoch, GroupId, Nanos, VoterId},
        state::State,
    },
};

/// A planned move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The node that had the group.
    pub from: Option<VoterId>,
    /// The target.
    pub to: VoterId,
    /// The epoch that it began, or would have.
    pub epoch: Epoch,
    /// Whether open flows go on.
    pub steers: bool,
    /// How far it came.
    pub stage: Stage,
    /// When it began (ns, this machine's boot clock).
    pub began: Nanos,
    /// From its begin until the target could receive, ns; 0 until then.
    pub ready_ns: Nanos,
    /// From then until the change of owner, ns.
    pub diverted_ns: Nanos,
    /// What became of the flows on the old owner, once they have ended.
    pub drained: Option<DrainSummary>,
}

/// The last move of each group.
#[derive(Debug, Default)]
pub struct Moves(BTreeMap<GroupId, Move>);

impl Moves {
    /// The last move of a group.
    pub fn last(&self, group: &GroupId) -> Option<&Move> {
        self.0.get(group)
    }

    /// Takes note of what the core found; `state` reflects it already.
    pub fn fact(&mut self, now: Nanos, fact: &Fact, state: &State) {
        match fact {
            Fact::Moving { group, epoch, to, ready: false, .. } => {
                let begun = Move {
                    from: None,
                    to: *to,
                    epoch: epoch + 1,
                    steers: false,
                    stage: Stage::Preparing,
                    began: now,
                    ready_ns: 0,
                    diverted_ns: 0,
                    drained: None,
                };
                self.0.insert(group.clone(), begun);
            }
            Fact::Moving { group, steers, .. } => {
                if let Some(m) = self.0.get_mut(group) {
                    m.stage = Stage::Ready;
                    m.steers = *steers;
                    m.ready_ns = now.saturating_sub(m.began);
                }
            }
            Fact::OwnerChanged { group, epoch, from, to, cause } => {
                let Some(m) = self.0.get_mut(group) else { return };
                let planned = matches!(cause, Cause::Order | Cause::Standby) && m.epoch == *epoch && *to == Some(m.to);
                if planned && m.stage == Stage::Ready {
                    m.from = *from;
                    m.diverted_ns = now.saturating_sub(m.began + m.ready_ns);
                    m.steers = state.groups.get(group).is_some_and(|g| g.drain.is_some());
                    m.stage = if m.steers { Stage::Draining } else { Stage::Done };
                } else if m.stage == Stage::Draining {
                    // Another change of owner ends a drain.
                    m.stage = Stage::Done;
                } else if m.stage != Stage::Done {
                    m.stage = Stage::Abandoned;
                }
            }
            Fact::Abandoned { group, .. } => {
                if let Some(m) = self.0.get_mut(group) {
                    m.stage = Stage::Abandoned;
                }
            }
            Fact::Drained { group, epoch, summary, .. } => {
                if let Some(m) = self.0.get_mut(group).filter(|m| m.epoch == *epoch) {
                    m.stage = Stage::Done;
                    m.drained = *summary;
                }
            }
            _ => {}
        }
    }
}
