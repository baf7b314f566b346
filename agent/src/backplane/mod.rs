//! The backplane: the network for cluster traffic.

pub mod responder;
