//! The cluster core: state, lease, detector, conclusion rounds, placement and transitions.
//!
//! Pure: no I/O, no clock, no tokio. Events and a `now` go in, [`command::Command`]s come out.
//! The agent, the simulation and the tests all run this very code.

#[cfg(test)]
mod bench;
pub mod command;
pub mod core;
mod detector;
mod election;
pub mod entry;
mod handover;
pub mod ids;
pub mod lease;
pub mod message;
pub mod mutations;
mod notices;
mod orders;
mod out;
pub mod placement;
mod promises;
pub mod refusal;
mod reporting;
mod rounds;
pub mod settings;
mod sight;
pub mod state;
mod steward;
pub mod timing;
mod transition;
pub mod view;
