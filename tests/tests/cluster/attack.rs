//! Somebody on the backplane, and on the machine itself, who has no key: the cluster goes on as if nobody were there.

use anyhow::{Context, Result, ensure};
use baton::clock;
use baton_ebpf::wire::{self, Beat};
use baton_lab::{
    baton::{Baton, socket},
    garbage,
    lock::Exclusive,
    metrics::{self, Scrape},
    replay::Tap,
    scene::Scene,
    topology::Machine,
    wait,
};
use rand::{SeedableRng, rngs::SmallRng};

use super::{LIMIT, no_overlap, scene, usual};

const PORT: u16 = 7420;
const ROUNDS: usize = 5;
/// An address on the backplane that is no voter's.
const STRANGER: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 77, 0, 66);

/// What must not change under attack.
#[derive(Debug, PartialEq)]
struct Calm {
    owner: usize,
    takeovers: u64,
    incarnations: Vec<u64>,
}

fn calm(scene: &mut Scene) -> Result<Calm> {
    // Also fails when an agent has ended.
    let owner = scene.steady(LIMIT)?;
    let takeovers = scene.system.takeovers(&scene.lab)?;
    let incarnations = scene.lab.voters().map(|machine| {
        let status = Baton::status(&scene.lab, machine)?.context("an agent gives no answer")?;
        status["incarnation"].as_u64().context("the status tells the incarnation")
    });
    let incarnations = incarnations.collect::<Result<_>>()?;
    Ok(Calm { owner, takeovers, incarnations })
}

/// The owner, and the other node on its backplane.
fn machines(scene: &Scene, calm: &Calm) -> (Machine, Machine) {
    (scene.lab.nodes[calm.owner].clone(), scene.lab.nodes[1 - calm.owner].clone())
}

#[test]
fn garbage_on_every_port_of_the_owner() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut scene = scene("garbage", usual())?;
    let before = calm(&mut scene)?;
    let (owner, peer) = machines(&scene, &before);
    let (target, from_peer) = (owner.backplane[0], peer.backplane[0]);
    let stranger = scene.lab.arbiter.clone().context("the lab has an arbiter")?;
    stranger.ns.ip(&format!("address add {STRANGER}/24 dev bp0"))?;
    let counted = Scrape::of(&owner)?;

    let mut random = SmallRng::seed_from_u64(7);
    for _ in 0..ROUNDS {
        for (ns, source) in [(&peer.ns, from_peer), (&stranger.ns, STRANGER)] {
            ensure!(garbage::datagrams(ns, source, target, PORT, &mut random)? > 0);
            garbage::connections(ns, source, garbage::at(target, PORT), &mut random)?;
        }
        garbage::connections(&owner.ns, garbage::LOOPBACK, metrics::ADDRESS, &mut random)?;
        garbage::unix(&socket(&scene.lab, &owner), &mut random)?;
        ensure!(calm(&mut scene)? == before, "garbage moved something; before it: {before:?}");
    }

    let grown = [
        ("baton_datagrams_discarded_total", "reason=\"malformed\""),
        ("baton_requests_rejected_total", "reason=\"bad_handshakes\""),
        ("baton_requests_rejected_total", "reason=\"strangers\""),
    ];
    for (family, label) in grown {
        wait::until(LIMIT, "the garbage to be counted", || {
            Ok(Scrape::of(&owner)?.sum(family, label) >= counted.sum(family, label) + ROUNDS as f64)
        })
        .with_context(|| format!("{family}{{{label}}}"))?;
    }
    no_overlap(&mut scene)
}

#[test]
fn forged_and_replayed_heartbeats() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut scene = scene("forged", usual())?;
    let before = calm(&mut scene)?;
    let (owner, peer) = machines(&scene, &before);
    let tap = Tap::open(&peer, "bp0")?;
    let genuine = tap.beats(owner.id, 20)?;
    // So many beats later none of them can be told from a late one any more.
    tap.beats(owner.id, 100)?;
    let counted = Scrape::of(&owner)?;

    // As they were; 20 of them, 10 times.
    for _ in 0..10 {
        tap.send(&genuine)?;
    }
    // The same, but newer, of a later life, and as the peer's machine would never say it: signed with other keys.
    let forged: Vec<Vec<u8>> = (1..=200u64)
        .map(|n| {
            let read = Beat::read(&genuine[0].words);
            let order = wire::order(wire::incarnation(read.order) + n % 2, (1 << 30) + n);
            let mut words = Beat { order, flags: 0, term: read.term + n, gate_index: u64::MAX, ..read }.words();
            wire::seal(&mut words, [n, 7], clock::now());
            wire::to_bytes(&words).to_vec()
        })
        .collect();
    // And genuine ones with one bit turned over.
    let spoilt: Vec<Vec<u8>> = (64..wire::BYTES * 8)
        .map(|bit| {
            let mut bytes = wire::to_bytes(&genuine[1].words).to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        })
        .collect();
    let forgeries = forged.len() + spoilt.len();
    garbage::send(&peer.ns, peer.backplane[0], owner.backplane[0], PORT, forged)?;
    garbage::send(&peer.ns, peer.backplane[0], owner.backplane[0], PORT, spoilt)?;

    let grown = |family: &str, label: &str, at_least: f64| {
        wait::until(LIMIT, "the datagrams to be counted", || {
            Ok(Scrape::of(&owner)?.sum(family, label) >= counted.sum(family, label) + at_least)
        })
        .with_context(|| format!("{family}{{{label}}}"))
    };
    grown("baton_heartbeats_replayed_total", &format!("peer=\"{}\"", peer.name), 200.0)?;
    // Some bits name another receiver, sender or link, and are thrown away before the tag is looked at.
    grown("baton_datagrams_discarded_total", "reason=\"forged\"", 200.0 + 300.0)?;
    let all = Scrape::of(&owner)?.sum("baton_datagrams_discarded_total", "");
    ensure!(all >= counted.sum("baton_datagrams_discarded_total", "") + forgeries as f64, "{all}");
    ensure!(calm(&mut scene)? == before, "forgeries moved something; before them: {before:?}");
    no_overlap(&mut scene)
}
