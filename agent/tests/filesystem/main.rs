//! Filesystems as resources, on real ones: loop devices, in mount namespaces of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod busy;
mod lab;
mod life;
mod refused;
#[path = "../resource_support/mod.rs"]
mod resource_support;
