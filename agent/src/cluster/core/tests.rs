//! Scenarios: cores run by hand through starts, faults and orders. Time is the lab's own, so bounds on it are exact.

mod chaos;
mod constraints;
mod lab;
mod orders;
mod restarts;
mod switches;

use lab::{Lab, g, v};

use super::*;
use crate::cluster::command::GateRole;
use crate::cluster::{entry::Cause, ids::Role};

/// A cluster that has started: node 1 serves, node 2 leads, 3 is the arbiter.
fn serving() -> Lab {
    let mut lab = Lab::new();
    lab.until(3_000, "somebody serves", |l| l.server().is_some());
    lab.run_ms(2_500);
    assert_eq!((lab.server(), lab.leader()), (Some(v(1)), Some(v(2))));
    lab
}

fn is_gate(c: &Command, open: bool) -> bool {
    matches!(c, Command::SetGate { role, .. } if matches!(role, GateRole::Owner { .. }) == open)
}

/// The positions of commands of host `id` since `from`.
fn since(lab: &Lab, id: u8, from: Nanos) -> Vec<Command> {
    lab.hosts[&v(id)].done.iter().filter(|(at, _)| *at >= from).map(|(_, c)| c.clone()).collect()
}

fn position(commands: &[Command], wanted: impl Fn(&Command) -> bool) -> usize {
    commands.iter().position(wanted).expect("the command was given")
}

#[test]
fn a_fresh_cluster_forms_and_serves() {
    let lab = serving();
    let state = lab.state();
    assert_eq!(state.voters.len(), 3);
    assert!(state.voters.values().all(|s| s.incarnation == 1 && s.barrier > 0));
    let group = &state.groups[&g()];
    assert_eq!((group.owner, group.epoch, group.cause), (Some(v(1)), 1, Cause::Initial));
    assert!((1..=3).all(|i| *lab.core(i).state() == state), "every replica has the same state");
    lab.assert_safe();
}

#[test]
fn a_quiet_cluster_stays_quiet() {
    let mut lab = serving();
    let from = lab.now;
    let log = lab.log.len();
    lab.run_ms(5_000);
    assert_eq!(lab.log.len(), log, "{:?}", &lab.log[log..]);
    for id in 1..=3 {
        assert_eq!(since(&lab, id, from + 1), []);
    }
}

#[test]
fn a_silent_owner_is_replaced_within_hold_and_one_beat() {
    let mut lab = serving();
    lab.isolate(1, true);
    let (start, hold) = (lab.now, lab.core(1).settings().timing.hold_ns());
    lab.until(100, "node 2 serves", |l| l.server() == Some(v(2)));
    // One beat was up to an interval old; everything after the hold happens in the same instant of the lab.
    assert!(lab.now - start <= hold + lab::TICK, "{} us", (lab.now - start) / 1000);
    let group = lab.state().groups[&g()].clone();
    assert_eq!((group.owner, group.epoch, group.cause), (Some(v(2)), 2, Cause::Silent));
    // Gate, gate index, start: in this order, in one step.
    let commands = since(&lab, 2, lab.now);
    let gate = position(&commands, |c| is_gate(c, true));
    assert!(matches!(commands[gate + 1], Command::SetGateIndex(_)), "{commands:?}");
    assert!(matches!(commands[gate + 2], Command::Start { epoch: 2, cause: Cause::Silent, .. }), "{commands:?}");
    // Nobody moved by two entries where one does.
    assert!(!lab.log.iter().any(|(_, e)| matches!(e, Some(Entry::Assign { epoch: 1.., .. }))));
    lab.run_ms(3_000);
    lab.isolate(1, false);
    lab.run_ms(3_000);
    assert_eq!(lab.server(), Some(v(2)), "no fail-back");
    assert!(lab.recorded(2, &Fact::Returned(v(1))));
    assert!(lab.last(2, |c| matches!(c, Command::Announce { .. })).is_some(), "the winner announces again");
    assert!(lab.last(1, |c| matches!(c, Command::Stop { epoch: 1, .. })).is_some());
    lab.assert_safe();
}

#[test]
fn a_second_failover_is_as_fast_as_the_first() {
    let mut lab = serving();
    let hold = lab.core(1).settings().timing.hold_ns();
    for (loser, winner) in [(1, 2), (2, 1), (1, 2)] {
        lab.isolate(loser, true);
        let start = lab.now;
        lab.until(100, "the other serves", |l| l.server() == Some(v(winner)));
        assert!(lab.now - start <= hold + lab::TICK, "{} us", (lab.now - start) / 1000);
        lab.run_ms(2_000);
        lab.isolate(loser, false);
        lab.run_ms(3_000);
        assert_eq!(lab.server(), Some(v(winner)));
        assert_ne!(lab.leader(), lab.server(), "the leader is off the owner again");
    }
    lab.assert_safe();
}

