//! What a resource reports by itself, at the moment it happens.

use std::{fmt, sync::Arc};

use crate::cluster::ids::GroupId;

/// Something happened to a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceEvent {
    /// The resource's group.
    pub group: GroupId,
    /// The resource's name.
    pub resource: String,
    /// What happened.
    pub what: What,
}

/// What happened to a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Its process ended without being asked to.
    Died {
        /// How it ended, as far as the kernel tells: "killed by signal 9".
        status: String,
        /// Whether an owner shall give the group up at once; otherwise it is restarted in place, and [`What::Restarted`] or
        /// another [`What::Died`] follows.
        release: bool,
    },
    /// It runs again, after it had died.
    Restarted,
    /// It runs, but this node may not take the group over; the text says why.
    Ill(String),
    /// It is well again, after it was ill.
    Well,
}

/// Where a resource reports to. It is called from the resource's own threads, so it must hand the event on and not work on it.
#[derive(Clone)]
pub struct Notifier(Arc<dyn Fn(ResourceEvent) + Send + Sync>);

impl Notifier {
    /// Reports to a function.
    pub fn new(tell: impl Fn(ResourceEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// Report an event.
    pub fn tell(&self, event: ResourceEvent) {
        (self.0)(event);
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notifier")
    }
}
