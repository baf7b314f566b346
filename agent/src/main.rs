//! The `baton` command line: parse and dispatch only.

use std::process::ExitCode;

use baton::{agent, cli};

fn main() -> ExitCode {
    cli::main(agent::run)
}
