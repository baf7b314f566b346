//! Baton, a failover agent for Linux. See docs/architecture.md for the map of this crate.

pub mod clock;
pub mod cluster;
pub mod simulation;
