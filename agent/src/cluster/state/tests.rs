//! The compare-and-set of every entry: what it changes, and each refusal.

use super::*;
use crate::cluster::entry::Verdict;

mod property;
mod switches;

const A: VoterId = VoterId(1);
const B: VoterId = VoterId(2);
const ARBITER: VoterId = VoterId(3);
const NOBODY: VoterId = VoterId(7);

fn web() -> GroupId {
    GroupId::new("web")
}

fn voters() -> Vec<(VoterId, Role)> {
    vec![(A, Role::Node), (B, Role::Node), (ARBITER, Role::Arbiter)]
}

fn configure(groups: &[&str]) -> Entry {
    let groups = groups.iter().map(|g| GroupId::new(g)).collect();
    Entry::Configure { voters: voters(), groups, lease_ns: 50 }
}

/// Applies entries that must all be taken.
fn applied(state: &State, entries: &[Entry]) -> State {
    let mut state = state.clone();
    for entry in entries {
        let index = state.applied + 1;
        state.apply(index, entry).unwrap_or_else(|e| panic!("{entry:?}: {e}"));
    }
    state
}

/// Applies an entry that must be refused and must change nothing.
fn refused(state: &State, entry: &Entry) -> Refusal {
    let mut after = state.clone();
    let index = state.applied + 1;
    let refusal = after.apply(index, entry).expect_err("the entry is refused");
    assert_eq!(after, State { applied: index, ..state.clone() });
    refusal
}

fn barrier(voter: VoterId, incarnation: Incarnation) -> Entry {
    Entry::Barrier { voter, incarnation }
}

fn assign(epoch: Epoch, to: VoterId) -> Entry {
    Entry::Assign { group: web(), epoch, to, cause: Cause::Initial }
}

fn release(epoch: Epoch, node: VoterId, incarnation: Incarnation) -> Entry {
    Entry::Release { group: web(), epoch, node, incarnation, reason: Cause::FrontDown }
}

fn prepare(epoch: Epoch, to: VoterId, to_incarnation: Incarnation) -> Entry {
    Entry::Prepare { group: web(), epoch, to, to_incarnation }
}

fn ready(epoch: Epoch, movement: Index, to_incarnation: Incarnation) -> Entry {
    Entry::Ready { group: web(), epoch, movement, to_incarnation, steers: true }
}

fn diverted(epoch: Epoch, movement: Index, from_incarnation: Incarnation) -> Entry {
    Entry::Diverted { group: web(), epoch, movement, from_incarnation, steers: true }
}

fn abandon(epoch: Epoch, movement: Index) -> Entry {
    Entry::Abandon { group: web(), epoch, movement }
}

fn lost(node: VoterId, last: Index, promised: &[(VoterId, u64)], moves: &[(u64, Option<VoterId>)]) -> Entry {
    let moves = moves.iter().map(|(epoch, to)| (web(), *epoch, *to)).collect();
    let verdict = Verdict::Lost { moves, cause: Cause::Silent };
    Entry::Conclude { node, last, promised: promised.to_vec(), verdict }
}

/// All have started (entries 2 to 4), A owns the group (entry 5) at epoch 1.
fn owned() -> State {
    let start = [configure(&["web"]), barrier(A, 1), barrier(B, 1), barrier(ARBITER, 1), assign(0, A)];
    applied(&State::default(), &start)
}

/// As [`owned`], with a planned move to B under way: prepared by entry 6, and ready.
fn moving() -> State {
    applied(&owned(), &[prepare(1, B, 1), ready(1, 6, 1)])
}

#[test]
fn a_release_that_names_the_next_owner_is_refused_like_any_release() {
    let named = |epoch, node, incarnation, to| Entry::ReleaseTo {
        group: web(),
        epoch,
        node,
        incarnation,
        reason: Cause::FrontDown,
        to,
    };
    let state = owned();
    let both = applied(&state, &[named(1, A, 1, B)]);
    // But for the number of the last entry, as if it had been two.
    let two =
        applied(&state, &[release(1, A, 1), Entry::Assign { group: web(), epoch: 1, to: B, cause: Cause::FrontDown }]);
    let of = |state: &State| GroupState { since: 0, ..state.groups[&web()].clone() };
    assert_eq!((of(&both), both.groups[&web()].since), (of(&two), 6));
    assert_eq!(refused(&both, &named(1, A, 1, B)), Refusal::OtherEpoch(web()));
    assert_eq!(refused(&state, &named(1, B, 1, A)), Refusal::OtherOwner(web()));
    assert_eq!(refused(&state, &named(1, A, 2, B)), Refusal::StaleIncarnation(A));
    // What speaks against the next owner alone leaves the release.
    let released = applied(&state, &[named(1, A, 1, ARBITER)]);
    assert_eq!((of(&released), released.groups[&web()].owner), (of(&applied(&state, &[release(1, A, 1)])), None));
    assert_eq!(applied(&moving(), &[named(1, A, 1, B)]).groups[&web()].movement, None);
}

