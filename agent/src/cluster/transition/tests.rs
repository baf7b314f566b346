//! This node's groups: the order of gates, index, start and stop; what is never opened again.

use super::*;
use crate::cluster::{
    bench::{A, ARBITER, B, Bench, formation, proposals, web},
    entry::Verdict,
    ids::VoterId,
    message::Order,
    mutations::Mutations,
};

fn gate(epoch: Epoch, open: bool) -> Command {
    role(epoch, if open { GateRole::Owner { steer: None } } else { GateRole::Closed })
}

fn role(epoch: Epoch, role: GateRole) -> Command {
    Command::SetGate { group: web(), epoch, role }
}

fn start(epoch: Epoch, cause: Cause) -> Command {
    Command::Start { group: web(), epoch, cause }
}

fn stop(epoch: Epoch) -> Command {
    Command::Stop { group: web(), epoch }
}

fn acts(commands: Vec<Command>) -> Vec<Command> {
    let act = |c: &Command| {
        matches!(
            c,
            Command::SetGate { .. }
                | Command::SetGateIndex(_)
                | Command::Start { .. }
                | Command::Stop { .. }
                | Command::Receive { .. }
                | Command::Drain { .. }
        )
    };
    commands.into_iter().filter(act).collect()
}

fn lost(node: VoterId, last: Index, by: &[VoterId], epoch: Epoch, to: VoterId) -> Entry {
    let verdict = Verdict::Lost { moves: vec![(web(), epoch, Some(to))], cause: Cause::Silent };
    Entry::Conclude { node, last, promised: by.iter().map(|v| (*v, 1)).collect(), verdict }
}

fn releases(commands: &[Command]) -> usize {
    proposals(commands).iter().filter(|e| matches!(e, Entry::Release { .. })).count()
}

#[test]
fn nothing_opens_before_the_own_barrier() {
    let mut bench = Bench::unstarted(A, Mutations::default());
    let mut all = formation().to_vec();
    let barrier = all.remove(1);
    bench.apply_all(&all);
    assert_eq!(acts(bench.settle()), [], "not even the gate index");
    let index = bench.apply(&barrier);
    assert_eq!(acts(bench.settle()), [Command::SetGateIndex(index), stop(0)]);
    bench.stopped(0);
    assert_eq!(acts(bench.settle()), [gate(1, true), start(1, Cause::Initial)]);

    let mut bench = Bench::unstarted(A, Mutations::for_simulation("skip_owner_barrier").unwrap());
    bench.apply_all(&all);
    let mut done = acts(bench.settle());
    bench.stopped(0);
    done.extend(acts(bench.settle()));
    assert!(done.contains(&gate(1, true)), "without the rule it does: {done:?}");
}

#[test]
fn the_new_owner_opens_in_the_step_after_the_entry() {
    let mut bench = Bench::new(B);
    let index = bench.apply(&lost(A, 0, &[B, ARBITER], 1, B));
    assert_eq!(acts(bench.step()), [gate(2, true), Command::SetGateIndex(index), start(2, Cause::Silent)]);
}

#[test]
fn lost_and_regained_is_stopped_before_it_starts() {
    let mut bench = Bench::new(A);
    bench.core.on_started(bench.now, &web(), 1);
    bench.apply(&lost(A, 0, &[B, ARBITER], 1, B));
    let index = bench.apply(&lost(B, 0, &[A, ARBITER], 2, A));
    assert_eq!(acts(bench.settle()), [gate(1, false), Command::SetGateIndex(index), stop(1)]);
    bench.stopped(7);
    bench.core.on_started(bench.now, &web(), 1);
    assert_eq!(acts(bench.settle()), [], "reports about something else");
    bench.stopped(1);
    assert_eq!(acts(bench.settle()), [gate(3, true), start(3, Cause::Silent)]);
}

