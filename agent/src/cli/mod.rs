//! The command line: one file a subcommand. docs/cli.md has the same words.

mod agent;
mod check;
mod client;
mod events;
mod exit;
mod group;
mod keeper;
mod keygen;
mod maintenance;
mod move_group;
mod online;
mod plan;
mod resource;
mod restart;
mod standby;
mod status;
mod table;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

pub use self::exit::Exit;
use self::{client::Client, exit::Failure};
use crate::config::{self, Config};

/// What `baton agent` calls with its checked configuration; it returns when the agent has stopped.
pub type StartAgent = fn(Config) -> anyhow::Result<()>;

/// Keeps a virtual IP alive on exactly one node of a cluster.
#[derive(Debug, Parser)]
#[command(name = "baton", version, after_help = exit::HELP)]
struct Cli {
    /// The configuration [default: /etc/baton/baton.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The control socket of the agent [default: the one in the configuration's run_dir, or /run/baton/control.sock]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent on this machine, in the foreground
    Agent(agent::Args),
    /// Show the cluster as this machine's agent sees it (exit code 4 without a quorum)
    Status(status::Args),
    /// Show the failovers that this machine's agent saw, phase by phase
    Events(events::Args),
    /// Move a group to a node; its connections break
    Move(move_group::Args),
    /// Take all groups off a node, until `online`; their connections break
    Standby(standby::Args),
    /// Let a node own groups again
    Online(online::Args),
    /// Show groups, start and stop them, and forget what failed of them
    Group(group::Args),
    /// Restart a single resource, or take it out of Baton's hands
    Resource(resource::Args),
    /// Keep Baton from acting on its own: nothing is moved, started again or stopped for a failure
    Maintenance(maintenance::Args),
    /// Replace this machine's agent by the installed one, while the VIPs go on answering
    Restart(restart::Args),
    /// Beat on for an agent that restarts
    #[command(hide = true)]
    Keeper,
    /// Show where groups would be, and what would be done for it; changes nothing
    Plan(plan::Args),
    /// Check a configuration, and show all its mistakes
    Check(check::Args),
    /// Make a new cluster key
    Keygen(keygen::Args),
}

/// Parses the arguments of the process and carries the command out.
pub fn main(start_agent: StartAgent) -> ExitCode {
    // Usage errors, --help and --version end the process here: with 2, 0 and 0.
    let cli = Cli::parse();
    match dispatch(&cli, start_agent) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report().into(),
    }
}

fn dispatch(cli: &Cli, start_agent: StartAgent) -> Result<Exit, Failure> {
    let client = || -> Result<Client, Failure> {
        let path = match &cli.socket {
            Some(path) => path.clone(),
            None => config::socket_of(cli.config.as_deref())?,
        };
        Ok(Client::connect(path)?)
    };
    match &cli.command {
        Command::Agent(args) => agent::run(args, cli.config.as_deref(), start_agent),
        Command::Status(args) => status::run(args, client()?),
        Command::Events(args) => events::run(args, client()?),
        Command::Move(args) => move_group::run(args, client()?),
        Command::Standby(args) => standby::run(args, client()?),
        Command::Online(args) => online::run(args, client()?),
        Command::Group(args) => group::run(args, client()?),
        Command::Resource(args) => resource::run(args, client()?),
        Command::Maintenance(args) => maintenance::run(args, client()?),
        Command::Restart(args) => restart::run(args, client),
        Command::Keeper => keeper::run(),
        Command::Plan(args) => plan::run(args, cli.socket.as_deref()),
        Command::Check(args) => check::run(args),
        Command::Keygen(args) => keygen::run(args),
    }
}