#[test]
fn configure_forms_the_cluster_once() {
    let state = applied(&State::default(), &[configure(&["web", "db"])]);
    assert_eq!(state.voters.len(), 3);
    assert_eq!(state.lease_ns, 50);
    assert_eq!(state.groups.len(), 2);
    assert_eq!(state.groups[&web()].epoch, 0);
    let of = |voters, lease_ns| Entry::Configure { voters, groups: vec![web()], lease_ns };
    assert_eq!(refused(&state, &of(vec![(A, Role::Node)], 50)), Refusal::VotersDiffer);
    let other_role = vec![(A, Role::Node), (B, Role::Arbiter), (ARBITER, Role::Arbiter)];
    assert_eq!(refused(&state, &of(other_role, 50)), Refusal::VotersDiffer);
    assert_eq!(refused(&state, &of(voters(), 51)), Refusal::LeaseDiffers);
    for bad in
        [vec![], vec![(A, Role::Node), (A, Role::Node)], vec![(VoterId(0), Role::Node)], vec![(VoterId(9), Role::Node)]]
    {
        assert_eq!(refused(&State::default(), &of(bad.clone(), 50)), Refusal::VotersInvalid);
        assert_eq!(refused(&state, &of(bad, 50)), Refusal::VotersInvalid);
    }
}

#[test]
fn groups_come_and_go_and_their_epochs_never_fall() {
    let state = owned();
    let kept = applied(&state, &[configure(&["db"])]);
    assert!(kept.groups.contains_key(&web()), "somebody owns it");
    let gone = applied(&kept, &[release(1, A, 1), configure(&["db"])]);
    assert!(!gone.groups.contains_key(&web()));
    let back = applied(&gone, &[configure(&["db", "web"])]);
    assert_eq!(back.groups[&web()].epoch, 1);
    assert!(back.retired.is_empty());
    assert_eq!(refused(&back, &assign(0, A)), Refusal::OtherEpoch(web()));
}

#[test]
fn a_barrier_needs_a_new_incarnation() {
    let state = applied(&owned(), &[barrier(B, 4)]);
    assert_eq!((state.voters[&B].incarnation, state.voters[&B].barrier), (4, 6));
    assert_eq!(refused(&state, &barrier(B, 4)), Refusal::StaleIncarnation(B));
    assert_eq!(refused(&state, &barrier(B, 3)), Refusal::StaleIncarnation(B));
    assert_eq!(refused(&state, &barrier(NOBODY, 1)), Refusal::UnknownVoter(NOBODY));
}

#[test]
fn a_conclusion_moves_the_groups_and_is_the_new_floor() {
    let state = applied(&owned(), &[lost(A, 0, &[(B, 1), (ARBITER, 1)], &[(1, Some(B))])]);
    let group = &state.groups[&web()];
    assert_eq!((group.owner, group.epoch, group.cause, group.since), (Some(B), 2, Cause::Silent, 6));
    assert_eq!(state.concluded(A), Some(6));
    let nobody = applied(&owned(), &[lost(A, 0, &[(B, 1), (ARBITER, 1)], &[(1, None)])]);
    assert_eq!((nobody.groups[&web()].owner, nobody.groups[&web()].epoch), (None, 2));
}

#[test]
fn a_conclusion_is_refused_when_a_premise_is_gone() {
    let state = owned();
    let both = [(B, 1), (ARBITER, 1)];
    let to_b = [(1, Some(B))];
    assert_eq!(refused(&state, &lost(NOBODY, 0, &both, &to_b)), Refusal::UnknownVoter(NOBODY));
    assert_eq!(refused(&state, &lost(A, 3, &both, &to_b)), Refusal::OtherRound(A));
    assert_eq!(refused(&state, &lost(A, 0, &[(B, 1), (A, 1)], &to_b)), Refusal::PromiseNotCounted(A));
    assert_eq!(refused(&state, &lost(A, 0, &[(B, 1), (B, 1)], &to_b)), Refusal::PromiseNotCounted(B));
    assert_eq!(refused(&state, &lost(A, 0, &[(B, 1), (ARBITER, 2)], &to_b)), Refusal::StaleIncarnation(ARBITER));
    assert_eq!(refused(&state, &lost(A, 0, &[(B, 1), (NOBODY, 1)], &to_b)), Refusal::UnknownVoter(NOBODY));
    let few = Refusal::NoMajority { node: A, promised: 1, needed: 2 };
    assert_eq!(refused(&state, &lost(A, 0, &[(B, 1)], &to_b)), few);
    assert_eq!(refused(&state, &lost(A, 0, &both, &[])), Refusal::OtherGroups(A));
    assert_eq!(refused(&state, &lost(A, 0, &both, &[(1, Some(B)), (1, None)])), Refusal::OtherGroups(A));
    assert_eq!(refused(&state, &lost(B, 0, &[(A, 1), (ARBITER, 1)], &to_b)), Refusal::OtherGroups(B));
    assert_eq!(refused(&state, &lost(A, 0, &both, &[(2, Some(B))])), Refusal::OtherEpoch(web()));
    assert_eq!(refused(&state, &lost(A, 0, &both, &[(1, Some(ARBITER))])), Refusal::NotANode(ARBITER));
    assert_eq!(refused(&state, &lost(A, 0, &both, &[(1, Some(A))])), Refusal::OtherOwner(web()));
    // A promise of an incarnation that never passed a barrier.
    let early = applied(&State::default(), &[configure(&["web"]), barrier(A, 1), assign(0, A)]);
    assert_eq!(refused(&early, &lost(A, 0, &[(B, 0), (ARBITER, 0)], &to_b)), Refusal::StaleIncarnation(B));
}

