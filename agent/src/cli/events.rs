//! `baton events`: the failovers that the agent saw, phase by phase.

use std::io::{self, Write as _};

use super::{
    client::{Client, ClientError},
    exit::{Exit, Failure},
};
use crate::api::protocol::{Request, Response};

/// Arguments of `baton events`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Go on with each new failover, until interrupted
    #[arg(long)]
    follow: bool,
    /// Only records with a larger number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    since: u64,
}

/// Prints the records, oldest first.
pub(super) fn run(args: &Args, mut client: Client) -> Result<Exit, Failure> {
    client.ask(&Request::Events { follow: args.follow, since: args.since })?;
    if args.follow {
        client.be_patient()?;
    }
    let mut out = io::stdout().lock();
    let mut any = false;
    loop {
        match client.hear()? {
            Response::Event { event } if args.json => {
                writeln!(out, "{}", serde_json::to_string(&event).map_err(ClientError::Garbled)?)?
            }
            Response::Event { event } => writeln!(out, "{}{}", if any { "\n" } else { "" }, event.render())?,
            Response::Skipped { records } => {
                eprintln!("baton: {records} records came faster than they were read, and are left out here")
            }
            Response::End {} => break,
            _ => return Err(ClientError::Unexpected.into()),
        }
        any = true;
        out.flush()?;
    }
    if !any {
        eprintln!("no failover is recorded");
    }
    Ok(Exit::Done)
}
