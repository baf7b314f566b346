//! `simulate`: the seeded simulation of the cluster core; a seed that fails is printed with its trace, and replayed by its number.

use std::process::Command;

use anyhow::Result;

use crate::{
    run::{become_it, cargo, release_folder, run},
    setup,
};

/// Options of `simulate`.
#[derive(clap::Args)]
pub struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How many voters: 3 or 5.
    #[arg(long, default_value_t = 3)]
    voters: u8,
    /// Leave out one rule of the real code, by the name of its mutation: the simulation must then fail.
    #[arg(long)]
    without: Option<String>,
}

/// The verb.
pub fn verb(arguments: &Arguments) -> Result<()> {
    setup::ensure()?;
    run(cargo().args(["build", "--release", "--package", "baton-lab", "--bin", "baton-simulate"]))?;
    let mut command = Command::new(release_folder().join("baton-simulate"));
    for (name, value) in
        [("--seeds", arguments.seeds), ("--from", arguments.from), ("--voters", arguments.voters.into())]
    {
        command.arg(name).arg(value.to_string());
    }
    if let Some(without) = &arguments.without {
        command.args(["--without", without]);
    }
    become_it(&mut command)
}