#[test]
fn a_promise_is_used_once_and_voided_by_alive() {
    let both = [(B, 1), (ARBITER, 1)];
    let alive = Entry::Conclude { node: A, last: 0, promised: vec![], verdict: Verdict::Alive };
    let state = applied(&owned(), std::slice::from_ref(&alive));
    assert_eq!(state.groups, owned().groups);
    assert_eq!(state.concluded(A), Some(6));
    assert_eq!(refused(&state, &lost(A, 0, &both, &[(1, Some(B))])), Refusal::OtherRound(A));
    assert_eq!(refused(&state, &alive), Refusal::OtherRound(A));
    let once = applied(&owned(), &[lost(A, 0, &both, &[(1, Some(B))])]);
    assert_eq!(refused(&once, &lost(A, 0, &both, &[])), Refusal::OtherRound(A));
}

#[test]
fn a_conclusion_ends_moves_from_and_to_the_node() {
    let from = applied(&moving(), &[lost(A, 0, &[(B, 1), (ARBITER, 1)], &[(1, Some(B))])]);
    assert_eq!((from.groups[&web()].owner, from.groups[&web()].movement), (Some(B), None));
    let to = lost(B, 0, &[(A, 1), (ARBITER, 1)], &[(1, Some(A))]);
    let to = applied(&moving(), &[to]);
    let group = &to.groups[&web()];
    assert_eq!((group.owner, group.epoch, group.movement), (Some(A), 1, None), "the owner goes on");
    for other in [None, Some(B)] {
        let wrong = lost(B, 0, &[(A, 1), (ARBITER, 1)], &[(1, other)]);
        assert_eq!(refused(&moving(), &wrong), Refusal::OtherOwner(web()));
    }
    assert_eq!(refused(&moving(), &lost(B, 0, &[(A, 1), (ARBITER, 1)], &[])), Refusal::OtherGroups(B));
}

#[test]
fn a_release_must_be_the_owners_own() {
    let state = applied(&owned(), &[release(1, A, 1)]);
    let group = &state.groups[&web()];
    assert_eq!((group.owner, group.epoch, group.cause), (None, 1, Cause::FrontDown));
    assert_eq!(refused(&state, &release(1, A, 1)), Refusal::OtherOwner(web()));
    assert_eq!(refused(&owned(), &release(1, B, 1)), Refusal::OtherOwner(web()));
    assert_eq!(refused(&owned(), &release(0, A, 1)), Refusal::OtherEpoch(web()));
    assert_eq!(refused(&owned(), &release(1, A, 2)), Refusal::StaleIncarnation(A));
    let restarted = applied(&owned(), &[barrier(A, 2)]);
    assert_eq!(refused(&restarted, &release(1, A, 1)), Refusal::StaleIncarnation(A));
    let released_while_moving = applied(&moving(), &[release(1, A, 1)]);
    assert_eq!(released_while_moving.groups[&web()].movement, None);
}

#[test]
fn an_assignment_needs_a_group_without_owner() {
    let state = applied(&owned(), &[release(1, A, 1), assign(1, B)]);
    assert_eq!((state.groups[&web()].owner, state.groups[&web()].epoch), (Some(B), 2));
    assert_eq!(refused(&state, &assign(2, A)), Refusal::OtherOwner(web()));
    let free = applied(&owned(), &[release(1, A, 1)]);
    assert_eq!(refused(&free, &assign(0, B)), Refusal::OtherEpoch(web()));
    assert_eq!(refused(&free, &assign(1, ARBITER)), Refusal::NotANode(ARBITER));
    assert_eq!(refused(&free, &assign(1, NOBODY)), Refusal::UnknownVoter(NOBODY));
    let unknown = Entry::Assign { group: GroupId::new("no"), epoch: 0, to: A, cause: Cause::Initial };
    assert_eq!(refused(&free, &unknown), Refusal::UnknownGroup(GroupId::new("no")));
}

