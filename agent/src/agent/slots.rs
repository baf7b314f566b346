//! Which row of the gate's table belongs to which group on this machine. Local: the log knows groups by name alone.

use std::collections::BTreeMap;

use crate::cluster::ids::GroupId;

/// The rows, by group.
#[derive(Clone, Debug, Default)]
pub struct Slots(BTreeMap<GroupId, u32>);

impl Slots {
    /// One row for each group of the configuration, in the order of their names.
    pub fn new<'a>(groups: impl Iterator<Item = &'a GroupId>) -> Self {
        Self(groups.cloned().zip(0..).collect())
    }

    /// The groups, in the order of their rows.
    pub fn groups(&self) -> Vec<GroupId> {
        // Rows were given out in the order of the names.
        self.0.keys().cloned().collect()
    }

    /// The row of a group; `None` for one that the configuration does not name.
    pub fn of(&self, group: &GroupId) -> Option<u32> {
        self.0.get(group).copied()
    }
}
