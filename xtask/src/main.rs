//! The project's own tasks: setup, demo, test, bench, simulate.
fn main() {}
