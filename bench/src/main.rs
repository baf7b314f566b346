//! Benchmarks against the peers.
fn main() {}
