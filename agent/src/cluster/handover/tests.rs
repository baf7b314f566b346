//! Both sides of a hand-over.

use super::*;
use crate::cluster::{
    bench::{A, ARBITER, B, Bench, messages},
    entry::{Cause, Entry},
    view::RaftView,
};

const NEVER: [u64; 0] = [];

/// The milliseconds, counted from now, in which the command was given.
fn when(bench: &mut Bench, ms: u64, wanted: &Command) -> Vec<u64> {
    (1..=ms).filter(|_| bench.pass_ms(1).contains(wanted)).collect()
}

/// A core that leads.
fn leading(me: VoterId) -> Bench {
    let mut bench = Bench::new(me);
    bench.view.raft.leader = Some(me);
    for peer in bench.view.peers.values_mut() {
        peer.leader = Some(me);
    }
    bench.settle();
    bench
}

#[test]
fn an_owner_that_leads_hands_over_to_the_idle_node() {
    let mut bench = leading(A);
    let aside = Command::StepAside { to: B };
    let mut told = Vec::new();
    for ms in 1..=300 {
        let commands = bench.pass_ms(1);
        if commands.contains(&aside) {
            told.push(ms);
            assert_eq!(messages(&commands), [(B, Message::TakeLeadership { term: 1 })]);
        }
    }
    assert_eq!(told, [200]);
}

#[test]
fn if_nobody_takes_over_the_leader_resumes_and_pauses() {
    let mut bench = leading(A);
    let aside = Command::StepAside { to: B };
    bench.pass_ms(250);
    assert_eq!(when(&mut bench, 1_100, &Command::Resume).len(), 1);
    assert_eq!(when(&mut bench, 4_500, &aside), NEVER);
    assert_eq!(when(&mut bench, 1_000, &aside).len(), 1);
}

#[test]
fn nothing_is_handed_to_a_voter_that_lags_is_wedged_or_not_ready() {
    let aside = Command::StepAside { to: B };
    let arbiter_instead = Command::StepAside { to: ARBITER };
    let mut bench = leading(A);
    bench.peer(B).log_index = 4;
    assert_eq!(when(&mut bench, 300, &arbiter_instead).len(), 1);
    let mut bench = leading(A);
    bench.report(B, |r| r.ready = false);
    assert_eq!(when(&mut bench, 300, &aside), NEVER);
}

#[test]
fn the_arbiter_hands_over_to_an_idle_node_but_not_to_an_owner() {
    let mut bench = leading(ARBITER);
    assert_eq!(when(&mut bench, 1_500, &Command::StepAside { to: B }).len(), 1);
    let mut bench = leading(ARBITER);
    bench.peer(B).log_index = 4;
    bench.report(B, |r| r.ready = false);
    assert!(!bench.pass_ms(2_000).iter().any(|c| matches!(c, Command::StepAside { .. })));
}

#[test]
fn whoever_reaches_more_voters_leads() {
    let mut bench = leading(B);
    bench.report(ARBITER, |_| {});
    bench.beating.remove(&A);
    let commands = bench.pass_ms(300);
    assert!(commands.contains(&Command::StepAside { to: ARBITER }), "{commands:?}");
}

#[test]
fn nothing_is_handed_over_while_a_move_is_open() {
    let mut bench = leading(A);
    bench.apply(&Entry::Prepare { group: crate::cluster::bench::web(), epoch: 1, to: B, to_incarnation: 1 });
    assert_eq!(when(&mut bench, 300, &Command::StepAside { to: B }), NEVER);
}

#[test]
fn the_successor_stands_a_few_times_until_somebody_leads() {
    let take = Message::TakeLeadership { term: 1 };
    let mut bench = Bench::new(ARBITER);
    let now = bench.now;
    bench.core.on_message(now, B, take.clone());
    assert!(bench.settle().contains(&Command::Elect), "at once");
    assert_eq!(when(&mut bench, 500, &Command::Elect).len(), TRIES as usize - 1);

    let mut bench = Bench::new(ARBITER);
    bench.core.on_message(now, B, take.clone());
    bench.settle();
    bench.view.raft = RaftView { leader: Some(ARBITER), term: 2, log_index: 6 };
    bench.settle();
    assert_eq!(when(&mut bench, 500, &Command::Elect), NEVER);
    // A copy that arrives late.
    bench.core.on_message(now, B, take);
    assert_eq!(when(&mut bench, 500, &Command::Elect), NEVER);
}

#[test]
fn an_owner_on_another_machine_is_the_last_choice() {
    let mut bench = leading(A);
    bench.apply(&Entry::Release {
        group: crate::cluster::bench::web(),
        epoch: 1,
        node: A,
        incarnation: 1,
        reason: Cause::Order,
    });
    bench.apply(&Entry::Assign { group: crate::cluster::bench::web(), epoch: 1, to: B, cause: Cause::Order });
    bench.settle();
    bench.stopped(1);
    assert!(!bench.pass_ms(2_000).iter().any(|c| matches!(c, Command::StepAside { .. })), "A is idle now");
}
