//! Scenarios: restarts, new leaders with open rounds, late promises, machines that do not belong.

use super::*;

#[test]
fn an_owner_that_restarts_keeps_its_group_and_opens_after_its_barrier() {
    let mut lab = serving();
    lab.boot(v(1));
    let from = lab.now;
    lab.until(200, "node 1 serves again", |l| l.server() == Some(v(1)));
    assert_eq!(lab.state().groups[&g()].epoch, 1);
    let commands = since(&lab, 1, from);
    let barrier = position(&commands, |c| matches!(c, Command::Propose(Entry::Barrier { incarnation: 2, .. })));
    let leftover = position(&commands, |c| matches!(c, Command::Stop { epoch: 0, .. }));
    let gate = position(&commands, |c| is_gate(c, true));
    let index = position(&commands, |c| matches!(c, Command::SetGateIndex(_)));
    assert!(barrier < leftover && leftover < gate && barrier < index, "{commands:?}");
    let replayed = commands.iter().find(|c| matches!(c, Command::Record(Fact::OwnerChanged { .. })));
    assert_eq!(replayed, None, "what the log replays is no news");
    lab.assert_safe();
}

#[test]
fn a_whole_cluster_that_restarts_keeps_its_owner() {
    let mut lab = serving();
    let log = lab.log.clone();
    for id in lab.ids() {
        lab.power_off(id);
    }
    lab.run_ms(1_000);
    for id in [v(2), v(3)] {
        lab.boot(id);
    }
    lab.run_ms(1_000);
    assert_eq!(lab.state().groups[&g()].owner, Some(v(1)), "the owner is given time to come up");
    lab.boot(v(1));
    lab.until(500, "node 1 serves", |l| l.server() == Some(v(1)));
    assert_eq!(lab.state().groups[&g()].epoch, 1);
    assert!(lab.log.len() > log.len());
    lab.assert_safe();
}

#[test]
fn a_whole_cluster_that_restarts_without_its_owner_serves_after_a_while() {
    let mut lab = serving();
    for id in lab.ids() {
        lab.power_off(id);
    }
    lab.run_ms(1_000);
    for id in [v(2), v(3)] {
        lab.boot(id);
    }
    lab.until(2_500, "node 2 serves", |l| l.server() == Some(v(2)));
    lab.assert_safe();
}

#[test]
fn a_promise_without_a_round_is_made_void() {
    let mut lab = serving();
    let last = lab.state().voters[&v(1)].concluded;
    let now = lab.now;
    // As a deposed leader's request that arrives late.
    lab.host(v(3)).core.on_message(now, v(2), Message::AskPromise { node: v(1), last });
    lab.run_ms(1);
    assert!(lab.recorded(3, &Fact::FloorRaised(v(1))));
    lab.until(200, "the conclusion", |l| l.state().voters[&v(1)].concluded > last);
    lab.run_ms(500);
    assert_eq!(lab.server(), Some(v(1)));
    assert_eq!(lab.state().groups[&g()].epoch, 1);
    let concluded = lab.state().voters[&v(1)].concluded;
    assert!(lab.last(3, |c| *c == Command::SetFloor { peer: v(1), floor: concluded }).is_some());
    lab.assert_safe();
}

#[test]
fn a_new_leader_ends_the_round_of_the_old_one() {
    let roles = [Role::Node, Role::Node, Role::Node, Role::Node, Role::Arbiter];
    let mut lab = Lab::with(&roles, vec![GroupSettings::anywhere("web")], 0);
    lab.until(3_000, "somebody serves", |l| l.server().is_some());
    lab.run_ms(2_500);
    let leader = lab.leader().unwrap();
    assert_eq!(lab.server(), Some(v(1)));
    lab.host(v(1)).wedged = true;
    lab.until(1_000, "the round began", |l| l.recorded(leader.0, &Fact::RoundBegan(v(1), Cause::Wedged)));
    // The hold keeps the promises back for a moment; in it the leader dies.
    lab.run_ms(2);
    lab.power_off(leader);
    assert_eq!(lab.state().groups[&g()].owner, Some(v(1)));
    lab.until(500, "another serves", |l| l.server().is_some_and(|s| s != v(1)));
    lab.assert_safe();
}

#[test]
fn a_late_promise_of_another_round_does_not_count() {
    let mut lab = serving();
    lab.isolate(1, true);
    lab.until(200, "node 2 serves", |l| l.server() == Some(v(2)));
    lab.isolate(1, false);
    lab.run_ms(3_000);
    let stale = Message::Promise { node: v(2), last: 0, incarnation: 1 };
    let old = Message::Promise { node: v(1), last: 0, incarnation: 1 };
    let now = lab.now;
    for id in lab.ids() {
        for from in lab.ids() {
            lab.host(id).core.on_message(now, from, stale.clone());
            lab.host(id).core.on_message(now, from, old.clone());
        }
    }
    let log = lab.log.len();
    lab.run_ms(1_000);
    assert_eq!(lab.log.len(), log);
    assert_eq!(lab.server(), Some(v(2)));
}

#[test]
fn strangers_and_own_echoes_are_ignored() {
    let mut lab = serving();
    let now = lab.now;
    for from in [1, 9] {
        lab.host(v(1)).core.on_message(now, v(from), Message::AskPromise { node: v(2), last: 0 });
        lab.host(v(1)).core.on_message(now, v(from), Message::TakeLeadership { term: 99 });
    }
    let view = View { front_up: true, ..View::default() };
    let commands = lab.host(v(1)).core.step(now, &view);
    assert!(!commands.iter().any(|c| matches!(c, Command::SetFloor { .. } | Command::Elect)), "{commands:?}");
}

#[test]
fn a_later_start_under_the_same_number_halts_this_one() {
    let mut lab = serving();
    let now = lab.now;
    let index = lab.core(1).state().applied + 1;
    let host = lab.host(v(1));
    host.core.on_applied(now, index, Some(&Entry::Barrier { voter: v(1), incarnation: 7 }));
    let commands = host.core.step(now, &View::default());
    assert!(commands.iter().any(|c| matches!(c, Command::Halt(why) if why.contains("later start"))), "{commands:?}");
    assert_eq!(host.core.step(now, &View::default()), []);
}

#[test]
fn another_lease_than_the_clusters_halts() {
    let lab = serving();
    let settings = Settings { timing: crate::cluster::timing::Timing::DEFAULT, ..lab.core(1).settings().clone() };
    let mut core = Core::new(settings, lab.now);
    core.restore(lab.now, lab.state());
    let commands = core.step(lab.now, &View::default());
    assert!(commands.iter().any(|c| matches!(c, Command::Halt(why) if why.contains("another lease"))), "{commands:?}");
}
