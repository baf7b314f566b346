//! Who is fit and who is chosen.

use super::*;
use crate::cluster::{
    bench::{A, ARBITER, B, Bench, web},
    entry::Entry,
};

fn reasons(bench: &Bench, node: usize) -> Vec<Unfit> {
    bench.core.explain(&web()).unwrap().candidates[node - 1].against.clone()
}

/// What the leader B holds against A after a change of its report or its beats.
fn against_a(change: impl FnOnce(&mut Bench)) -> Vec<Unfit> {
    let mut bench = Bench::new(B);
    assert_eq!(reasons(&bench, 1), []);
    change(&mut bench);
    bench.settle();
    reasons(&bench, 1)
}

#[test]
fn each_reason_is_named() {
    assert_eq!(against_a(|b| b.report(A, |r| r.ready = false)), [Unfit::NotReady]);
    assert_eq!(against_a(|b| b.report(A, |r| r.front_up = false)), [Unfit::FrontDown]);
    assert_eq!(against_a(|b| b.report(A, |r| r.same_configuration = false)), [Unfit::OtherConfiguration]);
    assert_eq!(against_a(|b| b.report(A, |r| r.unfit = vec![web()])), [Unfit::Refuses]);
    assert_eq!(against_a(|b| b.peer(A).holds_lease = false), [Unfit::NoLease]);
    assert_eq!(against_a(|b| b.peer(A).incarnation = 2), [Unfit::Restarting]);
    assert_eq!(against_a(|b| b.apply_all(&[Entry::Standby { node: A, on: true }])), [Unfit::Standby]);
    assert_eq!(
        against_a(|b| b.apply_all(&[Entry::Barrier { voter: A, incarnation: 2 }])),
        [Unfit::Restarting, Unfit::NoReport]
    );
    let silent = |b: &mut Bench| {
        b.beating.remove(&A);
        b.pass_ms(30);
    };
    assert_eq!(against_a(silent), [Unfit::Silent]);
    let wedged = |b: &mut Bench| {
        b.wedged.insert(A);
        b.pass_ms(300);
    };
    assert_eq!(against_a(wedged), [Unfit::Wedged]);
    assert_eq!(reasons(&Bench::new(B), 3), [Unfit::Arbiter]);
    for reason in [Unfit::NotAllowed, Unfit::Silent, Unfit::Restarting] {
        assert!(!reason.to_string().is_empty());
    }
}

/// Asks a bench of B what it would choose.
fn chosen(group: &GroupSettings, except: Option<VoterId>, load: &[(VoterId, usize)]) -> Option<VoterId> {
    let settings = Bench::new(B).core.settings().clone();
    let mut bench = Bench::of(crate::cluster::settings::Settings { groups: vec![group.clone()], ..settings });
    bench.apply_all(&crate::cluster::bench::formation());
    bench.settle();
    bench.stopped(0);
    for from in [A, ARBITER] {
        bench.report(from, |_| {});
    }
    bench.pass_ms(10);
    let mut world = gather(&bench.core.sight(bench.now), None, |_, _| None, |_| world::Failback::Off);
    let asked = world.groups.get_mut(&web())?;
    asked.owner = None;
    let candidates = bench.core.explain(&web())?.candidates;
    asked.against = candidates.into_iter().map(|c| (c.node, c.against)).collect();
    if let Some(against) = except.and_then(|n| asked.against.get_mut(&n)) {
        against.push(Unfit::Silent);
    }
    let load: BTreeMap<VoterId, usize> = load.iter().copied().collect();
    world.nodes.iter_mut().for_each(|(id, node)| node.load = load.get(id).copied().unwrap_or(0));
    plan(&world).places.get(&web())?.node
}

#[test]
fn the_score_decides_then_the_load_then_the_number() {
    let plain = GroupSettings::anywhere("web");
    assert_eq!(chosen(&plain, None, &[]), Some(A));
    assert_eq!(chosen(&plain, None, &[(A, 1)]), Some(B));
    assert_eq!(chosen(&plain, Some(A), &[]), Some(B));
    let prefers = GroupSettings { prefers: vec![(B, 1), (B, 1), (A, 1)], ..plain.clone() };
    assert_eq!(chosen(&prefers, None, &[(B, 9)]), Some(B), "scores of one node add up");
    let avoids = GroupSettings { prefers: vec![(A, -1)], ..plain.clone() };
    assert_eq!(chosen(&avoids, None, &[]), Some(B));
    let only_a = GroupSettings { nodes: vec![A], ..plain };
    assert_eq!(chosen(&only_a, None, &[]), Some(A));
    assert_eq!(chosen(&only_a, Some(A), &[]), None);
}

#[test]
fn an_explanation_says_where_and_why() {
    let bench = Bench::new(B);
    let text = bench.core.explain(&web()).unwrap().to_string();
    assert!(text.starts_with("group web is on node 1 (epoch 1"), "{text}");
    assert!(text.contains("voter 1, score 0: fit, and the owner"), "{text}");
    assert!(text.contains("voter 3, score 0: it is an arbiter"), "{text}");
    assert_eq!(bench.core.explain(&GroupId::new("no")), None);
}
