//! Properties that hold whatever the log says.

use proptest::prelude::*;

use super::*;
use crate::cluster::entry::Scope;

/// Any entry, with small numbers, so that many of them match the state.
fn any_entry() -> impl Strategy<Value = Entry> {
    let voter = || (1u8..=4).prop_map(VoterId);
    let node = || (1u8..=2).prop_map(VoterId);
    let group = || prop_oneof![4 => Just(web()), 1 => Just(GroupId::new("db"))];
    let names = || proptest::sample::subsequence(vec![web(), GroupId::new("db")], 0..=2);
    let epoch = || 0u64..4;
    let incarnation = || 1u64..3;
    let index = || 0u64..16;
    let moves = proptest::collection::vec((group(), epoch(), proptest::option::of(node())), 0..=2);
    let promised = prop_oneof![
        Just(vec![(B, 1), (ARBITER, 1)]),
        Just(vec![(A, 1), (ARBITER, 1)]),
        proptest::collection::vec((voter(), incarnation()), 0..=3),
    ];
    let switch = prop_oneof![
        Just(Switch::Maintenance(Scope::Cluster)),
        node().prop_map(|node| Switch::Maintenance(Scope::Node(node))),
        group().prop_map(|group| Switch::Maintenance(Scope::Group(group))),
        group().prop_map(Switch::Stopped),
        group().prop_map(|group| Switch::Unmanaged(group, "data".to_owned())),
    ];
    let verdict = prop_oneof![
        1 => Just(Verdict::Alive),
        3 => moves.prop_map(|moves| Verdict::Lost { moves, cause: Cause::Silent }),
    ];
    prop_oneof![
        names().prop_map(|groups| Entry::Configure { voters: voters(), groups, lease_ns: 50 }),
        (voter(), incarnation()).prop_map(|(v, i)| barrier(v, i)),
        (node(), prop_oneof![Just(0), index()], promised, verdict)
            .prop_map(|(node, last, promised, verdict)| Entry::Conclude { node, last, promised, verdict }),
        (group(), epoch(), node(), incarnation()).prop_map(|(group, epoch, node, incarnation)| {
            Entry::Release { group, epoch, node, incarnation, reason: Cause::Resource }
        }),
        (group(), epoch(), node(), incarnation(), voter()).prop_map(|(group, epoch, node, incarnation, to)| {
            Entry::ReleaseTo { group, epoch, node, incarnation, reason: Cause::Resource, to }
        }),
        (group(), epoch(), voter())
            .prop_map(|(group, epoch, to)| { Entry::Assign { group, epoch, to, cause: Cause::Initial } }),
        (group(), epoch(), node(), incarnation())
            .prop_map(|(group, epoch, to, to_incarnation)| { Entry::Prepare { group, epoch, to, to_incarnation } }),
        (group(), epoch(), index(), incarnation()).prop_map(|(group, epoch, movement, to_incarnation)| {
            Entry::Ready { group, epoch, movement, to_incarnation, steers: true }
        }),
        (group(), epoch(), index(), incarnation()).prop_map(|(group, epoch, movement, from_incarnation)| {
            Entry::Diverted { group, epoch, movement, from_incarnation, steers: true }
        }),
        (group(), epoch(), index()).prop_map(|(group, epoch, movement)| Entry::Abandon { group, epoch, movement }),
        (group(), epoch(), node()).prop_map(|(group, epoch, node)| Entry::Drained {
            group,
            epoch,
            node,
            summary: None
        }),
        (voter(), any::<bool>()).prop_map(|(node, on)| Entry::Standby { node, on }),
        (switch, proptest::bool::weighted(0.3)).prop_map(|(what, on)| Entry::Switch { what, on }),
    ]
}

/// The epoch of a group whether it exists now or was removed.
fn epoch_of(state: &State, id: &GroupId) -> Epoch {
    let retired = state.retired.get(id).copied();
    state.groups.get(id).map(|g| g.epoch).or(retired).unwrap_or(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_the_log_says_epochs_never_fall_and_refusals_change_nothing(
        entries in proptest::collection::vec(any_entry(), 1..60)
    ) {
        let mut state = owned();
        let mut replica = state.clone();
        for entry in &entries {
            let before = state.clone();
            let index = state.applied + 1;
            let outcome = state.apply(index, entry);
            prop_assert_eq!(replica.apply(index, entry), outcome.clone(), "replicas agree");
            if outcome.is_err() {
                prop_assert_eq!(&state, &State { applied: index, ..before.clone() });
            }
            for id in [web(), GroupId::new("db")] {
                let (was, is) = (epoch_of(&before, &id), epoch_of(&state, &id));
                prop_assert!(is == was || is == was + 1);
                let (was_owner, is_owner) =
                    (before.groups.get(&id).and_then(|g| g.owner), state.groups.get(&id).and_then(|g| g.owner));
                // Another owner is another epoch; only to have none is not (a release).
                prop_assert!(is_owner == was_owner || is == was + 1 || is_owner.is_none());
            }
            for (id, group) in &state.groups {
                let was = before.groups.get(id).and_then(|g| g.owner);
                prop_assert!(group.owner.is_none() || group.owner == was || !before.stopped(id), "a stopped group gets no owner");
            }
            for switch in &state.switches {
                prop_assert!(switch.group().is_none_or(|id| state.groups.contains_key(id)));
            }
            for group in state.groups.values() {
                prop_assert!(group.drain.is_none() || group.drain != group.owner, "nobody drains what it owns");
            }
            for (id, group) in &state.groups {
                if let Some(m) = group.movement {
                    prop_assert_eq!(group.owner, Some(m.from), "{}", id);
                    prop_assert!(m.from != m.to);
                }
                prop_assert!(group.owner.is_none_or(|o| state.voters[&o].role == Role::Node));
            }
            for (v, now) in &state.voters {
                prop_assert!(now.incarnation >= before.voters[v].incarnation);
                prop_assert!(now.concluded >= before.voters[v].concluded);
            }
        }
        prop_assert_eq!(state, replica);
    }
}
