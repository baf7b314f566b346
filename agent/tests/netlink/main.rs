//! The netlink layer on the real kernel, in network namespaces that each test makes for itself. Needs root.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod address;
mod announce;
mod lab;
mod measure;
mod settings;
mod vip;
mod watch;
