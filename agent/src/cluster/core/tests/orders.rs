//! Scenarios: releases, operators' orders, planned moves, failures of resources, orderly stops.

use super::*;
use crate::cluster::{placement::Unfit, settings::OrderRefused};

fn move_to(id: u8) -> Order {
    Order::Move { group: g(), to: v(id), force: false }
}

fn order(lab: &mut Lab, at: u8, order: Order) -> Result<(), OrderRefused> {
    let now = lab.now;
    lab.host(v(at)).core.on_order(now, order)
}

#[test]
fn a_front_link_that_goes_down_releases_at_once() {
    let mut lab = serving();
    lab.host(v(1)).front_up = false;
    let from = lab.now;
    lab.run_ms(1);
    assert_eq!(lab.server(), Some(v(2)), "without any wait");
    let commands = since(&lab, 1, from);
    let gate = position(&commands, |c| is_gate(c, false));
    let release = position(&commands, |c| matches!(c, Command::Propose(Entry::Release { .. })));
    let stop = position(&commands, |c| matches!(c, Command::Stop { epoch: 1, .. }));
    assert!(gate < release && release < stop, "{commands:?}");
    let group = lab.state().groups[&g()].clone();
    assert_eq!((group.epoch, group.cause), (2, Cause::FrontDown));
    lab.host(v(1)).front_up = true;
    lab.run_ms(3_000);
    assert_eq!(lab.server(), Some(v(2)));
    lab.assert_safe();
}

#[test]
fn a_released_epoch_is_never_opened_again() {
    let mut lab = serving();
    // The release cannot be committed: the owner reaches nobody who leads.
    lab.power_off(v(2));
    lab.run_ms(1);
    lab.host(v(1)).front_up = false;
    lab.run_ms(1);
    lab.host(v(1)).front_up = true;
    let closed = lab.now;
    lab.run_ms(10);
    assert_eq!(lab.state().groups[&g()].epoch, 1, "not applied yet");
    assert!(!since(&lab, 1, closed).iter().any(|c| is_gate(c, true)));
    lab.until(1_000, "node 1 serves again, at a new epoch", |l| l.server() == Some(v(1)));
    assert_eq!(lab.state().groups[&g()].epoch, 2);
    lab.assert_safe();
}

#[test]
fn without_another_fit_node_the_group_waits_for_one() {
    let mut lab = serving();
    lab.host(v(2)).front_up = false;
    lab.run_ms(50);
    lab.host(v(1)).front_up = false;
    lab.run_ms(500);
    assert_eq!(lab.state().groups[&g()].owner, None);
    let why = lab.core(3).explain(&g()).unwrap();
    assert!(why.candidates.iter().all(|c| !c.against.is_empty()));
    assert!(why.candidates[0].against.contains(&Unfit::FrontDown));
    assert!(why.to_string().contains("has no owner") && why.to_string().contains("a front link is down"));
    lab.host(v(2)).front_up = true;
    lab.until(50, "node 2 serves", |l| l.server() == Some(v(2)));
    lab.assert_safe();
}

#[test]
fn a_group_that_does_not_start_moves_on() {
    let mut lab = Lab::new();
    lab.host(v(1)).failing.insert(g());
    lab.until(3_000, "node 2 serves", |l| l.server() == Some(v(2)));
    lab.run_ms(1_000);
    let group = lab.state().groups[&g()].clone();
    assert_eq!((group.owner, group.cause), (Some(v(2)), Cause::Resource));
    assert_eq!(order(&mut lab, 3, move_to(1)).map_err(|e| e.to_string().contains("failed there")), Err(true));
    lab.assert_safe();
}