#[test]
fn a_killed_agent_stops_serving_and_is_replaced() {
    let mut lab = serving();
    lab.kill(v(1));
    lab.until(100, "node 2 serves", |l| l.server() == Some(v(2)));
    lab.run_ms(100);
    lab.boot(v(1));
    lab.run_ms(3_000);
    assert_eq!(lab.server(), Some(v(2)));
    assert_eq!(lab.state().voters[&v(1)].incarnation, 2);
    lab.assert_safe();
}

#[test]
fn the_leaders_death_disturbs_no_owner() {
    let mut lab = serving();
    lab.power_off(v(2));
    lab.until(200, "the arbiter leads", |l| l.leader() == Some(v(3)));
    lab.run_ms(1_000);
    assert_eq!(lab.state().groups[&g()].epoch, 1);
    assert_eq!(lab.server(), Some(v(1)));
    assert!(lab.last(1, |c| is_gate(c, false)).is_none());
    // And back: the standby node leads again.
    lab.boot(v(2));
    lab.until(4_000, "node 2 leads again", |l| l.leader() == Some(v(2)));
    lab.run_ms(3_000);
    assert_eq!((lab.leader(), lab.server()), (Some(v(2)), Some(v(1))));
    lab.assert_safe();
}

#[test]
fn owner_and_leader_may_be_the_same_and_die() {
    let mut lab = serving();
    lab.power_off(v(2));
    lab.until(200, "the arbiter leads", |l| l.leader() == Some(v(3)));
    lab.boot(v(2));
    lab.run_ms(100);
    lab.power_off(v(3));
    lab.until(500, "a node leads", |l| l.leader().is_some_and(|x| x != v(3)));
    assert_eq!(lab.leader(), Some(v(2)), "the node that owns nothing stands first");
    lab.boot(v(3));
    lab.run_ms(500);
    lab.isolate(1, true);
    lab.until(200, "node 2 serves although it leads", |l| l.server() == Some(v(2)));
    // Before it can hand the leadership to the arbiter, it dies too.
    lab.isolate(1, false);
    lab.run_ms(50);
    lab.power_off(v(2));
    lab.until(200, "node 1 serves", |l| l.server() == Some(v(1)));
    lab.assert_safe();
}

#[test]
fn an_owner_that_hears_nobody_is_replaced() {
    let mut lab = serving();
    lab.cut(2, 1, true);
    lab.cut(3, 1, true);
    lab.until(300, "node 2 serves", |l| l.server() == Some(v(2)));
    assert_eq!(lab.state().groups[&g()].cause, Cause::NoLease);
    lab.assert_safe();
}

#[test]
fn an_owner_that_nobody_hears_is_replaced() {
    let mut lab = serving();
    lab.cut(1, 2, true);
    lab.cut(1, 3, true);
    lab.until(100, "node 2 serves", |l| l.server() == Some(v(2)));
    assert_eq!(lab.state().groups[&g()].cause, Cause::Silent);
    lab.assert_safe();
}

#[test]
fn a_wedged_owner_is_replaced_and_stops_when_it_wakes() {
    let mut lab = serving();
    lab.host(v(1)).wedged = true;
    lab.until(1_000, "node 2 serves", |l| l.server() == Some(v(2)));
    assert_eq!(lab.state().groups[&g()].cause, Cause::Wedged);
    assert!(lab.hosts[&v(1)].gates.contains_key(&g()), "its gate stays open: only the lease stops it");
    lab.run_ms(500);
    lab.host(v(1)).wedged = false;
    lab.run_ms(500);
    assert!(lab.hosts[&v(1)].gates.is_empty());
    assert_eq!(lab.server(), Some(v(2)));
    lab.assert_safe();
}

#[test]
fn a_wedged_leader_is_replaced() {
    let mut lab = serving();
    lab.host(v(2)).wedged = true;
    lab.until(1_000, "the arbiter leads", |l| l.leader() == Some(v(3)));
    lab.run_ms(500);
    assert_eq!(lab.server(), Some(v(1)));
    lab.assert_safe();
}

#[test]
fn the_link_between_the_nodes_alone_moves_the_leadership_not_the_group() {
    let mut lab = serving();
    lab.cut(1, 2, true);
    lab.cut(2, 1, true);
    lab.until(2_000, "the arbiter leads: it reaches both", |l| l.leader() == Some(v(3)));
    lab.run_ms(3_000);
    assert_eq!((lab.leader(), lab.server()), (Some(v(3)), Some(v(1))));
    assert_eq!(lab.state().groups[&g()].epoch, 1);
    // The owner is followed by the leader, so a release goes through.
    lab.host(v(1)).front_up = false;
    lab.until(100, "node 2 serves", |l| l.server() == Some(v(2)));
    lab.assert_safe();
}
