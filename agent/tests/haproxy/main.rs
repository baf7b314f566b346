//! The haproxy resource against the real HAProxy, in network namespaces of the tests' own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod drain;
mod handover;
mod lab;
mod life;
