//! Runs the seeded simulation of the cluster core: `cargo xtask simulate` calls it.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use baton::simulation::Mutation;
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
    /// Leave out one rule, by the mutation's name: the simulation must find what it was good for.
    #[arg(long)]
    without: Option<String>,
}

fn main() -> Result<ExitCode> {
    let Arguments { seeds, from, voters, without } = Arguments::parse();
    let mutation = match &without {
        Some(name) => Some(Mutation::named(name).with_context(|| format!("no mutation is named {name}"))?),
        None => None,
    };
    let good = baton::simulation::main_loop(seeds, from, voters.parse()?, mutation)?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
