//! What was said once and may be used at any time later, any number of times, or never: promises, and proposals on
//! their way into the log. That covers their loss, delay, reordering and duplication, by whoever leads.

use super::log::{Id, Shared};
use super::rules::Rule;

/// Something said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fact {
    /// An empty place.
    #[default]
    None,
    /// `voter` promised about `node`, after the conclusion at `last`.
    Promise { voter: u8, node: u8, last: u8, incarnation: u8 },
    /// The owner proposed its release.
    Release { node: u8, epoch: u8, incarnation: u8 },
    /// The target proposed that it is ready.
    Ready { id: u8, epoch: u8, to: u8, incarnation: u8 },
    /// The owner proposed that it has diverted.
    Diverted { id: u8, epoch: u8, to: u8, incarnation: u8 },
}

/// A set of them, sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Facts([Fact; Facts::LIMIT]);

impl Facts {
    const LIMIT: usize = 8;

    /// Adds a fact, if it is new.
    pub fn insert(&mut self, fact: Fact) {
        if self.0.contains(&fact) {
            return;
        }
        let free = self.0.iter().position(|f| *f == Fact::None);
        self.0[free.expect("the bounds allow fewer facts than there are places")] = fact;
        self.0.sort_unstable_by(|a, b| b.cmp(a));
    }

    /// The facts.
    pub fn iter(&self) -> impl Iterator<Item = Fact> + '_ {
        self.0.iter().copied().take_while(|f| *f != Fact::None)
    }

    /// The promises about `node`, as (voter, last, incarnation).
    pub fn promises(&self, node: Id) -> impl Iterator<Item = (Id, u8, u8)> + '_ {
        self.iter().filter_map(move |fact| match fact {
            Fact::Promise { voter, node: about, last, incarnation } if usize::from(about) == node => {
                Some((usize::from(voter), last, incarnation))
            }
            _ => None,
        })
    }

    /// Drops what every later state of the log must refuse: it can change nothing any more.
    pub fn prune(&mut self, head: &Shared, off: Option<Rule>) {
        let on = |rule| off != Some(rule);
        let open = |id: u8| head.movement.is_some_and(|m| m.id == id);
        for fact in &mut self.0 {
            let keep = match *fact {
                Fact::None => true,
                Fact::Promise { voter, node, last, incarnation } => {
                    (!on(Rule::PromiseIndex) || last >= head.concluded[usize::from(node)])
                        && (!on(Rule::PromiseIncarnation) || incarnation >= head.incarnation[usize::from(voter)])
                }
                Fact::Release { node, epoch, incarnation } => {
                    (!on(Rule::RolesByEpoch) || epoch >= head.epoch)
                        && (!on(Rule::ReleaseIncarnation) || incarnation >= head.incarnation[usize::from(node)])
                }
                Fact::Ready { id, to, incarnation, .. } => open(id) && incarnation >= head.incarnation[usize::from(to)],
                Fact::Diverted { id, to, incarnation, .. } => {
                    (!on(Rule::MoveCompareAndSet) || open(id))
                        && (!on(Rule::DivertedIncarnation) || incarnation >= head.incarnation[1 - usize::from(to)])
                }
            };
            if !keep {
                *fact = Fact::None;
            }
        }
        self.0.sort_unstable_by(|a, b| b.cmp(a));
    }
}
