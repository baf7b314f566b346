//! `demo`: builds with optimizations and runs the lab's demonstration.

use std::process::Command;

use anyhow::Result;

use crate::{
    run::{become_it, cargo, release_folder, run},
    setup,
};

/// Options of `demo`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Print one JSON object on standard output; progress stays on standard error.
    #[arg(long)]
    json: bool,
    /// The cluster's profile: default, quick or fast.
    #[arg(long)]
    profile: Option<String>,
}

/// The verb.
pub fn verb(arguments: &Arguments) -> Result<()> {
    setup::ensure()?;
    run(cargo().args(["build", "--release", "--package", "baton", "--package", "baton-lab", "--bins"]))?;
    let mut command = Command::new(release_folder().join("baton-demo"));
    command.env("BATON_BIN", release_folder().join("baton"));
    if arguments.json {
        command.arg("--json");
    }
    if let Some(profile) = &arguments.profile {
        command.args(["--profile", profile]);
    }
    become_it(&mut command)
}
