//! What the agent tells about itself: the flight recorder, metrics, logs.

pub mod history;
pub mod log;
pub mod log2;
pub mod mark;
pub mod metrics;
pub mod record;
pub mod recorder;
pub mod run;
mod snapshot;
mod story;
mod text;
mod wall;
