//! Scenarios: groups that come after others, are with them, keep apart from them, or need room.

use super::*;
use crate::cluster::{
    placement::{Amount, Constraints, Room, Unfit},
    settings::OrderRefused,
};

const PAIR: [Role; 3] = [Role::Node, Role::Node, Role::Arbiter];

fn id(name: &str) -> GroupId {
    GroupId::new(name)
}

fn group(name: &str, constraints: Constraints) -> GroupSettings {
    GroupSettings { constraints, ..GroupSettings::anywhere(name) }
}

fn names(list: &[&str]) -> Vec<GroupId> {
    list.iter().map(|n| id(n)).collect()
}

fn after(list: &[&str]) -> Constraints {
    Constraints { after: names(list), ..Constraints::default() }
}

fn with(list: &[&str]) -> Constraints {
    Constraints { with: names(list), ..Constraints::default() }
}

fn apart(list: &[&str]) -> Constraints {
    Constraints { apart: names(list), ..Constraints::default() }
}

fn needs(cpu: u64) -> Constraints {
    Constraints { needs: Amount { cpu, memory: 0 }, ..Constraints::default() }
}

fn owner(lab: &Lab, name: &str) -> Option<VoterId> {
    lab.state().groups.get(&id(name)).and_then(|g| g.owner)
}

/// A cluster in which every group has an owner.
fn settled(groups: Vec<GroupSettings>) -> Lab {
    let mut lab = Lab::with(&PAIR, groups, 0);
    lab.until(4_000, "every group has an owner", |l| !l.state().groups.is_empty() && l.all_served());
    lab.run_ms(2_500);
    lab
}

/// The position in the log of the entry that gave a group its present owner.
fn since_of(lab: &Lab, name: &str) -> Index {
    lab.state().groups[&id(name)].since
}

#[test]
fn a_group_starts_once_what_it_comes_after_runs() {
    // The names are against the order.
    let mut lab = Lab::with(&PAIR, vec![group("app", after(&["db"])), group("db", Constraints::default())], 0);
    let both = [v(1), v(2)];
    both.iter().for_each(|n| _ = lab.host(*n).failing.insert(id("db")));
    lab.run_ms(6_000);
    assert_eq!(owner(&lab, "app"), None, "db never ran");
    both.iter().for_each(|n| lab.host(*n).failing.clear());
    lab.until(40_000, "both are served", |l| l.all_served());
    assert!(since_of(&lab, "db") < since_of(&lab, "app"));
    lab.assert_safe();
}

#[test]
fn a_conclusion_gives_no_owner_to_what_has_to_wait() {
    let prefers = |g: GroupSettings| GroupSettings { prefers: vec![(v(1), 10)], ..g };
    let groups = vec![prefers(group("app", after(&["db"]))), prefers(group("db", Constraints::default()))];
    let mut lab = settled(groups);
    assert_eq!((owner(&lab, "app"), owner(&lab, "db")), (Some(v(1)), Some(v(1))));
    let before = lab.log.len();
    lab.power_off(v(1));
    lab.until(500, "both are served by the other", |l| owner(l, "app") == Some(v(2)) && owner(l, "db") == Some(v(2)));
    let entries: Vec<&Entry> = lab.log[before..].iter().filter_map(|(_, e)| e.as_ref()).collect();
    let Some(Entry::Conclude { verdict: crate::cluster::entry::Verdict::Lost { moves, .. }, .. }) = entries.first()
    else {
        panic!("{entries:?}");
    };
    let to: Vec<Option<VoterId>> = moves.iter().map(|(_, _, to)| *to).collect();
    assert_eq!(to, [None, Some(v(2))], "app waits until db runs");
    assert!(entries.iter().any(|e| matches!(e, Entry::Assign { group, .. } if *group == id("app"))), "{entries:?}");
    assert_eq!(lab.state().groups[&id("app")].cause, Cause::Silent, "why it moved is not forgotten");
    lab.assert_safe();
}

#[test]
fn a_group_that_runs_goes_on_when_what_it_came_after_dies() {
    let mut db = group("db", Constraints::default());
    db.nodes = vec![v(1)];
    let mut app = group("app", after(&["db"]));
    app.nodes = vec![v(2)];
    let mut lab = settled(vec![app, db]);
    lab.power_off(v(1));
    lab.run_ms(8_000);
    assert_eq!((owner(&lab, "db"), owner(&lab, "app")), (None, Some(v(2))));
    lab.assert_safe();
}