#[test]
fn a_given_up_epoch_stays_closed_while_the_release_is_in_flight() {
    let mut bench = Bench::new(A);
    bench.view.front_up = false;
    let commands = bench.settle();
    assert_eq!(acts(commands.clone()), [gate(1, false), stop(1)]);
    assert_eq!(releases(&commands), 1);
    bench.view.front_up = true;
    bench.stopped(1);
    let later = bench.pass_ms(500);
    assert_eq!(acts(later.clone()), []);
    assert!((2..=10).contains(&releases(&later)), "again, but paced: {}", releases(&later));
    bench.apply(&proposals(&commands)[0]);
    bench.apply(&Entry::Assign { group: web(), epoch: 1, to: A, cause: Cause::FrontDown });
    assert!(acts(bench.settle()).contains(&gate(2, true)));

    let mut bench = Bench::with(A, Mutations::for_simulation("reopen_released").unwrap());
    bench.view.front_up = false;
    bench.settle();
    bench.view.front_up = true;
    bench.stopped(1);
    assert!(acts(bench.settle()).contains(&gate(1, true)), "without the rule it opens");

    let mut bench = Bench::with(A, Mutations::for_simulation("skip_release_close").unwrap());
    bench.view.front_up = false;
    let commands = bench.settle();
    assert_eq!((acts(commands.clone()), releases(&commands)), (vec![stop(1)], 1), "without the rule it stays open");
}

#[test]
fn a_failure_is_released_and_refused_for_a_while() {
    let mut bench = Bench::new(A);
    bench.core.on_start_failed(bench.now, &web(), 9);
    assert_eq!(acts(bench.settle()), [], "a report about something else");
    bench.core.on_start_failed(bench.now, &web(), 1);
    let commands = bench.settle();
    let (node, incarnation, reason) = (A, 1, Cause::Resource);
    assert_eq!(proposals(&commands), [Entry::Release { group: web(), epoch: 1, node, incarnation, reason }]);
    bench.apply(&proposals(&commands)[0]);
    bench.stopped(1);
    bench.settle();
    let refuses = |b: &Bench| b.core.explain(&web()).unwrap().candidates[0].against.clone();
    let why = crate::cluster::placement::Unfit::Refuses;
    assert_eq!(refuses(&bench), [why]);
    bench.pass_ms(crate::cluster::settings::FAILURE_EXPIRES / MILLISECOND);
    assert_eq!(refuses(&bench), []);
}

#[test]
fn the_gate_closes_before_diverted_and_only_for_a_target_that_is_heard() {
    let mut bench = Bench::new(A);
    let movement = bench.apply(&Entry::Prepare { group: web(), epoch: 1, to: B, to_incarnation: 1 });
    assert!(!acts(bench.settle()).contains(&gate(1, false)));
    bench.beating.remove(&B);
    bench.pass_ms(30);
    let ready = Entry::Ready { group: web(), epoch: 1, movement, to_incarnation: 1, steers: false };
    bench.apply(&ready);
    assert!(!acts(bench.settle()).contains(&gate(1, false)));
    bench.beating.insert(B);
    bench.pass_ms(1);
    let commands = bench.settle();
    assert_eq!(acts(commands.clone()), [gate(1, false)]);
    let diverted = Entry::Diverted { group: web(), epoch: 1, movement, from_incarnation: 1, steers: false };
    assert_eq!(proposals(&commands), std::slice::from_ref(&diverted));
    // It stays closed although the target falls silent: the entry may be on its way.
    bench.beating.remove(&B);
    assert!(!acts(bench.pass_ms(100)).contains(&gate(1, true)));
    let mut moved = Bench::new(B);
    for entry in [Entry::Prepare { group: web(), epoch: 1, to: B, to_incarnation: 1 }, ready, diverted] {
        moved.apply(&entry);
    }
    assert!(acts(moved.settle()).contains(&gate(2, true)), "a snapshot's reader sees the result alone");
    bench.apply(&Entry::Abandon { group: web(), epoch: 1, movement });
    assert!(acts(bench.settle()).contains(&gate(1, true)));
}

