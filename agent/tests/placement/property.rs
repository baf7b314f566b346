//! Random worlds: what is mandatory is never broken, not on the way either, and nothing moves without need.

use std::collections::{BTreeMap, BTreeSet};

use baton::cluster::{
    ids::{GroupId, VoterId},
    placement::{
        Amount, Constraints, Plan, Room, Unfit, World, plan,
        world::{Failback, Group, Node},
    },
};
use proptest::prelude::*;

/// Numbers out of which a group is made.
#[derive(Clone, Debug)]
struct Draw {
    owner: u8,
    unfit: u8,
    unready: u8,
    scores: Vec<i64>,
    after: Option<usize>,
    with: Option<usize>,
    apart: Option<usize>,
    needs: (u64, u64),
    failback: bool,
}

fn draw() -> impl Strategy<Value = Draw> {
    let link = || prop::option::weighted(0.3, 0_usize..12);
    let group = (0_u8..6, 0_u8..32, 0_u8..32, prop::collection::vec(-2_i64..3, 5));
    let bound = (link(), link(), link(), (0_u64..3, 0_u64..3), prop::bool::weighted(0.3));
    (group, bound).prop_map(|((owner, unfit, unready, scores), (after, with, apart, needs, failback))| Draw {
        owner,
        unfit: unfit & 5,
        unready: unready & 10,
        scores,
        after,
        with,
        apart,
        needs,
        failback,
    })
}

fn id(number: usize) -> GroupId {
    GroupId::new(&format!("g{number:02}"))
}

/// Groups name only earlier ones, so nothing goes in a circle; whoever follows keeps apart from nobody.
fn world(rooms: &[(u64, u64, bool)], draws: &[Draw], failback: bool) -> World {
    let mut world = World::default();
    for (number, (cpu, memory, standby)) in rooms.iter().enumerate() {
        let room = Room { cpu: Some(*cpu), memory: Some(*memory).filter(|m| *m > 0) };
        world.nodes.insert(VoterId(number as u8 + 1), Node { standby: *standby, room, load: 0 });
    }
    for (number, d) in draws.iter().enumerate() {
        let earlier =
            |link: Option<usize>| -> Vec<GroupId> { link.filter(|l| *l < number).map(id).into_iter().collect() };
        let with = earlier(d.with);
        let against = world.nodes.iter().map(|(node, n)| {
            let mut why = Vec::new();
            why.extend((d.unfit >> (node.0 - 1) & 1 == 1 && d.unready & 2 == 2).then_some(Unfit::Refuses));
            why.extend((d.unready >> (node.0 - 1) & 1 == 1).then_some(Unfit::Unready));
            why.extend(n.standby.then_some(Unfit::Standby));
            (*node, why)
        });
        let owner = Some(VoterId(d.owner)).filter(|o| world.nodes.contains_key(o));
        let group = Group {
            owner,
            running: owner.is_some(),
            against: against.collect(),
            scores: (1..).map(VoterId).zip(d.scores.iter().copied()).collect(),
            stickiness: 1,
            failback: if failback && d.failback { Failback::Now } else { Failback::Off },
            constraints: Constraints {
                after: earlier(d.after),
                apart: if with.is_empty() { earlier(d.apart) } else { Vec::new() },
                with,
                needs: Amount { cpu: d.needs.0, memory: d.needs.1 },
            },
            ..Group::default()
        };
        world.groups.insert(id(number), group);
    }
    count(&mut world);
    world
}

fn count(world: &mut World) {
    let owners: Vec<VoterId> = world.groups.values().filter_map(|g| g.owner).collect();
    for (id, node) in &mut world.nodes {
        node.load = owners.iter().filter(|o| *o == id).count();
    }
}

fn used(world: &World, places: &BTreeMap<GroupId, Vec<VoterId>>, node: VoterId) -> Amount {
    let there = places.iter().filter(|(_, nodes)| nodes.contains(&node));
    there.fold(Amount::ZERO, |sum, (id, _)| sum.plus(world.groups[id].constraints.needs))
}

/// No group came to a node that cannot hold it, or where one is from which it keeps apart.
fn assert_room_and_apart(world: &World, before: &World, places: &BTreeMap<GroupId, Vec<VoterId>>) {
    for (id, nodes) in places {
        for node in nodes.iter().filter(|n| before.groups[id].owner != Some(**n)) {
            let needs = world.groups[id].constraints.needs;
            let others = used(world, places, *node).minus(needs);
            assert!(world.nodes[node].room.holds(others, needs), "{id} has no room on {node}: {places:?}");
            for (other, there) in places.iter().filter(|(other, _)| *other != id) {
                let names = |a: &GroupId, b: &GroupId| world.groups[a].constraints.apart.contains(b);
                let apart = names(id, other) || names(other, id);
                assert!(!apart || !there.contains(node), "{id} came to {other} on {node}: {places:?}");
            }
            let against = &world.groups[id].against[node];
            assert!(against.iter().all(|w| *w == Unfit::Unready), "{id} on {node}: {against:?}");
        }
    }
}

