//! The leader's side of a round. B leads, A owns the group.

use super::*;
use crate::cluster::{
    bench::{A, ARBITER, B, Bench, messages, proposals, web},
    ids::Role,
    settings::{GroupSettings, Settings},
};

fn asks(commands: &[Command]) -> Vec<VoterId> {
    let asked = |(to, m): (VoterId, Message)| matches!(m, Message::AskPromise { .. }).then_some(to);
    messages(commands).into_iter().filter_map(asked).collect()
}

fn lost_nothing() -> Verdict {
    Verdict::Lost { moves: vec![], cause: Cause::Silent }
}

/// A is silent here and, as it says, at the arbiter. Returns what the leader did about it.
fn silence(bench: &mut Bench) -> Vec<Command> {
    bench.beating.remove(&A);
    bench.pass_ms(25);
    bench.report(ARBITER, |r| r.silent = A.bit());
    bench.settle()
}

fn promise(bench: &mut Bench, last: Index, incarnation: u64) -> Vec<Command> {
    let now = bench.now;
    bench.core.on_message(now, ARBITER, Message::Promise { node: A, last, incarnation });
    bench.settle()
}

fn moves(entries: &[Entry]) -> Option<Vec<(VoterId, Option<VoterId>)>> {
    entries.iter().find_map(|e| match e {
        Entry::Conclude { node, verdict: Verdict::Lost { moves, .. }, .. } => {
            Some(moves.iter().map(|(_, _, to)| (*node, *to)).collect())
        }
        _ => None,
    })
}

#[test]
fn one_voters_silence_is_no_ground_a_majoritys_is() {
    let mut bench = Bench::new(B);
    bench.beating.remove(&A);
    assert_eq!(asks(&bench.pass_ms(1_000)), []);
    bench.report(ARBITER, |r| r.silent = A.bit());
    assert_eq!(asks(&bench.settle()), [ARBITER], "at once, and not the node itself");
    assert_eq!(bench.peer(A).floor, Index::MAX, "the leader promises too");
}

#[test]
fn a_majority_of_promises_concludes_at_once() {
    let mut bench = Bench::new(B);
    silence(&mut bench);
    let entries = proposals(&promise(&mut bench, 0, 1));
    let verdict = Verdict::Lost { moves: vec![(web(), 1, Some(B))], cause: Cause::Silent };
    assert_eq!(entries, [Entry::Conclude { node: A, last: 0, promised: vec![(B, 1), (ARBITER, 1)], verdict }]);
    assert_eq!(proposals(&bench.pass_ms(20)), [], "one is in flight");
    // Its fate is unknown for long: again. Refused or applied: over.
    assert_eq!(proposals(&bench.pass_ms(60)).len(), 1);
    bench.apply(&entries[0]);
    assert_eq!(proposals(&bench.pass_ms(200)), []);
}

#[test]
fn promises_of_another_round_or_incarnation_do_not_count() {
    let mut bench = Bench::new(B);
    silence(&mut bench);
    for (last, incarnation) in [(4, 1), (0, 2), (0, 0)] {
        assert_eq!(proposals(&promise(&mut bench, last, incarnation)), []);
    }
}

#[test]
fn a_promise_is_forgotten_when_its_voter_restarts() {
    let mut bench = Bench::new(B);
    silence(&mut bench);
    let now = bench.now;
    let early = Message::Promise { node: A, last: 0, incarnation: 1 };
    bench.core.on_message(now, ARBITER, early);
    bench.apply(&Entry::Barrier { voter: ARBITER, incarnation: 2 });
    assert_eq!(proposals(&bench.settle()), []);
    bench.peer(ARBITER).incarnation = 2;
    bench.report(ARBITER, |r| r.silent = A.bit());
    assert!(asks(&bench.pass_ms(20)).contains(&ARBITER), "it is asked again");
    assert_eq!(proposals(&promise(&mut bench, 0, 2)).len(), 1);
}

#[test]
fn a_refused_conclusion_is_not_repeated_without_a_pause() {
    let mut bench = Bench::new(B);
    silence(&mut bench);
    let entries = proposals(&promise(&mut bench, 0, 1));
    let stale = Entry::Conclude { node: A, last: 3, promised: vec![], verdict: lost_nothing() };
    bench.apply(&stale);
    assert_eq!(proposals(&bench.settle()), []);
    assert_eq!(proposals(&bench.pass_ms(20)), entries, "later, from what is known by then");
}