#[test]
fn an_earlier_incarnations_move_does_not_close_the_gate() {
    let mut bench = Bench::unstarted(A, Mutations::default());
    let all = formation();
    bench.apply_all(&[all[0].clone(), all[2].clone(), all[3].clone()]);
    bench.apply(&Entry::Barrier { voter: VoterId(2), incarnation: 2 });
    bench.apply(&all[4]);
    let movement = bench.apply(&Entry::Prepare { group: web(), epoch: 1, to: B, to_incarnation: 2 });
    bench.apply(&Entry::Ready { group: web(), epoch: 1, movement, to_incarnation: 2, steers: false });
    bench.pass_ms(10);
    bench.apply(&all[1]);
    bench.settle();
    bench.stopped(0);
    let commands = bench.settle();
    assert!(acts(commands.clone()).contains(&gate(1, true)));
    assert!(!proposals(&commands).iter().any(|e| matches!(e, Entry::Diverted { .. })));
}

#[test]
fn a_node_that_may_not_run_a_group_gives_it_up() {
    let settings = Bench::new(A).core.settings().clone();
    let mut bench = Bench::of(crate::cluster::settings::Settings { groups: vec![], ..settings });
    bench.apply_all(&formation());
    let commands = bench.settle();
    assert_eq!(releases(&commands), 1);
    assert_eq!(acts(commands), [Command::SetGateIndex(5)]);
}

fn prepared(steers: bool) -> [Entry; 2] {
    [
        Entry::Prepare { group: web(), epoch: 1, to: B, to_incarnation: 1 },
        Entry::Ready { group: web(), epoch: 1, movement: 6, to_incarnation: 1, steers },
    ]
}

fn diverted(steers: bool) -> Entry {
    Entry::Diverted { group: web(), epoch: 1, movement: 6, from_incarnation: 1, steers }
}

#[test]
fn the_owner_forwards_from_before_diverted_until_its_flows_have_ended() {
    let mut bench = Bench::new(A);
    bench.view.steers = B.bit();
    bench.core.on_started(bench.now, &web(), 1);
    bench.apply_all(&prepared(true));
    let commands = bench.settle();
    assert!(acts(commands.clone()).contains(&role(1, GateRole::Drain { to: B })), "{commands:?}");
    assert_eq!(proposals(&commands), [diverted(true)]);
    bench.apply(&diverted(true));
    assert!(acts(bench.settle()).contains(&Command::Drain { group: web(), epoch: 1 }));
    assert_eq!(acts(bench.pass_ms(3_000)), [], "it goes on for as long as it takes");
    let summary = DrainSummary { kept: 3, ..DrainSummary::default() };
    bench.core.on_drained(bench.now, &web(), 1, summary);
    let drained = Entry::Drained { group: web(), epoch: 2, node: A, summary: Some(summary) };
    assert_eq!(proposals(&bench.settle()), std::slice::from_ref(&drained));
    bench.apply(&drained);
    let acts = acts(bench.settle());
    assert!(acts.contains(&gate(1, false)) && acts.contains(&stop(1)), "{acts:?}");
}

#[test]
fn without_steering_the_gate_closes_and_nothing_drains() {
    for (ready, view) in [(false, B.bit()), (true, 0)] {
        let mut bench = Bench::new(A);
        bench.view.steers = view;
        bench.apply_all(&prepared(ready));
        let commands = bench.settle();
        assert!(acts(commands.clone()).contains(&gate(1, false)));
        assert_eq!(proposals(&commands), [diverted(false)]);
        bench.apply(&diverted(false));
        assert_eq!(bench.core.state().groups[&web()].drain, None);
        assert!(acts(bench.settle()).contains(&stop(1)));
    }
}

