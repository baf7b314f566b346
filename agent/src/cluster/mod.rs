//! The cluster core: state, lease, detector, conclusion rounds, placement and transitions.
//!
//! Pure: no I/O, no clock, no tokio. Events and a `now` go in, [`command::Command`]s come out.
//! The agent, the simulation and the tests all run this very code.

pub mod command;
pub mod entry;
pub mod ids;
pub mod message;
pub mod mutations;
pub mod refusal;
pub mod state;
pub mod timing;
pub mod view;
