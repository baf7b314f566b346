//! What the gates of a lab's nodes recorded: read from their pinned tables.

use crate::baton::Inspect;

/// Reads the tenures of the lab's group from all nodes, where the kernel side records them.
pub const INSPECT: Option<Inspect> = None;