#[test]
fn the_target_receives_before_it_says_ready_and_owns_with_its_peers_flows_known() {
    let mut bench = Bench::new(B);
    bench.view.steers = A.bit();
    let [prepare, ready] = prepared(true);
    let movement = bench.apply(&prepare);
    let commands = bench.settle();
    assert!(proposals(&commands).is_empty(), "not before its resources can receive");
    let acts_now = acts(commands);
    assert!(acts_now.contains(&role(1, GateRole::Receive { from: A })), "{acts_now:?}");
    assert!(acts_now.contains(&Command::Receive { group: web(), movement }));
    bench.core.on_received(bench.now, &web(), movement);
    assert_eq!(proposals(&bench.settle()), std::slice::from_ref(&ready));
    bench.apply(&ready);
    bench.settle();
    bench.apply(&diverted(true));
    let acts_then = acts(bench.settle());
    assert!(acts_then.contains(&role(2, GateRole::Owner { steer: Some(A) })), "{acts_then:?}");
    assert!(acts_then.contains(&start(2, Cause::Order)) && !acts_then.contains(&stop(1)));
    bench.core.on_started(bench.now, &web(), 2);
    bench.apply(&Entry::Drained { group: web(), epoch: 2, node: A, summary: None });
    assert_eq!(acts(bench.settle())[0], gate(2, true), "nothing is steered any more");
}

#[test]
fn a_target_that_cannot_receive_refuses_and_stops_what_it_prepared() {
    let mut bench = Bench::new(B);
    bench.view.steers = A.bit();
    let movement = bench.apply(&prepared(true)[0]);
    bench.settle();
    bench.core.on_receive_failed(bench.now, &web(), movement, "no back end is up".to_owned());
    let commands = bench.settle();
    assert!(acts(commands.clone()).contains(&stop(0)));
    // It leads too, and gives the move up.
    assert_eq!(proposals(&commands), [Entry::Abandon { group: web(), epoch: 1, movement }]);
    let order = Order::Move { group: web(), to: B, force: false };
    assert!(bench.core.check_order(bench.now, &order).unwrap_err().to_string().contains("being moved already"));
    bench.apply(&Entry::Abandon { group: web(), epoch: 1, movement });
    bench.settle();
    let refused = bench.core.check_order(bench.now, &order).unwrap_err().to_string();
    assert!(refused.contains("not ready there: no back end is up"), "{refused}");
    bench.stopped(0);
    assert!(!acts(bench.pass_ms(1_000)).contains(&Command::Receive { group: web(), movement }));
}

#[test]
fn what_drains_here_and_comes_back_goes_on_without_a_stop() {
    let draining = || {
        let mut bench = Bench::new(A);
        bench.view.steers = B.bit();
        bench.core.on_started(bench.now, &web(), 1);
        bench.apply_all(&prepared(true));
        bench.settle();
        bench.apply(&diverted(true));
        bench.settle();
        bench
    };
    // The new owner dies.
    let mut bench = draining();
    bench.apply(&lost(B, 0, &[A, ARBITER], 2, A));
    let acts_now = acts(bench.settle());
    assert!(acts_now.contains(&gate(3, true)) && acts_now.contains(&start(3, Cause::Silent)), "{acts_now:?}");
    assert!(!acts_now.contains(&stop(1)));
    // A planned move back.
    let mut bench = draining();
    let movement = bench.apply(&Entry::Prepare { group: web(), epoch: 2, to: A, to_incarnation: 1 });
    let acts_now = acts(bench.settle());
    assert!(acts_now.contains(&role(2, GateRole::Receive { from: B })), "{acts_now:?}");
    bench.core.on_received(bench.now, &web(), movement);
    bench.settle();
    bench.apply(&Entry::Abandon { group: web(), epoch: 2, movement });
    let acts_now = acts(bench.settle());
    assert!(acts_now.contains(&role(1, GateRole::Drain { to: B })), "given up, its flows go on: {acts_now:?}");
    assert!(acts_now.contains(&Command::Drain { group: web(), epoch: 1 }) && !acts_now.contains(&stop(1)));
}

#[test]
fn a_restarted_agent_ends_the_drain_it_knows_nothing_of() {
    let mut bench = Bench::unstarted(A, Mutations::default());
    bench.view.steers = B.bit();
    bench.apply_all(&formation());
    bench.apply_all(&prepared(true));
    bench.apply(&diverted(true));
    bench.settle();
    bench.stopped(0);
    assert_eq!(proposals(&bench.settle()), [Entry::Drained { group: web(), epoch: 2, node: A, summary: None }]);
}

