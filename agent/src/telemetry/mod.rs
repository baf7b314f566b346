//! What the agent tells about itself: the flight recorder, metrics, logs.

pub mod history;
pub mod log;
pub mod log2;
pub mod metrics;
pub mod record;
pub mod recorder;
mod story;
mod text;
