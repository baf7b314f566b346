//! Baton's benchmarks: failover against the peers, what an idle agent costs, and what the BPF programs cost.

mod failover;
mod idle;
mod matrix;
mod programs;
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
    /// What the BPF programs cost a packet.
    Programs(programs::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().verb {
        Verb::Failover(arguments) => failover::run(&arguments),
        Verb::Idle(arguments) => idle::run(&arguments),
        Verb::Programs(arguments) => programs::run(&arguments),
    }
}
