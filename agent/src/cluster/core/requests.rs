//! What operators ask of one node alone, past the log.

use super::Core;
use crate::cluster::ids::{GroupId, Nanos};

impl Core {
    /// Whether the group's resources run here, at the epoch of the log.
    pub fn runs(&self, group: &GroupId) -> bool {
        self.transitions.running().any(|id| id == group)
    }

    /// An operator has mended the group here: this node refuses it no longer for what failed. Returns whether it did.
    pub fn cleanup(&mut self, now: Nanos, group: &GroupId) -> bool {
        self.wake = Some(now);
        self.transitions.cleanup(now, group)
    }
}
