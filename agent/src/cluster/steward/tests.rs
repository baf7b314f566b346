//! The next owner in a release: when the leader names it, and when an assignment must follow. B leads.

use super::*;
use crate::cluster::{
    bench::{A, ARBITER, B, Bench, proposals, web},
    entry::Cause,
};

fn release(epoch: Epoch, node: VoterId) -> Entry {
    Entry::Release { group: web(), epoch, node, incarnation: 1, reason: Cause::Resource }
}

fn named(epoch: Epoch, node: VoterId, to: VoterId) -> Entry {
    Entry::ReleaseTo { group: web(), epoch, node, incarnation: 1, reason: Cause::Resource, to }
}

#[test]
fn the_leader_names_the_next_owner_in_a_release_and_assigns_nothing_after_it() {
    let mut bench = Bench::new(B);
    let entry = bench.core.complete(bench.now, release(1, A));
    assert_eq!(entry, named(1, A, B));
    assert!(entry.comes_of(&release(1, A)) && !entry.comes_of(&release(2, A)));
    bench.apply(&entry);
    let group = bench.core.state().groups[&web()].clone();
    assert_eq!((group.owner, group.epoch, group.cause), (Some(B), 2, Cause::Resource));
    assert_eq!(proposals(&bench.settle()), []);
    // Its own are named when it proposes them.
    bench.core.on_start_failed(bench.now, &web(), 2);
    assert_eq!(proposals(&bench.settle()), [named(2, B, A)]);
}

#[test]
fn a_release_stays_as_it_is_where_nobody_can_be_named() {
    let mut bench = Bench::new(B);
    let unchanged = |bench: &mut Bench, entry: Entry| assert_eq!(bench.core.complete(bench.now, entry.clone()), entry);
    unchanged(&mut bench, release(2, A));
    unchanged(&mut bench, release(1, ARBITER));
    unchanged(&mut bench, Entry::Standby { node: A, on: true });
    // A voter of an earlier version could not read the entry.
    bench.report(ARBITER, |r| r.knows_release_to = false);
    unchanged(&mut bench, release(1, A));
    bench.report(ARBITER, |_| {});
    assert_eq!(bench.core.complete(bench.now, release(1, A)), named(1, A, B));
    // Nobody else is fit: an assignment follows, to whoever is by then.
    bench.view.front_up = false;
    bench.settle();
    unchanged(&mut bench, release(1, A));
    bench.apply(&release(1, A));
    let assigned = |e: &Entry| matches!(e, Entry::Assign { epoch: 1, to: A, .. });
    assert!(proposals(&bench.settle()).iter().any(assigned));
    // Who does not lead names nobody.
    let mut bench = Bench::new(A);
    unchanged(&mut bench, release(1, A));
    bench.core.on_start_failed(bench.now, &web(), 1);
    assert!(bench.settle().contains(&Command::Propose(release(1, A))));
}