#[test]
fn an_order_moves_a_group_with_its_gates_never_both_open() {
    let mut lab = serving();
    // Given to a voter that neither leads nor owns.
    order(&mut lab, 3, move_to(2)).unwrap();
    let from = lab.now;
    lab.until(50, "node 2 serves", |l| l.server() == Some(v(2)));
    let group = lab.state().groups[&g()].clone();
    assert_eq!((group.epoch, group.cause, group.movement), (2, Cause::Order, None));
    let commands = since(&lab, 1, from);
    let gate = position(&commands, |c| is_gate(c, false));
    let diverted = position(&commands, |c| matches!(c, Command::Propose(Entry::Diverted { .. })));
    assert!(gate < diverted, "{commands:?}");
    lab.run_ms(3_000);
    assert_eq!(lab.server(), Some(v(2)), "it stays");
    lab.assert_safe();
}

#[test]
fn orders_that_cannot_be_carried_out_are_refused_with_a_reason() {
    let mut lab = serving();
    let unknown = GroupId::new("nope");
    let to_unknown = Order::Move { group: unknown.clone(), to: v(2), force: false };
    assert_eq!(order(&mut lab, 1, to_unknown), Err(OrderRefused::UnknownGroup(unknown)));
    assert_eq!(order(&mut lab, 1, move_to(3)), Err(OrderRefused::NotANode(v(3))));
    assert_eq!(order(&mut lab, 1, move_to(1)), Err(OrderRefused::AlreadyThere(g(), v(1))));
    let standby = Order::Standby { node: v(3), on: true };
    assert_eq!(order(&mut lab, 1, standby), Err(OrderRefused::NotANode(v(3))));
    lab.host(v(2)).front_up = false;
    lab.run_ms(20);
    let refused = order(&mut lab, 1, move_to(2)).unwrap_err();
    assert!(matches!(&refused, OrderRefused::NotFit { node, .. } if *node == v(2)));
    assert!(refused.to_string().contains("a front link is down"), "{refused}");
}

#[test]
fn standby_empties_a_node_and_online_lets_it_serve_again() {
    let mut lab = serving();
    order(&mut lab, 1, Order::Standby { node: v(1), on: true }).unwrap();
    lab.until(50, "node 2 serves", |l| l.server() == Some(v(2)));
    assert_eq!(lab.state().groups[&g()].cause, Cause::Standby);
    lab.isolate(2, true);
    lab.run_ms(1_000);
    assert_eq!(lab.state().groups[&g()].owner, None, "a node on standby takes nothing");
    order(&mut lab, 3, Order::Standby { node: v(1), on: false }).unwrap();
    lab.until(50, "node 1 serves", |l| l.server() == Some(v(1)));
    lab.assert_safe();
}

#[test]
fn a_move_whose_target_dies_is_given_up_and_the_owner_opens_again() {
    let mut lab = serving();
    let index = lab.log.len() as u64;
    order(&mut lab, 2, move_to(2)).unwrap();
    // Until the log has the preparation; then the target dies before anything else.
    lab.power_off(v(2));
    lab.until(1_000, "the arbiter leads", |l| l.leader() == Some(v(3)));
    lab.run_ms(3_000);
    let group = lab.state().groups[&g()].clone();
    assert_eq!((group.owner, group.epoch, group.movement), (Some(v(1)), 1, None), "since {index}");
    assert_eq!(lab.server(), Some(v(1)));
    lab.assert_safe();
}

#[test]
fn a_diverted_gate_opens_again_when_the_move_is_abandoned() {
    let mut lab = serving();
    let epoch = 1;
    let prepare = Entry::Prepare { group: g(), epoch, to: v(2), to_incarnation: 1 };
    let term = lab.term;
    lab.log.push((term, Some(prepare)));
    let movement = lab.log.len() as u64;
    lab.log.push((term, Some(Entry::Ready { group: g(), epoch, movement, to_incarnation: 1, steers: false })));
    lab.log.push((term, Some(Entry::Abandon { group: g(), epoch, movement })));
    // A late copy of the owner's entry must not move the group any more.
    lab.log.push((term, Some(Entry::Diverted { group: g(), epoch, movement, from_incarnation: 1, steers: false })));
    lab.run_ms(100);
    let group = lab.state().groups[&g()].clone();
    assert_eq!((group.owner, group.epoch, group.movement), (Some(v(1)), 1, None));
    assert_eq!(lab.server(), Some(v(1)));
    assert!(lab.recorded(1, &Fact::Refused("other_movement")));
    lab.assert_safe();
}

