//! OCF agents as resources: those of Debian's resource-agents, and broken ones.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod broken;
mod lab;
mod real;
#[path = "../resource_support/mod.rs"]
mod resource_support;
