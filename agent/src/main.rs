//! The `baton` command line: parse and dispatch only.

use std::process::ExitCode;

use baton::{cli, config::Config};

fn main() -> ExitCode {
    cli::main(start_agent)
}

/// Runs the agent until it is told to stop.
fn start_agent(_config: Config) -> anyhow::Result<()> {
    anyhow::bail!("the agent is not part of this build yet")
}
