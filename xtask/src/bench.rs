//! `bench`: builds with optimizations and runs a benchmark; further arguments are the benchmark's own.

use std::process::Command;

use anyhow::Result;

use crate::{
    run::{become_it, cargo, release_folder, run},
    setup,
};

/// Options of `bench`.
#[derive(clap::Args)]
pub struct Arguments {
    /// `failover`, `takeover`, `move`, `programs` or `idle`, and its options (`failover --help` lists them).
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    arguments: Vec<String>,
}

/// The verb.
pub fn verb(arguments: &Arguments) -> Result<()> {
    setup::ensure()?;
    run(cargo().args(["build", "--release", "--package", "baton", "--package", "baton-bench", "--bins"]))?;
    let mut command = Command::new(release_folder().join("baton-bench"));
    command.env("BATON_BIN", release_folder().join("baton")).args(&arguments.arguments);
    become_it(&mut command)
}