#[test]
fn an_orderly_stop_gives_everything_up() {
    let mut lab = serving();
    let now = lab.now;
    lab.host(v(1)).core.begin_shutdown(now);
    assert!(!lab.core(1).is_drained());
    lab.until(50, "drained", |l| l.core(1).is_drained());
    assert_eq!(lab.server(), Some(v(2)));
    assert_eq!(lab.state().groups[&g()].cause, Cause::Shutdown);
    lab.assert_safe();
}

#[test]
fn a_leader_that_stops_hands_over_first() {
    let mut lab = serving();
    let now = lab.now;
    lab.host(v(2)).core.begin_shutdown(now);
    lab.until(50, "the arbiter leads", |l| l.leader() == Some(v(3)));
    lab.run_ms(1);
    assert!(lab.core(2).is_drained());
    assert_eq!(lab.server(), Some(v(1)));
}

#[test]
fn preferences_decide_and_failback_is_off_unless_configured() {
    for failback in [false, true] {
        let web =
            GroupSettings { prefers: vec![(v(2), 10)], failback, stickiness: 5, ..GroupSettings::anywhere("web") };
        let mut lab = Lab::with(&[Role::Node, Role::Node, Role::Arbiter], vec![web], 0);
        lab.until(3_000, "node 2 serves", |l| l.server() == Some(v(2)));
        lab.run_ms(2_000);
        lab.isolate(2, true);
        lab.until(100, "node 1 serves", |l| l.server() == Some(v(1)));
        lab.isolate(2, false);
        lab.run_ms(10_000);
        assert_eq!(lab.server(), Some(if failback { v(2) } else { v(1) }));
        let why = lab.core(1).explain(&g()).unwrap().to_string();
        assert_eq!(why.contains("failback is off"), !failback, "{why}");
        lab.assert_safe();
    }
}

#[test]
fn several_groups_spread_over_the_nodes_and_move_in_one_conclusion() {
    let groups: Vec<_> = ["a", "b", "c", "d"].map(GroupSettings::anywhere).into();
    let mut lab = Lab::with(&[Role::Node, Role::Node, Role::Node], groups, 0);
    lab.run_ms(4_000);
    let owned = |l: &Lab, id| l.state().owned(v(id));
    assert_eq!([owned(&lab, 1), owned(&lab, 2), owned(&lab, 3)].iter().sum::<usize>(), 4);
    assert!((1..=3).all(|i| owned(&lab, i) >= 1), "{:?}", lab.state());
    let before = lab.log.len();
    lab.power_off(v(1));
    lab.until(500, "all are served", |l| l.state().groups.values().all(|g| g.owner.is_some_and(|o| o != v(1))));
    let conclusions = lab.log[before..].iter().filter(|(_, e)| matches!(e, Some(Entry::Conclude { .. }))).count();
    assert_eq!(conclusions, 1);
    assert_eq!(owned(&lab, 2), 2);
    lab.assert_safe();
}

#[test]
fn a_better_node_is_waited_for_only_at_the_start() {
    let web = GroupSettings { prefers: vec![(v(2), 10)], ..GroupSettings::anywhere("web") };
    let mut lab = Lab::with(&[Role::Node, Role::Node, Role::Arbiter], vec![web], 0);
    lab.power_off(v(2));
    lab.run_ms(1_500);
    assert_eq!(lab.server(), None, "the preferred node may still come");
    lab.until(1_000, "node 1 serves", |l| l.server() == Some(v(1)));
    lab.assert_safe();
}
