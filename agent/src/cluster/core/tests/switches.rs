//! Scenarios: operators stop groups and put things into maintenance, and faults go on.

use super::*;
use crate::cluster::{
    entry::{Scope, Switch},
    settings::OrderRefused,
    state::Held,
};

fn switch(lab: &mut Lab, what: Switch, on: bool) {
    let now = lab.now;
    lab.host(v(3)).core.on_order(now, Order::Switch { what, on }).unwrap();
}

fn maintenance(scope: Scope) -> Switch {
    Switch::Maintenance(scope)
}

#[test]
fn a_stopped_group_is_given_up_by_its_owner_and_taken_by_nobody_until_it_is_started() {
    let mut lab = serving();
    let from = lab.now;
    switch(&mut lab, Switch::Stopped(g()), true);
    lab.until(50, "nobody owns it", |l| l.state().groups[&g()].owner.is_none());
    lab.run_ms(1);
    let commands = since(&lab, 1, from);
    let gate = position(&commands, |c| is_gate(c, false));
    let release = position(&commands, |c| matches!(c, Command::Propose(Entry::Release { .. })));
    assert!(gate < release && commands.iter().any(|c| matches!(c, Command::Stop { epoch: 1, .. })), "{commands:?}");
    assert_eq!(lab.state().groups[&g()].cause, Cause::Order);
    // Neither time nor another leader nor a restart changes that.
    lab.run_ms(3_000);
    lab.power_off(v(2));
    lab.run_ms(2_000);
    lab.boot(v(2));
    lab.run_ms(3_000);
    assert_eq!((lab.server(), lab.state().groups[&g()].owner), (None, None));
    switch(&mut lab, Switch::Stopped(g()), false);
    lab.until(100, "somebody serves", |l| l.server().is_some());
    assert_eq!(lab.state().groups[&g()].epoch, 2);
    lab.assert_safe();
}

#[test]
fn what_must_not_run_twice_is_stopped_before_a_stopped_group_is_given_up() {
    let db = GroupSettings { stops_first: Some(1_000 * MILLISECOND), ..GroupSettings::anywhere("web") };
    let mut lab = Lab::with(&[Role::Node, Role::Node, Role::Arbiter], vec![db], 0);
    lab.until(3_000, "somebody serves", |l| l.server().is_some());
    lab.run_ms(2_500);
    let owner = lab.server().unwrap();
    let from = lab.now;
    switch(&mut lab, Switch::Stopped(g()), true);
    lab.until(500, "nobody owns it", |l| l.state().groups[&g()].owner.is_none());
    let commands = since(&lab, owner.0, from);
    let stop = position(&commands, |c| matches!(c, Command::Stop { .. }));
    assert!(stop < position(&commands, |c| matches!(c, Command::Propose(Entry::Release { .. }))), "{commands:?}");
    lab.assert_safe();
}

#[test]
fn in_maintenance_nothing_moves_and_a_lost_owner_is_followed_by_nobody() {
    for scope in [Scope::Cluster, Scope::Node(v(1)), Scope::Group(g())] {
        let mut lab = serving();
        switch(&mut lab, maintenance(scope.clone()), true);
        lab.run_ms(20);
        let now = lab.now;
        let order = Order::Move { group: g(), to: v(2), force: false };
        let refused = lab.host(v(1)).core.on_order(now, order).unwrap_err();
        assert!(matches!(refused, OrderRefused::Held { why, .. } if why != Held::Stopped), "{refused}");
        assert!(refused.to_string().contains("baton maintenance off"), "{refused}");
        let standby = Order::Standby { node: v(1), on: true };
        assert!(matches!(lab.host(v(3)).core.on_order(now, standby), Err(OrderRefused::Held { .. })));
        // A front link that somebody works at costs nothing.
        lab.host(v(1)).front_up = false;
        lab.run_ms(500);
        assert_eq!((lab.server(), lab.state().groups[&g()].epoch), (Some(v(1)), 1), "{scope:?}");
        lab.host(v(1)).front_up = true;
        // Safety is never switched off: who is silent loses the group, and gets it back when that is over.
        lab.isolate(1, true);
        lab.run_ms(1_000);
        assert_eq!((lab.server(), lab.state().groups[&g()].owner), (None, None), "{scope:?}");
        lab.isolate(1, false);
        lab.run_ms(3_000);
        assert_eq!(lab.server(), None, "{scope:?}");
        switch(&mut lab, maintenance(scope), false);
        lab.until(100, "somebody serves", |l| l.server().is_some());
        lab.assert_safe();
    }
}

#[test]
fn a_node_in_maintenance_takes_nothing() {
    let mut lab = serving();
    switch(&mut lab, maintenance(Scope::Node(v(2))), true);
    lab.run_ms(20);
    let now = lab.now;
    let order = Order::Move { group: g(), to: v(2), force: false };
    let refused = lab.host(v(1)).core.on_order(now, order).unwrap_err().to_string();
    assert!(refused.contains("it is in maintenance"), "{refused}");
    lab.power_off(v(1));
    lab.run_ms(2_000);
    assert_eq!(lab.state().groups[&g()].owner, None);
    switch(&mut lab, maintenance(Scope::Node(v(2))), false);
    lab.until(100, "node 2 serves", |l| l.server() == Some(v(2)));
    lab.assert_safe();
}

#[test]
fn switches_of_what_there_is_not_are_refused() {
    let mut lab = serving();
    let now = lab.now;
    let unknown = GroupId::new("nope");
    let mut order = |what| lab.host(v(1)).core.on_order(now, Order::Switch { what, on: true });
    assert_eq!(order(Switch::Stopped(unknown.clone())), Err(OrderRefused::UnknownGroup(unknown)));
    assert_eq!(order(maintenance(Scope::Node(v(3)))), Err(OrderRefused::NotANode(v(3))));
}

#[test]
fn a_cleanup_ends_the_refusal_of_a_group_that_failed() {
    let mut lab = Lab::new();
    lab.host(v(1)).failing.insert(g());
    lab.until(3_000, "node 2 serves", |l| l.server() == Some(v(2)));
    lab.run_ms(500);
    lab.host(v(1)).failing.clear();
    let now = lab.now;
    let back = || Order::Move { group: g(), to: v(1), force: false };
    assert!(matches!(lab.host(v(3)).core.on_order(now, back()), Err(OrderRefused::NotFit { .. })));
    assert!(lab.host(v(1)).core.cleanup(now, &g()));
    assert!(!lab.host(v(1)).core.cleanup(now, &g()), "there is nothing more to forget");
    lab.run_ms(50);
    let now = lab.now;
    lab.host(v(3)).core.on_order(now, back()).unwrap();
    lab.until(500, "node 1 serves", |l| l.server() == Some(v(1)));
    lab.assert_safe();
}
