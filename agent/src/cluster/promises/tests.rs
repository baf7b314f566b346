//! A voter's side of a round, rule by rule; and that each rule is seen when it is left out.

use super::*;
use crate::cluster::{
    bench::{A, ARBITER, B, Bench, formation, messages, web},
    entry::{Cause, Entry, Verdict},
    ids::MILLISECOND,
    mutations::Mutations,
};

const ALIVE: Verdict = Verdict::Alive;

fn ask(bench: &mut Bench, last: Index) {
    let now = bench.now;
    bench.core.on_message(now, B, Message::AskPromise { node: A, last });
}

fn promise(last: Index) -> (VoterId, Message) {
    (B, Message::Promise { node: A, last, incarnation: 1 })
}

fn conclude_alive(bench: &mut Bench, last: Index) -> Index {
    bench.apply(&Entry::Conclude { node: A, last, promised: vec![], verdict: ALIVE })
}

fn hold(bench: &Bench) -> u64 {
    bench.core.settings().timing.hold_ns() / MILLISECOND + 1
}

fn mutated(name: &str) -> Bench {
    Bench::with(ARBITER, Mutations::for_simulation(name).unwrap())
}

#[test]
fn floors_are_infinite_until_the_own_barrier_and_the_conclusion_after_it() {
    let mut bench = Bench::unstarted(ARBITER, Mutations::default());
    let entries = formation();
    for entry in &entries[..3] {
        bench.apply(entry);
    }
    let concluded = conclude_alive(&mut bench, 0);
    bench.peer(A).floor = 0;
    bench.settle();
    assert_eq!(bench.peer(A).floor, Index::MAX);
    bench.apply(&entries[3]);
    bench.settle();
    assert_eq!(bench.peer(A).floor, concluded);
    assert_eq!(bench.peer(B).floor, 0, "there was no conclusion about it");
}

#[test]
fn the_floor_goes_up_first_and_the_hold_counts_from_the_r_read_after_it() {
    let mut bench = Bench::new(ARBITER);
    ask(&mut bench, 0);
    let commands = bench.step();
    assert!(commands.contains(&Command::SetFloor { peer: A, floor: Index::MAX }));
    assert_eq!(messages(&commands), []);
    // The last acknowledgement went out while the floor was going up.
    bench.now += MILLISECOND;
    let r = bench.now;
    bench.peer(A).floor = Index::MAX;
    bench.peer(A).last_acknowledged = r;
    let end = r + bench.core.settings().timing.hold_ns();
    bench.beating.remove(&A);
    for (at, sent) in [(end - 1, vec![]), (end, vec![promise(0)])] {
        bench.now = at;
        assert_eq!(messages(&bench.step()), sent);
    }
}

#[test]
fn nothing_is_promised_while_the_view_does_not_show_the_floor() {
    let mut bench = Bench::new(ARBITER);
    ask(&mut bench, 0);
    bench.now += 1_000 * MILLISECOND;
    for _ in 0..3 {
        let commands = bench.step();
        assert!(commands.contains(&Command::SetFloor { peer: A, floor: Index::MAX }));
        assert_eq!(messages(&commands), []);
    }
}

#[test]
fn a_hold_that_is_over_is_answered_at_once_and_again() {
    let mut bench = Bench::new(ARBITER);
    bench.beating.remove(&A);
    bench.pass_ms(100);
    for _ in 0..2 {
        ask(&mut bench, 0);
        assert_eq!(messages(&bench.settle()), [promise(0)]);
    }
    assert_eq!(messages(&bench.pass_ms(100)), [], "only when asked");
}

#[test]
fn a_request_for_another_round_is_not_answered_until_it_matches() {
    let mut bench = Bench::new(ARBITER);
    bench.beating.remove(&A);
    bench.pass_ms(100);
    let index = bench.core.state().applied + 1;
    ask(&mut bench, index);
    assert_eq!(messages(&bench.settle()), []);
    assert_eq!(bench.peer(A).floor, 0);
    assert_eq!(conclude_alive(&mut bench, 0), index);
    bench.settle();
    let wait = hold(&bench);
    assert_eq!(messages(&bench.pass_ms(wait)), [promise(index)]);
    // One that is over already never is.
    conclude_alive(&mut bench, index);
    ask(&mut bench, 0);
    ask(&mut bench, index);
    bench.settle();
    assert_eq!(messages(&bench.pass_ms(wait)), []);
}

