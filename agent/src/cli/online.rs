//! `baton online`: ends a node's standby.

use std::io::{self, Write as _};

use super::{
    client::{Client, LOGGED_WITHIN},
    exit::{Exit, Failure},
};
use crate::api::protocol::Request;

/// Arguments of `baton online`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The node
    node: String,
}

/// Gives the order and waits until it is in the log. Groups come back only if they are configured to.
pub(super) fn run(args: &Args, mut client: Client) -> Result<Exit, Failure> {
    let node = &args.node;
    client.order(&Request::Standby { node: node.clone(), on: false })?;
    client.wait(LOGGED_WITHIN, &format!("{node} is still on standby"), |s| {
        s.voters.iter().any(|v| v.name == *node && !v.standby)
    })?;
    writeln!(io::stdout().lock(), "{node} may own groups again; those without `failback` stay where they are")?;
    Ok(Exit::Done)
}
