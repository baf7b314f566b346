//! How people and programs ask the agent: the control socket, and HTTP for metrics and the status page.

pub mod backend;
pub mod control;
pub mod http;
mod limit;
pub mod mend;
mod page;
pub mod protocol;
pub mod status;

pub use backend::{Backend, OrderError};