fn assert_mandatory(world: &World, plan: &Plan) {
    let at = |id: &GroupId| plan.places[id].node;
    let places: BTreeMap<GroupId, Vec<VoterId>> =
        plan.places.iter().map(|(id, p)| (id.clone(), p.node.into_iter().collect())).collect();
    assert_room_and_apart(world, world, &places);
    for (id, group) in &world.groups {
        let bound = &group.constraints;
        if at(id).is_some() {
            assert!(bound.with.iter().all(|p| at(p) == at(id)), "{id} is not with {:?}: {plan:#?}", bound.with);
            assert!(bound.apart.iter().all(|o| at(o) != at(id)), "{id} is with {:?}: {plan:#?}", bound.apart);
        }
        if group.owner.is_none() && at(id).is_some() {
            assert!(bound.after.iter().all(|a| at(a).is_some()), "{id} starts before {:?}: {plan:#?}", bound.after);
        }
    }
}

/// Groups that nothing asks to leave stay.
fn assert_no_needless_move(world: &World, plan: &Plan) {
    let bound: BTreeSet<&GroupId> = world
        .groups
        .iter()
        .filter(|(_, g)| !g.constraints.with.is_empty() || !g.constraints.apart.is_empty())
        .flat_map(|(id, g)| g.constraints.with.iter().chain(&g.constraints.apart).chain([id]))
        .collect();
    for (id, group) in &world.groups {
        let Some(owner) = group.owner.filter(|o| !world.nodes[o].standby) else {
            continue;
        };
        if group.failback == Failback::Off && !bound.contains(id) {
            assert_eq!(plan.places[id].node, Some(owner), "{id} moved: {plan:#?}");
        }
    }
}

/// Carries plans out as the leader does: only what waits for nothing, and a new plan each time.
fn carry_out(mut world: World) {
    let start = world.clone();
    for _ in 0..60 {
        let plan = plan(&world);
        if plan.steps.is_empty() && world.groups.values().all(|g| g.target.is_none() && g.running == g.owner.is_some())
        {
            return;
        }
        let before = world.clone();
        // What was begun is done.
        for group in world.groups.values_mut() {
            group.owner = group.target.take().or(group.owner);
            group.running = group.owner.is_some();
        }
        for step in plan.steps.iter().filter(|s| s.waits.is_empty()) {
            let group = world.groups.get_mut(&step.group).expect("a step is about a group of the world");
            match (step.from, step.to) {
                (None, to) => (group.owner, group.running) = (to, false),
                (Some(_), Some(to)) => (group.target, group.running) = (Some(to), group.running),
                (Some(_), None) => (group.owner, group.running) = (None, false),
            }
        }
        count(&mut world);
        let places = world.groups.iter().map(|(id, g)| (id.clone(), g.owner.into_iter().chain(g.target).collect()));
        let known = before.groups.iter().filter_map(|(id, g)| Some((id.clone(), g.target?)));
        let known: BTreeMap<GroupId, VoterId> = known.collect();
        let mut old = before.clone();
        old.groups.iter_mut().for_each(|(id, g)| g.owner = known.get(id).copied().or(g.owner));
        assert_room_and_apart(&world, &old, &places.collect());
    }
    panic!("the leader never comes to an end: {:#?}\n{start:#?}", plan(&world));
}

fn rooms() -> impl Strategy<Value = Vec<(u64, u64, bool)>> {
    prop::collection::vec((0_u64..8, 0_u64..8, prop::bool::weighted(0.2)), 2..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_mandatory_holds_and_nothing_is_left_to_do(rooms in rooms(), draws in prop::collection::vec(draw(), 1..10)) {
        let mut world = world(&rooms, &draws, false);
        let planned = plan(&world);
        prop_assert_eq!(&planned, &plan(&world));
        assert_mandatory(&world, &planned);
        assert_no_needless_move(&world, &planned);
        // What is stopped may make room for something.
        let mut last = planned;
        for _ in 0..3 {
            let stops = last.steps.iter().any(|s| s.to.is_none());
            world = world.after(&last);
            let again = plan(&world);
            prop_assert!(stops || again.steps.is_empty(), "after {:#?}\nstill {:#?}", last, again);
            last = again;
        }
        prop_assert!(last.steps.is_empty(), "it goes on for ever: {:#?}", last);
    }

    #[test]
    fn failback_breaks_nothing_and_comes_to_an_end(rooms in rooms(), draws in prop::collection::vec(draw(), 1..10)) {
        let mut world = world(&rooms, &draws, true);
        for _ in 0..8 {
            let planned = plan(&world);
            assert_mandatory(&world, &planned);
            assert_no_needless_move(&world, &planned);
            if planned.steps.is_empty() {
                return Ok(());
            }
            world = world.after(&planned);
        }
        prop_assert!(false, "it goes on for ever: {:#?}", plan(&world));
    }

    #[test]
    fn a_leader_that_takes_only_what_is_ready_arrives(
        rooms in rooms(),
        draws in prop::collection::vec(draw(), 1..10),
        failback: bool,
        lost in prop::option::of(1_u8..3),
    ) {
        let mut world = world(&rooms, &draws, failback);
        if let Some(lost) = lost {
            world.lose(VoterId(lost));
            count(&mut world);
        }
        carry_out(world);
    }
}
