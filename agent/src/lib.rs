//! Baton, a failover agent for Linux. See docs/architecture.md for the map of this crate.

pub mod agent;
pub mod api;
pub mod backplane;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod keeper;
pub mod kernel;
pub mod netlink;
pub mod process;
pub mod quorum;
pub mod realtime;
pub mod resources;
pub mod simulation;
pub mod telemetry;
