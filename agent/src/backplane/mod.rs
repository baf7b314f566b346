//! The dedicated network between voters.

pub mod channel;
