//! `baton keeper`: what the agent starts before it restarts; not for people.

use super::exit::{Exit, Failure};

/// Beats on for the agent.
pub(super) fn run() -> Result<Exit, Failure> {
    crate::keeper::run().map_err(Failure::Agent)?;
    Ok(Exit::Done)
}