#[test]
fn followers_die_move_and_stand_by_with_their_leader() {
    let mut lab = settled(vec![group("app", with(&["db"])), group("db", Constraints::default())]);
    let together = |l: &Lab, node| owner(l, "app") == Some(v(node)) && owner(l, "db") == Some(v(node));
    assert!(together(&lab, 1));
    let now = lab.now;
    let alone = Order::Move { group: id("app"), to: v(2), force: false };
    let refused = lab.host(v(1)).core.on_order(now, alone).unwrap_err();
    assert!(matches!(&refused, OrderRefused::Bound { .. }), "{refused:?}");
    assert!(refused.to_string().contains("it must be with db, which is not there"), "{refused}");
    lab.host(v(1)).core.on_order(now, Order::Move { group: id("db"), to: v(2), force: false }).unwrap();
    lab.until(3_000, "both moved", |l| together(l, 2));
    lab.run_ms(2_000);
    let now = lab.now;
    lab.host(v(1)).core.on_order(now, Order::Standby { node: v(2), on: true }).unwrap();
    lab.until(3_000, "both are back", |l| together(l, 1));
    lab.all_online();
    lab.run_ms(2_000);
    let before = lab.log.len();
    lab.power_off(v(1));
    lab.until(500, "both are on the other", |l| together(l, 2));
    let conclusions = lab.log[before..].iter().filter(|(_, e)| matches!(e, Some(Entry::Conclude { .. }))).count();
    assert_eq!(conclusions, 1);
    assert!(!lab.log[before..].iter().any(|(_, e)| matches!(e, Some(Entry::Assign { .. }))), "one entry for both");
    lab.assert_safe();
}

#[test]
fn a_follower_that_cannot_come_along_is_given_up_and_comes_back() {
    let mut lab = settled(vec![group("app", with(&["db"])), group("db", Constraints::default())]);
    assert_eq!(owner(&lab, "db"), Some(v(1)));
    // It fails on node 2, and db has to go there.
    lab.host(v(2)).failing.insert(id("app"));
    let now = lab.now;
    lab.host(v(1)).core.on_order(now, Order::Standby { node: v(1), on: true }).unwrap();
    lab.until(3_000, "db moved", |l| owner(l, "db") == Some(v(2)));
    lab.until(20_000, "app is nowhere", |l| owner(l, "app").is_none());
    let why = lab.core(3).explain(&id("app")).unwrap();
    assert!(why.candidates[0].against.contains(&Unfit::Without), "{why}");
    lab.host(v(2)).failing.clear();
    lab.until(40_000, "app runs with db", |l| owner(l, "app") == Some(v(2)) && l.all_served());
    lab.assert_safe();
}

#[test]
fn groups_that_keep_apart_never_meet() {
    let mut lab = settled(vec![group("a", Constraints::default()), group("b", apart(&["a"]))]);
    let (a, b) = (owner(&lab, "a").unwrap(), owner(&lab, "b").unwrap());
    assert_ne!(a, b);
    let now = lab.now;
    let refused = lab.host(v(1)).core.on_order(now, Order::Move { group: id("a"), to: b, force: true }).unwrap_err();
    assert!(refused.to_string().contains("b is there, from which it must keep apart"), "{refused}");
    lab.power_off(b);
    lab.run_ms(3_000);
    assert_eq!((owner(&lab, "a"), owner(&lab, "b")), (Some(a), None));
    lab.boot(b);
    lab.until(4_000, "b is back", |l| owner(l, "b") == Some(b));
    lab.assert_safe();
}

#[test]
fn nothing_is_placed_where_it_does_not_fit() {
    let groups = vec![group("a", needs(2_000)), group("b", needs(2_000)), group("c", needs(1_000))];
    let mut lab = Lab::with(&PAIR, groups, 0);
    let room = Room { cpu: Some(3_000), memory: None };
    lab.rooms([(v(1), room), (v(2), room)].into());
    lab.until(4_000, "all three are served", |l| !l.state().groups.is_empty() && l.all_served());
    lab.run_ms(2_500);
    let (a, b) = (owner(&lab, "a").unwrap(), owner(&lab, "b").unwrap());
    assert_ne!(a, b);
    lab.power_off(a);
    lab.run_ms(2_000);
    assert_eq!(owner(&lab, "a"), None);
    assert_eq!(owner(&lab, "c"), Some(b));
    let why = lab.core(3).explain(&id("a")).unwrap();
    assert!(why.candidates.iter().any(|c| c.node == b && c.against == [Unfit::NoRoom]), "{why}");
    lab.assert_safe();
}