#[test]
fn the_leader_asks_again_but_not_too_often() {
    let mut bench = Bench::new(B);
    silence(&mut bench);
    let again = asks(&bench.pass_ms(80)).len();
    assert!((9..=10).contains(&again), "{again}: every two intervals");
    bench.view.raft.leader = Some(ARBITER);
    bench.settle();
    assert_eq!(asks(&bench.pass_ms(80)), [], "only the leader asks");
}

#[test]
fn no_round_begins_where_it_cannot_end() {
    let mut bench = Bench::new(B);
    bench.report(ARBITER, |r| r.silent = A.bit());
    bench.beating.clear();
    bench.pass_ms(1_000);
    assert_eq!(asks(&bench.settle()), []);
    assert_eq!(bench.peer(A).floor, 0);
}

#[test]
fn a_lapsed_lease_gets_two_beats_to_come_back() {
    let mut bench = Bench::new(B);
    bench.peer(A).holds_lease = false;
    bench.settle();
    assert_eq!(asks(&bench.pass_ms(7)), []);
    bench.peer(A).holds_lease = true;
    bench.settle();
    assert_eq!(asks(&bench.pass_ms(100)), []);
    bench.peer(A).holds_lease = false;
    bench.settle();
    assert_eq!(asks(&bench.pass_ms(9)), [ARBITER]);
}

#[test]
fn a_round_that_cannot_end_is_given_up_when_its_node_is_well() {
    let mut bench = Bench::new(B);
    silence(&mut bench);
    bench.beating.insert(A);
    bench.report(ARBITER, |_| {});
    let patience = 4 * bench.core.settings().timing.hold_ns() / MILLISECOND;
    assert_eq!(proposals(&bench.pass_ms(patience - 10)), []);
    let entries = proposals(&bench.pass_ms(20));
    assert_eq!(entries, [Entry::Conclude { node: A, last: 0, promised: vec![], verdict: Verdict::Alive }]);
    bench.apply(&entries[0]);
    bench.settle();
    assert_eq!(bench.peer(A).floor, 6);
    assert_eq!(asks(&bench.pass_ms(500)), [], "nothing chases it");
}

#[test]
fn a_round_about_a_node_that_gave_everything_up_ends() {
    let mut bench = Bench::new(B);
    silence(&mut bench);
    let reason = Cause::FrontDown;
    bench.apply(&Entry::Release { group: web(), epoch: 1, node: A, incarnation: 1, reason });
    let entries = proposals(&bench.settle());
    assert!(entries.contains(&Entry::Conclude { node: A, last: 0, promised: vec![], verdict: Verdict::Alive }));
    assert!(entries.iter().any(|e| matches!(e, Entry::Assign { to: B, .. })), "{entries:?}");
}

#[test]
fn the_prepared_target_is_taken_before_the_better_score() {
    let voters = vec![(A, Role::Node), (B, Role::Node), (VoterId(3), Role::Node)];
    let groups = vec![GroupSettings { prefers: vec![(B, 5)], ..GroupSettings::anywhere("web") }];
    let plain = Bench::new(B).core.settings().clone();
    let mut bench = Bench::of(Settings { voters: voters.clone(), groups, ..plain });
    let lease_ns = bench.core.settings().timing.lease_ns;
    bench.apply(&Entry::Configure { voters, groups: vec![web()], lease_ns });
    for voter in [A, B, ARBITER] {
        bench.apply(&Entry::Barrier { voter, incarnation: 1 });
    }
    bench.apply(&Entry::Assign { group: web(), epoch: 0, to: A, cause: Cause::Initial });
    bench.apply(&Entry::Prepare { group: web(), epoch: 1, to: ARBITER, to_incarnation: 1 });
    bench.settle();
    bench.stopped(0);
    bench.report(A, |_| {});
    bench.pass_ms(100);
    bench.beating.remove(&A);
    bench.pass_ms(25);
    bench.report(ARBITER, |r| r.silent = A.bit());
    bench.settle();
    let entries = proposals(&promise(&mut bench, 0, 1));
    assert_eq!(moves(&entries), Some(vec![(A, Some(ARBITER))]));
}

#[test]
fn without_a_fit_successor_the_conclusion_names_none() {
    let mut bench = Bench::new(B);
    bench.view.front_up = false;
    bench.settle();
    silence(&mut bench);
    assert_eq!(moves(&proposals(&promise(&mut bench, 0, 1))), Some(vec![(A, None)]));
}
