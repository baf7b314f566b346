//! The project's own tasks: `cargo xtask setup | demo | test | bench | simulate | vm`.
//!
//! It depends on none of the project's crates, so that `setup` can run before they can be built.

mod bench;
mod demo;
mod run;
mod setup;
mod simulate;
mod test;
mod vm;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Baton's own tasks")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Find or install what building and testing need.
    Setup(setup::Arguments),
    /// A cluster on this machine that fails over while you watch.
    Demo(demo::Arguments),
    /// Format check, lints, build, and all tests.
    Test(test::Arguments),
    /// Benchmarks against the peers.
    Bench(bench::Arguments),
    /// The cluster core in a simulated world of faults.
    Simulate(simulate::Arguments),
    /// Guests under QEMU: other kernels, and machines that share nothing.
    Vm(vm::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().verb {
        Verb::Setup(arguments) => setup::verb(&arguments),
        Verb::Demo(arguments) => demo::verb(&arguments),
        Verb::Test(arguments) => test::verb(&arguments),
        Verb::Bench(arguments) => bench::verb(&arguments),
        Verb::Simulate(arguments) => simulate::verb(&arguments),
        Verb::Vm(arguments) => vm::verb(&arguments),
    }
}
