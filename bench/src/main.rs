//! Baton's benchmarks: failover against the peers, the takeover's phases, what an idle agent and the BPF programs cost.

mod failover;
mod idle;
mod matrix;
mod moves;
mod moves_killed;
mod moves_report;
mod moves_steering;
mod programs;
mod report;
mod stats;
mod takeover;
mod takeover_report;
mod timeline;

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
    /// From the decision to the client's first answer, for one VIP and for a thousand.
    Takeover(takeover::Arguments),
    /// What a planned move costs the clients of a service under load, beside keepalived and Pacemaker.
    Move(moves::Arguments),
    /// CPU and memory of an idle agent.
    Idle(idle::Arguments),
    /// What the BPF programs cost a packet.
    Programs(programs::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().verb {
        Verb::Failover(arguments) => failover::run(&arguments),
        Verb::Takeover(arguments) => takeover::run(&arguments),
        Verb::Move(arguments) => moves::run(&arguments),
        Verb::Idle(arguments) => idle::run(&arguments),
        Verb::Programs(arguments) => programs::run(&arguments),
    }
}
