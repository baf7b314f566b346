//! A voter's floors and promises (docs/safety.md, rules 1, 3 and 5).
//!
//! The floor goes up first; then the shell takes a fresh view; only a view that shows the infinite floor may start the
//! arithmetic of the hold, because only its R is sure to be the last one.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    command::{Command, Fact},
    ids::{Index, Nanos, VoterId},
    message::Message,
    out::Out,
    sight::Sight,
    state::State,
};

#[cfg(test)]
mod tests;

/// What this voter was asked to promise, and what it promises.
#[derive(Debug, Default)]
pub(super) struct Promises {
    /// Requests that the state here does not match yet or that were not looked at yet; one a node.
    asked: BTreeMap<VoterId, Asked>,
    given: BTreeMap<VoterId, Given>,
}

#[derive(Debug)]
struct Asked {
    last: Index,
    by: BTreeSet<VoterId>,
}

#[derive(Debug)]
struct Given {
    last: Index,
    /// Who waits for the promise.
    by: BTreeSet<VoterId>,
    /// The end of the hold as it was before the floor went up: only the mutation `skip_reread` uses it.
    end_when_asked: Nanos,
}

impl Promises {
    /// A leader asks. Kept until the state here matches `last`; it asks again, so nothing is lost by forgetting.
    pub(super) fn ask(&mut self, by: VoterId, node: VoterId, last: Index) {
        let asked = self.asked.entry(node).or_insert_with(|| Asked { last, by: BTreeSet::new() });
        if last > asked.last {
            *asked = Asked { last, by: BTreeSet::new() };
        }
        if last == asked.last {
            asked.by.insert(by);
        }
    }

    /// Whether this voter promises about `node`.
    pub(super) fn gives(&self, node: VoterId) -> bool {
        self.given.contains_key(&node)
    }

    /// The nodes about which this voter promises.
    pub(super) fn mask(&self) -> u16 {
        self.given.keys().fold(0, |mask, v| mask | v.bit())
    }

    /// Brings the floors in line and answers those whose promise is ripe. Returns the promises that this voter makes to
    /// itself as the leader.
    pub(super) fn step(&mut self, sight: &Sight<'_>, out: &mut Out<'_>) -> Vec<(VoterId, Index)> {
        self.take_up(sight);
        let mut own = Vec::new();
        for (&node, peer) in &sight.view.peers {
            if node == sight.me() {
                continue;
            }
            let floor = self.floor(sight, node);
            if peer.floor != floor {
                out.push(Command::SetFloor { peer: node, floor });
                if floor == Index::MAX && self.gives(node) {
                    out.record(Fact::FloorRaised(node));
                }
            }
            let Some(given) = self.given.get_mut(&node) else {
                continue;
            };
            if given.by.is_empty() || !given.is_ripe(sight, node, peer.floor, out) {
                continue;
            }
            for to in std::mem::take(&mut given.by) {
                if to == sight.me() {
                    own.push((node, given.last));
                } else {
                    let message = Message::Promise { node, last: given.last, incarnation: sight.incarnation() };
                    out.push(Command::Send { to, message });
                }
            }
        }
        own
    }

    /// Ends promises that a conclusion has overtaken, and turns the requests that match the state into promises.
    fn take_up(&mut self, sight: &Sight<'_>) {
        let concluded = |node: &VoterId| sight.state.concluded(*node);
        self.given.retain(|node, given| concluded(node) == Some(given.last));
        if !sight.started() {
            // An earlier incarnation may have acknowledged after what this one knows: it promises nothing (rule 5).
            self.asked.clear();
            return;
        }
        let matching = |node: &VoterId, asked: &Asked| concluded(node) == Some(asked.last);
        let due: Vec<VoterId> = self.asked.iter().filter(|(n, a)| matching(n, a)).map(|(n, _)| *n).collect();
        for node in due {
            let Some(asked) = self.asked.remove(&node) else {
                continue;
            };
            if node == sight.me() {
                continue;
            }
            let end_when_asked = hold_end(sight, node);
            let fresh = Given { last: asked.last, by: BTreeSet::new(), end_when_asked };
            self.given.entry(node).or_insert(fresh).by.extend(asked.by);
        }
        self.asked.retain(|node, asked| concluded(node).is_some_and(|c| asked.last > c));
    }

    /// The floor that shall be in force for `node`.
    fn floor(&self, sight: &Sight<'_>, node: VoterId) -> Index {
        let m = &sight.settings.mutations;
        let Some(concluded) = sight.state.concluded(node) else {
            return Index::MAX;
        };
        if !sight.started() {
            return if m.floor_zero_after_restart { 0 } else { Index::MAX };
        }
        if self.gives(node) && !m.skip_floor_raise {
            return Index::MAX;
        }
        if m.skip_conclusion_floor { 0 } else { concluded }
    }
}

impl Given {
    fn is_ripe(&self, sight: &Sight<'_>, node: VoterId, floor: Index, out: &mut Out<'_>) -> bool {
        let m = &sight.settings.mutations;
        if floor != Index::MAX && !m.skip_floor_raise {
            return false;
        }
        let end = if m.skip_reread { self.end_when_asked } else { hold_end(sight, node) };
        out.wake_at(end);
        sight.now >= end || m.skip_hold
    }
}

/// The end of the hold by the R of this very view.
fn hold_end(sight: &Sight<'_>, node: VoterId) -> Nanos {
    let Some(peer) = sight.peer(node) else {
        return Nanos::MAX;
    };
    sight.detector.hold(node, peer, sight.view).end(sight.hold_ns(), &sight.settings.mutations)
}

/// Whether a promise from `voter` in `incarnation` may count: it speaks of the incarnation that the log knows.
pub(super) fn counts(state: &State, node: VoterId, voter: VoterId, incarnation: u64, any_incarnation: bool) -> bool {
    voter != node && state.incarnation(voter).is_some_and(|i| any_incarnation || (i == incarnation && i != 0))
}
