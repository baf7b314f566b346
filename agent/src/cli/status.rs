//! `baton status`: the cluster at a glance.

use std::io::{self, Write as _};

use super::{
    client::{Client, ClientError},
    exit::{Exit, Failure},
    table,
};

/// Arguments of `baton status`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Prints the status; the exit code says whether there is a quorum.
pub(super) fn run(args: &Args, mut client: Client) -> Result<Exit, Failure> {
    let status = client.status()?;
    let text = if args.json {
        serde_json::to_string_pretty(&status).map_err(ClientError::Garbled)?
    } else {
        table::render(&status)
    };
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(if status.quorum { Exit::Done } else { Exit::Unavailable })
}
