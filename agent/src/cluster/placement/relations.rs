//! The constraints between groups as a net of positions: who is with whom, who comes after whom, and in which order they are
//! placed. Contradictions are refused in the configuration; here they only must not lead astray.

use std::cmp::Reverse;

use super::world::{Amount, Group, World};
use crate::cluster::ids::GroupId;

/// Groups that are on one node, by `with`: the first leads, the others come after those whom they follow.
#[derive(Clone, Debug)]
pub(super) struct Bundle {
    /// Positions of its groups.
    pub members: Vec<usize>,
    /// What they need together.
    pub needs: Amount,
}

impl Bundle {
    /// The group that chooses the node.
    pub fn lead(&self) -> usize {
        self.members[0]
    }
}

/// All groups by position, in the order of their names.
pub(super) struct Relations<'w> {
    pub ids: Vec<&'w GroupId>,
    pub groups: Vec<&'w Group>,
    pub after: Vec<Vec<usize>>,
    pub with: Vec<Vec<usize>>,
    /// Both ways.
    pub apart: Vec<Vec<usize>>,
    /// In the order in which they are placed.
    pub bundles: Vec<Bundle>,
    /// The bundle of each group.
    pub bundle_of: Vec<usize>,
}

impl<'w> Relations<'w> {
    /// Reads them off the world; names that nobody has say nothing.
    pub fn of(world: &'w World) -> Self {
        let ids: Vec<&GroupId> = world.groups.keys().collect();
        let groups: Vec<&Group> = world.groups.values().collect();
        let find =
            |names: &[GroupId]| -> Vec<usize> { names.iter().filter_map(|n| ids.binary_search(&n).ok()).collect() };
        let after: Vec<_> = groups.iter().map(|g| find(&g.constraints.after)).collect();
        let with: Vec<_> = groups.iter().map(|g| find(&g.constraints.with)).collect();
        let mut apart = vec![Vec::new(); ids.len()];
        for (i, g) in groups.iter().enumerate() {
            for other in find(&g.constraints.apart).into_iter().filter(|o| *o != i) {
                apart[i].push(other);
                apart[other].push(i);
            }
        }
        let mut bundles = bundles(&groups, &with, &after);
        order(world, &groups, &apart, &mut bundles);
        let bundles = first_things_first(bundles, &after);
        let mut bundle_of = vec![0; ids.len()];
        for (number, bundle) in bundles.iter().enumerate() {
            bundle.members.iter().for_each(|m| bundle_of[*m] = number);
        }
        Self { ids, groups, after, with, apart, bundles, bundle_of }
    }

    /// The positions in the order in which groups are placed, those first that others come after or follow.
    pub fn sequence(&self) -> impl Iterator<Item = usize> {
        self.bundles.iter().flat_map(|b| b.members.iter().copied())
    }

    /// Whether a group is placed before another of its bundle.
    pub fn leads(&self, first: usize, second: usize) -> bool {
        let members = &self.bundles[self.bundle_of[second]].members;
        let position = |group: usize| members.iter().position(|m| *m == group);
        position(first) < position(second)
    }
}

/// The parts of the net that hang together by `with`.
fn bundles(groups: &[&Group], with: &[Vec<usize>], after: &[Vec<usize>]) -> Vec<Bundle> {
    let mut follows = vec![Vec::new(); with.len()];
    for (i, partners) in with.iter().enumerate() {
        partners.iter().for_each(|p| follows[*p].push(i));
    }
    let mut seen = vec![false; with.len()];
    let mut bundles = Vec::new();
    for start in 0..with.len() {
        if seen[start] {
            continue;
        }
        let mut members = Vec::new();
        let mut open = vec![start];
        seen[start] = true;
        while let Some(m) = open.pop() {
            members.push(m);
            for next in with[m].iter().chain(&follows[m]) {
                if !std::mem::replace(&mut seen[*next], true) {
                    open.push(*next);
                }
            }
        }
        members.sort_unstable();
        let needs = members.iter().fold(Amount::ZERO, |sum, m| sum.plus(groups[*m].constraints.needs));
        bundles.push(Bundle { members: leaders_first(members, with, after), needs });
    }
    bundles
}

/// Whoever follows nobody first, then whoever follows and comes after only those before it; of a circle, the first by name goes
/// on.
fn leaders_first(mut rest: Vec<usize>, with: &[Vec<usize>], after: &[Vec<usize>]) -> Vec<usize> {
    let mut sorted = Vec::with_capacity(rest.len());
    while !rest.is_empty() {
        let free = rest.iter().position(|m| with[*m].iter().chain(&after[*m]).all(|p| p == m || !rest.contains(p)));
        sorted.push(rest.remove(free.unwrap_or(0)));
    }
    sorted
}

/// The larger first; of those that keep away from others, the ones with fewer nodes to choose from first; then by name.
fn order(world: &World, groups: &[&Group], apart: &[Vec<usize>], bundles: &mut [Bundle]) {
    let largest = |of: fn(&super::world::Room) -> Option<u64>| {
        u128::from(world.nodes.values().filter_map(|n| of(&n.room)).max().unwrap_or(0))
    };
    let (cpu, memory) = (largest(|r| r.cpu), largest(|r| r.memory));
    // The share of the largest node, per million, in the dimension that is scarcer.
    let share = |needs: u64, of: u128| (u128::from(needs) * 1_000_000).checked_div(of).unwrap_or(0);
    bundles.sort_by_cached_key(|b| {
        let size = share(b.needs.cpu, cpu).max(share(b.needs.memory, memory));
        let keeps_away = b.members.iter().any(|m| !apart[*m].is_empty());
        let open = groups[b.lead()].against.values().filter(|why| super::takes(why)).count();
        (Reverse(size), if keeps_away { open } else { usize::MAX }, b.members.iter().min().copied())
    });
}

/// The same order, but that whoever comes after others is behind them: what cannot start keeps no room.
fn first_things_first(bundles: Vec<Bundle>, after: &[Vec<usize>]) -> Vec<Bundle> {
    let mut bundle_of = vec![0; after.len()];
    for (number, bundle) in bundles.iter().enumerate() {
        bundle.members.iter().for_each(|m| bundle_of[*m] = number);
    }
    let mut seen = vec![false; bundles.len()];
    let mut sequence = Vec::with_capacity(bundles.len());
    for first in 0..bundles.len() {
        // Without recursion: a chain may be as long as there are groups.
        let mut stack = vec![(first, false)];
        while let Some((number, done)) = stack.pop() {
            if done {
                sequence.push(number);
            } else if !std::mem::replace(&mut seen[number], true) {
                stack.push((number, true));
                let before = bundles[number].members.iter().flat_map(|m| &after[*m]).map(|a| bundle_of[*a]);
                let mut before: Vec<usize> = before.filter(|b| !seen[*b]).collect();
                before.sort_unstable_by_key(|b| Reverse(*b));
                stack.extend(before.into_iter().map(|b| (b, false)));
            }
        }
    }
    let mut bundles: Vec<Option<Bundle>> = bundles.into_iter().map(Some).collect();
    sequence.into_iter().filter_map(|number| bundles[number].take()).collect()
}
