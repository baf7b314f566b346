//! The dedicated network between voters: heartbeats and the authenticated channel.

pub mod channel;
pub mod pulse;
pub mod responder;
