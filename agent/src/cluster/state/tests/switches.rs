//! Switches: what is stopped or in maintenance is given to nobody, whatever was proposed before.

use super::*;
use crate::cluster::entry::{Scope, Switch};

fn on(what: Switch) -> Entry {
    Entry::Switch { what, on: true }
}

fn off(what: Switch) -> Entry {
    Entry::Switch { what, on: false }
}

fn stopped() -> Switch {
    Switch::Stopped(web())
}

/// Each switch that keeps `web`, owned by A, from being given to B.
fn holding() -> [Switch; 5] {
    let of_node = |node| Switch::Maintenance(Scope::Node(node));
    [stopped(), Switch::Maintenance(Scope::Cluster), Switch::Maintenance(Scope::Group(web())), of_node(A), of_node(B)]
}

fn lost(last: Index, to: Option<VoterId>) -> Entry {
    let moves = vec![(web(), 1, to)];
    let verdict = Verdict::Lost { moves, cause: Cause::Silent };
    Entry::Conclude { node: A, last, promised: vec![(B, 1), (ARBITER, 1)], verdict }
}

#[test]
fn a_switch_is_on_until_it_is_off_and_changes_nothing_else() {
    for what in holding() {
        let mut state = owned();
        let index = state.applied + 1;
        assert_eq!(state.apply(index, &on(what.clone())), Ok(vec![Effect::Switched(what.clone(), true)]));
        assert_eq!(state.apply(index + 1, &on(what.clone())), Ok(Vec::new()), "it was on already");
        assert_eq!(state.groups, owned().groups, "the owner itself gives a stopped group up");
        let after = applied(&state, &[off(what)]);
        assert_eq!((after.switches.len(), after.groups), (0, owned().groups));
    }
}

#[test]
fn what_is_held_begins_no_move_and_a_conclusion_leaves_it_without_an_owner() {
    for what in holding() {
        let held = applied(&owned(), &[on(what.clone())]);
        assert_eq!(refused(&held, &prepare(1, B, 1)), Refusal::Held(web()), "{what:?}");
        // The leader had not heard of the switch.
        let after = applied(&held, &[lost(0, Some(B))]);
        assert_eq!((after.groups[&web()].owner, after.groups[&web()].epoch), (None, 2), "{what:?}");
        assert_eq!(refused(&after, &assign(2, B)), Refusal::Held(web()), "{what:?}");
        let again = applied(&after, &[off(what.clone()), assign(2, B)]);
        assert_eq!((again.groups[&web()].owner, again.waiting.len()), (Some(B), 0));
        // A group that its owner gave up itself waits as well.
        let given_up = applied(&held, &[release(1, A, 1)]);
        assert_eq!(refused(&given_up, &assign(1, B)), Refusal::Held(web()), "{what:?}");
    }
    assert_eq!(applied(&owned(), &[lost(0, Some(B))]).groups[&web()].owner, Some(B), "and without a switch it moves");
}

#[test]
fn a_move_that_has_begun_ends_in_maintenance_but_not_in_a_stopped_group() {
    let cluster = Switch::Maintenance(Scope::Cluster);
    let moved = applied(&moving(), &[on(cluster), diverted(1, 6, 1)]);
    assert_eq!(moved.groups[&web()].owner, Some(B));
    let stopping = applied(&moving(), &[on(stopped())]);
    assert_eq!(refused(&stopping, &diverted(1, 6, 1)), Refusal::Held(web()));
    let free = applied(&stopping, &[release(1, A, 1)]);
    assert_eq!((free.groups[&web()].owner, free.groups[&web()].movement), (None, None));
}

#[test]
fn switches_of_what_is_unknown_are_refused_and_go_with_their_group() {
    let unknown = GroupId::new("nope");
    for what in [
        Switch::Stopped(unknown.clone()),
        Switch::Maintenance(Scope::Group(unknown.clone())),
        Switch::Unmanaged(unknown.clone(), "data".to_owned()),
    ] {
        assert_eq!(refused(&owned(), &on(what)), Refusal::UnknownGroup(unknown.clone()));
    }
    let node = |node| on(Switch::Maintenance(Scope::Node(node)));
    assert_eq!(refused(&owned(), &node(ARBITER)), Refusal::NotANode(ARBITER));
    assert_eq!(refused(&owned(), &node(NOBODY)), Refusal::UnknownVoter(NOBODY));

    let cluster = Switch::Maintenance(Scope::Cluster);
    let unmanaged = Switch::Unmanaged(web(), "data".to_owned());
    let state = applied(&owned(), &[on(cluster.clone()), on(stopped()), on(unmanaged), release(1, A, 1)]);
    assert_eq!(state.unmanaged(&web()).into_iter().collect::<Vec<_>>(), ["data"]);
    let without = applied(&state, &[configure(&[])]);
    assert_eq!(without.switches.into_iter().collect::<Vec<_>>(), [cluster]);
}

#[test]
fn a_state_of_before_there_were_switches_has_none() {
    let mut json = serde_json::to_value(owned()).unwrap();
    assert!(json.as_object_mut().unwrap().remove("switches").is_some());
    assert_eq!(serde_json::from_value::<State>(json).unwrap(), owned());
    let state = applied(&owned(), &holding().map(on));
    let json = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<State>(&json).unwrap(), state);
}
