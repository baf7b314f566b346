//! The leader's rounds: when it asks for promises about a node, and what it concludes (docs/safety.md, rules 3 and 4).

use std::collections::BTreeMap;

use super::{
    command::{Command, Fact},
    entry::{Cause, Entry, Verdict},
    ids::{GroupId, Incarnation, Index, MILLISECOND, Nanos, VoterId},
    message::Message,
    out::Out,
    placement::{
        self, Wait,
        world::{Failback, Halt},
    },
    promises::{self, Promises},
    sight::Sight,
    state::GroupState,
};

#[cfg(test)]
mod tests;

/// An owner that this core has never heard is given this long to come up after the core's start, so that a start of the
/// whole cluster does not move every group to whoever came up first.
pub(super) const SETTLE: Nanos = 2_000 * MILLISECOND;
/// A round that has not got its promises within this many holds is given up if its node is well by then.
const PATIENCE_HOLDS: u64 = 4;
/// The least pause between two requests for the same promise.
const ASK_AGAIN_MIN: Nanos = 5 * MILLISECOND;

/// The rounds that this machine leads.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    open: BTreeMap<VoterId, Round>,
    /// Promises that no round here asked for, and since when they have been known.
    strays: BTreeMap<VoterId, Nanos>,
}

#[derive(Debug)]
struct Round {
    last: Index,
    cause: Cause,
    began: Nanos,
    ask_at: Nanos,
    promised: BTreeMap<VoterId, Incarnation>,
}

impl Rounds {
    /// Whether a round is open.
    pub(super) fn any(&self) -> bool {
        !self.open.is_empty()
    }

    /// A promise arrived. Those of another round, or of an incarnation that the log does not know, are left out.
    pub(super) fn promise(
        &mut self,
        sight: &Sight<'_>,
        voter: VoterId,
        node: VoterId,
        last: Index,
        incarnation: Incarnation,
    ) -> Option<Fact> {
        let m = &sight.settings.mutations;
        let round = self.open.get_mut(&node)?;
        let of_this_round = round.last == last || m.skip_promise_index_check;
        if !of_this_round || !promises::counts(sight.state, node, voter, incarnation, m.skip_barrier) {
            return None;
        }
        let fresh = round.promised.insert(voter, incarnation) != Some(incarnation);
        fresh.then_some(Fact::Promised(node, voter))
    }

    /// Opens, pursues and ends rounds. Does nothing, and forgets everything, while another machine leads.
    pub(super) fn step(&mut self, sight: &Sight<'_>, promises: &mut Promises, out: &mut Out<'_>) {
        if !sight.leads() || !sight.started() {
            self.open.clear();
            self.strays.clear();
            return;
        }
        self.open.retain(|node, round| sight.state.concluded(*node) == Some(round.last));
        let any = sight.settings.mutations.skip_barrier;
        for (node, round) in &mut self.open {
            // A voter that has restarted since no longer knows of its promise.
            let counts = |v: &VoterId, i: &Incarnation| promises::counts(sight.state, *node, *v, *i, any);
            round.promised.retain(|v, i| counts(v, i));
        }
        for &node in sight.state.voters.keys() {
            if !self.open.contains_key(&node)
                && let Some(cause) = grounds(sight, node, out)
                && let Some(last) = sight.state.concluded(node)
            {
                let round = Round { last, cause, began: sight.now, ask_at: sight.now, promised: BTreeMap::new() };
                self.open.insert(node, round);
                out.record(Fact::RoundBegan(node, cause));
            }
        }
        for (&node, round) in &mut self.open {
            round.pursue(sight, node, promises, out);
        }
        self.end_strays(sight, out);
    }

    /// Promises without a round (a former leader's, or a late request) keep floors infinite: once the node is well they are
    /// made void. If it is not well, there will be grounds for a round.
    fn end_strays(&mut self, sight: &Sight<'_>, out: &mut Out<'_>) {
        for &node in sight.state.voters.keys() {
            if self.open.contains_key(&node) || !sight.promised_about(node) {
                self.strays.remove(&node);
                continue;
            }
            let since = *self.strays.entry(node).or_insert(sight.now);
            let at = since + sight.hold_ns();
            out.wake_at(at);
            if sight.now >= at && well(sight, node) {
                conclude_alive(sight, node, out);
            }
        }
    }
}