#[test]
fn a_planned_move_goes_step_by_step() {
    let state = applied(&moving(), &[diverted(1, 6, 1)]);
    let group = &state.groups[&web()];
    assert_eq!((group.owner, group.epoch, group.cause, group.movement), (Some(B), 2, Cause::Order, None));
    let on_standby = [Entry::Standby { node: A, on: true }, diverted(1, 6, 1)];
    assert_eq!(applied(&moving(), &on_standby).groups[&web()].cause, Cause::Standby);
}

#[test]
fn each_step_of_a_move_is_refused_out_of_turn() {
    let state = owned();
    assert_eq!(refused(&state, &prepare(1, A, 1)), Refusal::OtherOwner(web()));
    assert_eq!(refused(&state, &prepare(0, B, 1)), Refusal::OtherEpoch(web()));
    assert_eq!(refused(&state, &prepare(1, B, 2)), Refusal::StaleIncarnation(B));
    assert_eq!(refused(&state, &prepare(1, ARBITER, 1)), Refusal::NotANode(ARBITER));
    assert_eq!(refused(&moving(), &prepare(1, B, 1)), Refusal::OtherMovement(web()));
    let free = applied(&state, &[release(1, A, 1)]);
    assert_eq!(refused(&free, &prepare(1, B, 1)), Refusal::OtherOwner(web()));

    let prepared = applied(&state, &[prepare(1, B, 1)]);
    assert_eq!(refused(&prepared, &ready(1, 5, 1)), Refusal::OtherMovement(web()));
    assert_eq!(refused(&prepared, &ready(2, 6, 1)), Refusal::OtherEpoch(web()));
    assert_eq!(refused(&prepared, &ready(1, 6, 2)), Refusal::StaleIncarnation(B));
    let target_restarted = applied(&prepared, &[barrier(B, 2)]);
    assert_eq!(refused(&target_restarted, &ready(1, 6, 1)), Refusal::StaleIncarnation(B));
    assert_eq!(refused(&target_restarted, &ready(1, 6, 2)), Refusal::StaleIncarnation(B));

    assert_eq!(refused(&prepared, &diverted(1, 6, 1)), Refusal::NotReady(web()));
    assert_eq!(refused(&moving(), &diverted(1, 5, 1)), Refusal::OtherMovement(web()));
    assert_eq!(refused(&moving(), &diverted(0, 6, 1)), Refusal::OtherEpoch(web()));
    let owner_restarted = applied(&moving(), &[barrier(A, 2)]);
    assert_eq!(refused(&owner_restarted, &diverted(1, 6, 1)), Refusal::StaleIncarnation(A));
    assert_eq!(refused(&owner_restarted, &diverted(1, 6, 2)), Refusal::StaleIncarnation(A));
}

#[test]
fn an_abandoned_move_cannot_be_diverted_nor_a_diverted_one_abandoned() {
    let abandoned = applied(&moving(), &[abandon(1, 6)]);
    assert_eq!((abandoned.groups[&web()].owner, abandoned.groups[&web()].epoch), (Some(A), 1));
    assert_eq!(refused(&abandoned, &diverted(1, 6, 1)), Refusal::OtherMovement(web()));
    assert_eq!(refused(&abandoned, &abandon(1, 6)), Refusal::OtherMovement(web()));
    let done = applied(&moving(), &[diverted(1, 6, 1)]);
    assert_eq!(refused(&done, &abandon(1, 6)), Refusal::OtherEpoch(web()));
    assert_eq!(refused(&done, &abandon(2, 6)), Refusal::OtherMovement(web()));
}

#[test]
fn standby_is_for_nodes() {
    let state = applied(&owned(), &[Entry::Standby { node: A, on: true }]);
    assert!(state.voters[&A].standby);
    assert_eq!(state.groups, owned().groups, "the flag alone moves nothing");
    assert_eq!(refused(&state, &Entry::Standby { node: ARBITER, on: true }), Refusal::NotANode(ARBITER));
    assert_eq!(refused(&state, &Entry::Standby { node: NOBODY, on: true }), Refusal::UnknownVoter(NOBODY));
}

#[test]
fn the_state_survives_its_own_serialization() {
    let json = serde_json::to_string(&moving()).unwrap();
    assert_eq!(serde_json::from_str::<State>(&json).unwrap(), moving());
}
