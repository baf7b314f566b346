//! Runs the seeded simulation of the cluster core: `cargo xtask simulate` calls it.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// Runs the cluster core through random faults; a seed that fails is printed with its trace.
#[derive(Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How many voters: 3 or 5.
    #[arg(long, default_value = "3", value_parser = ["3", "5"])]
    voters: String,
}

fn main() -> Result<ExitCode> {
    let Arguments { seeds, from, voters } = Arguments::parse();
    let good = baton::simulation::main_loop(seeds, from, voters.parse()?)?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
