//! What one group consists of, and in which order its parts start: each once what it requires runs. They stop the other way round.

use std::collections::BTreeSet;

use crate::{cluster::ids::Nanos, resources::Resource};

/// What one group consists of.
#[derive(Default)]
pub struct Stack {
    /// Its resources, in an order in which they may start one after the other.
    pub slots: Vec<Slot>,
    /// How many addresses they carry, for the flight recorder.
    pub addresses: usize,
    /// Whether a resource needs to know what the owner's knows before a planned move.
    pub knowledge: bool,
    /// Whether it must not run twice: it is stopped before its group is given up.
    pub stops_first: bool,
    /// So many failures of one resource are too many.
    pub threshold: u32,
    /// After how long a failure is forgotten.
    pub failure_timeout: Nanos,
}

/// One resource and its place.
pub struct Slot {
    /// The resource.
    pub resource: Box<dyn Resource>,
    /// Its name within its group, for `requires` and orders.
    pub name: String,
    /// The word of its kind, for people.
    pub kind: &'static str,
    /// The slots that must run before it.
    pub requires: Vec<usize>,
    /// What its failure means.
    pub policy: Policy,
    /// What it does.
    pub condition: Condition,
    /// What failed last.
    pub last_error: Option<String>,
}

/// What a resource's failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// It sees to itself, and reports a failure that shall cost its owner the group; a start that fails does so at once.
    Own,
    /// It is restarted in place, until it has failed too often.
    Restart,
    /// The group is given up at once.
    Move,
    /// It is only told of.
    Ignore,
}

/// What a resource does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing of it runs, as far as is known.
    #[default]
    Stopped,
    /// It is being started.
    Starting,
    /// It runs.
    Running,
    /// It was started, and failed.
    Failed(String),
    /// It is being stopped.
    Stopping,
    /// It could not be stopped: something of it may still run.
    Stuck(String),
}

impl Slot {
    /// A resource that sees to itself and requires nothing.
    pub fn plain(name: &str, kind: &'static str, resource: Box<dyn Resource>) -> Self {
        let (requires, policy, condition) = (Vec::new(), Policy::Own, Condition::Stopped);
        Self { resource, name: name.to_owned(), kind, requires, policy, condition, last_error: None }
    }

    /// How often it is looked at while it runs, in nanoseconds; 0: it is not.
    pub fn interval_ns(&self) -> Nanos {
        self.resource.monitor_interval().map_or(0, |i| u64::try_from(i.as_nanos()).unwrap_or(Nanos::MAX / 2))
    }
}

impl Stack {
    /// The slots that require one of these, directly or by others, these included.
    pub fn dependents(&self, of: &BTreeSet<usize>) -> BTreeSet<usize> {
        let mut found = of.clone();
        loop {
            let more = self.slots.iter().enumerate().filter(|(_, s)| s.requires.iter().any(|r| found.contains(r)));
            let more: BTreeSet<usize> = more.map(|(at, _)| at).filter(|at| !found.contains(at)).collect();
            if more.is_empty() {
                return found;
            }
            found.extend(more);
        }
    }
}