impl Round {
    fn pursue(&mut self, sight: &Sight<'_>, node: VoterId, promises: &mut Promises, out: &mut Out<'_>) {
        let owns = sight.state.owns_any(node);
        if owns && self.promised.len() >= sight.state.majority() {
            if out.propose(self.conclusion(sight, node)) {
                out.record(Fact::ConclusionProposed(node));
            }
            return;
        }
        let patience_ends = self.began + PATIENCE_HOLDS * sight.hold_ns();
        out.wake_at(patience_ends);
        if !owns || (sight.now >= patience_ends && well(sight, node)) {
            conclude_alive(sight, node, out);
            return;
        }
        if sight.now >= self.ask_at {
            self.ask_at = sight.now + ASK_AGAIN_MIN.max(2 * sight.interval_ns());
            if !self.promised.contains_key(&sight.me()) {
                promises.ask(sight.me(), node, self.last);
            }
            for to in sight.others().filter(|v| *v != node && !self.promised.contains_key(v)) {
                out.push(Command::Send { to, message: Message::AskPromise { node, last: self.last } });
            }
        }
        out.wake_at(self.ask_at);
    }

    /// The conclusion with the new owners in it, so that no second entry is needed.
    fn conclusion(&self, sight: &Sight<'_>, node: VoterId) -> Entry {
        // Whoever has another owner, or none, is none of this conclusion's business.
        let others = |_: &GroupId, g: &GroupState| (g.owner != Some(node)).then_some(Halt::Round);
        let plan = placement::plan(&placement::gather(sight, Some(node), others, |_| Failback::Off));
        let mut given: BTreeMap<GroupId, VoterId> = BTreeMap::new();
        for step in plan.steps.into_iter().filter(|s| s.from.is_none()) {
            // What has to wait is given to somebody later, by the steward.
            let here = |w: &Wait| matches!(w, Wait::Partner(p) if given.get(p) == step.to.as_ref());
            if let Some(to) = step.to.filter(|_| step.waits.iter().all(here)) {
                given.insert(step.group, to);
            }
        }
        let mut moves = Vec::new();
        for (id, group) in sight.state.concerned(node) {
            let to = if group.owner == Some(node) { given.get(id).copied() } else { group.owner };
            moves.push((id.clone(), group.epoch, to));
        }
        let promised = self.promised.iter().map(|(v, i)| (*v, *i)).collect();
        Entry::Conclude { node, last: self.last, promised, verdict: Verdict::Lost { moves, cause: self.cause } }
    }
}

/// The reason to begin a round about `node`, if there is one. A round is begun only where it can end.
fn grounds(sight: &Sight<'_>, node: VoterId, out: &mut Out<'_>) -> Option<Cause> {
    if node == sight.me() || !sight.state.owns_any(node) || sight.reachable(node) < sight.state.majority() {
        return None;
    }
    let track = sight.detector.track(node);
    let settled = sight.detector.start + SETTLE;
    if !track.seen && sight.now < settled {
        out.wake_at(settled);
        return None;
    }
    if sight.silent(node) && sight.silent_votes(node) >= sight.state.majority() {
        return Some(Cause::Silent);
    }
    if !sight.heard(node) {
        return None;
    }
    let due = |at: Nanos, out: &mut Out<'_>| {
        out.wake_at(at);
        sight.now >= at
    };
    if let Some(at) = sight.wedged_at(node)
        && due(at, out)
    {
        return Some(Cause::Wedged);
    }
    if let Some(at) = no_lease_at(sight, node)
        && due(at, out)
    {
        return Some(Cause::NoLease);
    }
    if let Some(since) = track.unknown_since
        && due(since + sight.settings.timing.wedge_ns, out)
    {
        return Some(Cause::Restart);
    }
    None
}

/// When beats will have said for long enough that `node` holds no lease. A lease that merely lapsed comes back with the next
/// acknowledged beat, so two beats must say so; and a node that has just become able to earn one gets a lease's time for it.
pub(super) fn no_lease_at(sight: &Sight<'_>, node: VoterId) -> Option<Nanos> {
    let track = sight.detector.track(node);
    let lease_ns = sight.settings.timing.lease_ns;
    let said = track.no_lease_since?.max(sight.view.punctual_since) + (lease_ns / 2).max(2 * sight.interval_ns());
    let able = track.able_since? + if track.held_lease { 0 } else { lease_ns };
    Some(said.max(able).max(track.concluded_at + lease_ns + 2 * sight.interval_ns()))
}

/// Whether `node` shows nothing that would be grounds for a round, as far as that can be seen while floors are infinite.
fn well(sight: &Sight<'_>, node: VoterId) -> bool {
    sight.heard(node) && !sight.wedged(node)
}

fn conclude_alive(sight: &Sight<'_>, node: VoterId, out: &mut Out<'_>) {
    if let Some(last) = sight.state.concluded(node) {
        out.propose(Entry::Conclude { node, last, promised: Vec::new(), verdict: Verdict::Alive });
    }
}