#[test]
fn a_promise_stands_until_the_conclusion_which_is_the_new_floor() {
    let mut bench = Bench::new(ARBITER);
    ask(&mut bench, 0);
    bench.settle();
    bench.pass_ms(1_000);
    assert_eq!(bench.peer(A).floor, Index::MAX);
    let promised = vec![(B, 1), (ARBITER, 1)];
    let verdict = Verdict::Lost { moves: vec![(web(), 1, Some(B))], cause: Cause::Silent };
    let index = bench.apply(&Entry::Conclude { node: A, last: 0, promised, verdict });
    bench.settle();
    assert_eq!(bench.peer(A).floor, index);
}

#[test]
fn a_late_timer_and_a_late_barrier_start_the_hold_afresh() {
    let mut bench = Bench::new(ARBITER);
    bench.beating.remove(&A);
    bench.pass_ms(100);
    bench.view.punctual_since = bench.now;
    ask(&mut bench, 0);
    assert_eq!(messages(&bench.settle()), []);
    let wait = hold(&bench);
    assert_eq!(messages(&bench.pass_ms(wait)), [promise(0)]);

    // After a restart R is unknown: an earlier incarnation may have acknowledged until just before.
    let mut bench = Bench::unstarted(ARBITER, Mutations::default());
    bench.beating.clear();
    bench.pass_ms(100);
    bench.apply_all(&formation());
    ask(&mut bench, 0);
    assert_eq!(messages(&bench.settle()), []);
    assert_eq!(messages(&bench.pass_ms(wait - 2)), []);
    assert_eq!(messages(&bench.pass_ms(2)), [promise(0)]);
}

#[test]
fn nobody_promises_before_the_own_barrier_or_about_itself() {
    let mut bench = Bench::unstarted(ARBITER, Mutations::default());
    bench.beating.clear();
    bench.apply_all(&formation()[..3]);
    ask(&mut bench, 0);
    bench.settle();
    assert_eq!(messages(&bench.pass_ms(1_000)), []);
    let mut bench = Bench::new(A);
    ask(&mut bench, 0);
    bench.settle();
    assert_eq!(messages(&bench.pass_ms(1_000)), []);
}

#[test]
fn each_rule_that_is_left_out_shows() {
    let mut bench = mutated("skip_hold");
    ask(&mut bench, 0);
    assert_eq!(messages(&bench.settle()), [promise(0)], "although it was acknowledged a moment ago");

    let mut bench = mutated("skip_floor_raise");
    ask(&mut bench, 0);
    bench.beating.clear();
    bench.settle();
    let wait = hold(&bench);
    assert_eq!(messages(&bench.pass_ms(wait)), [promise(0)]);
    assert_eq!(bench.peer(A).floor, 0);

    let mut bench = mutated("skip_reread");
    bench.beating.clear();
    bench.pass_ms(100);
    ask(&mut bench, 0);
    bench.step();
    let now = bench.now;
    *bench.peer(A) = crate::cluster::view::PeerView { floor: Index::MAX, last_acknowledged: now, ..*bench.peer(A) };
    assert_eq!(messages(&bench.step()), [promise(0)], "although it acknowledged while the floor went up");

    let mut bench = mutated("skip_conclusion_floor");
    conclude_alive(&mut bench, 0);
    bench.settle();
    assert_eq!(bench.peer(A).floor, 0);

    let all = formation();
    let mut bench = Bench::unstarted(ARBITER, Mutations::for_simulation("floor_zero_after_restart").unwrap());
    bench.apply_all(&all[..3]);
    bench.settle();
    assert_eq!(bench.peer(A).floor, 0);

    let mut bench = Bench::unstarted(ARBITER, Mutations::for_simulation("skip_barrier").unwrap());
    bench.beating.clear();
    bench.apply_all(&all[..3]);
    bench.pass_ms(100);
    ask(&mut bench, 0);
    assert_eq!(messages(&bench.settle()), [promise(0)]);

    let mut bench = Bench::unstarted(ARBITER, Mutations::for_simulation("skip_hold_after_barrier").unwrap());
    bench.beating.clear();
    bench.apply_all(&all);
    ask(&mut bench, 0);
    assert_eq!(messages(&bench.settle()), [promise(0)]);
}
