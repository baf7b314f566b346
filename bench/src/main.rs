//! Baton's benchmarks: failover against the peers, and what an idle agent costs.

mod failover;
mod idle;
mod matrix;
mod report;
mod stats;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "baton-bench", about = "Baton's benchmarks")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// What a client sees of a failover, beside keepalived.
    Failover(failover::Arguments),
    /// CPU and memory of an idle agent.
    Idle(idle::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().verb {
        Verb::Failover(arguments) => failover::run(&arguments),
        Verb::Idle(arguments) => idle::run(&arguments),
    }
}