/// A core of voter 1 in a second incarnation that found a gate set, with the log up to its own barrier.
fn adopting(role: GateRole, epoch: Epoch, log: &[Entry]) -> Bench {
    let plain = Bench::unstarted(A, Mutations::default()).core.settings().clone();
    let adopted = [(web(), (epoch, role))].into();
    let mut bench = Bench::of(crate::cluster::settings::Settings { incarnation: 2, adopted, ..plain });
    bench.view.steers = B.bit();
    bench.apply_all(&formation());
    bench.apply_all(log);
    assert_eq!(acts(bench.settle()), [], "nothing before the own barrier");
    bench
}

fn barrier(bench: &mut Bench) -> Vec<Command> {
    bench.apply(&Entry::Barrier { voter: A, incarnation: 2 });
    acts(bench.settle())
}

#[test]
fn an_adopted_owner_goes_on_without_closing() {
    let mut bench = adopting(GateRole::Owner { steer: None }, 1, &[]);
    assert_eq!(barrier(&mut bench), [Command::SetGateIndex(6), start(1, Cause::Initial)]);
    bench.core.on_started(bench.now, &web(), 1);
    assert_eq!(acts(bench.pass_ms(500)), []);
    // A planned move that its former self was about to divert: it opens again.
    let mut bench = adopting(GateRole::Drain { to: B }, 1, &prepared(true));
    let acts = barrier(&mut bench);
    assert!(acts.starts_with(&[gate(1, true)]) && acts.contains(&start(1, Cause::Initial)), "{acts:?}");
    assert!(!acts.contains(&stop(0)));
}

#[test]
fn an_adopted_drain_goes_on_as_long_as_the_log_says_so() {
    let moved = |more: &[Entry]| [&prepared(true)[..], &[diverted(true)], more].concat();
    let mut bench = adopting(GateRole::Drain { to: B }, 1, &moved(&[]));
    assert_eq!(barrier(&mut bench), [Command::SetGateIndex(9), Command::Drain { group: web(), epoch: 1 }]);
    let over = Entry::Drained { group: web(), epoch: 2, node: A, summary: None };
    let mut bench = adopting(GateRole::Drain { to: B }, 1, &moved(&[over]));
    assert_eq!(barrier(&mut bench), [gate(1, false), Command::SetGateIndex(10), stop(0)]);
}

#[test]
fn what_the_log_does_not_say_any_more_is_closed_first_and_then_stopped() {
    // It was found silent while it restarted, and B has the group.
    let lost = lost(A, 0, &[B, ARBITER], 1, B);
    let mut bench = adopting(GateRole::Owner { steer: None }, 1, &[lost]);
    assert_eq!(barrier(&mut bench), [gate(1, false), Command::SetGateIndex(7), stop(0)]);
    let mut bench = adopting(GateRole::Receive { from: B }, 1, &[]);
    assert!(barrier(&mut bench).starts_with(&[gate(1, false)]));
    // Its keeper ended too early: the shell has closed the gates, and this is an ordinary start.
    let mut bench = adopting(GateRole::Owner { steer: None }, 1, &[]);
    bench.core.forget_adopted(bench.now);
    assert_eq!(barrier(&mut bench), [Command::SetGateIndex(6), stop(0)]);
}

#[test]
fn before_a_restart_the_leadership_goes_and_the_groups_stay() {
    let mut bench = Bench::new(A);
    bench.core.begin_restart(bench.now);
    let commands = bench.settle();
    assert_eq!((releases(&commands), acts(commands)), (0, vec![]));
    assert!(bench.core.may_restart() && !bench.core.is_drained());
    let mut bench = Bench::new(B);
    bench.core.begin_restart(bench.now);
    assert!(!bench.core.may_restart(), "it leads");
    bench.settle();
    bench.pass_ms(1_100);
    assert!(bench.core.may_restart(), "nobody took it");
}
