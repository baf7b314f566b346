//! `baton move`: an operator moves a group.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use super::{
    client::Client,
    exit::{Exit, Failure},
};
use crate::api::protocol::Request;

/// Arguments of `baton move`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The group
    group: String,
    /// The node that shall own it
    node: String,
    /// Return when the order is taken, not when it is carried out
    #[arg(long)]
    no_wait: bool,
}

/// How long the move may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Gives the order and waits until the node owns the group.
pub(super) fn run(args: &Args, mut client: Client) -> Result<Exit, Failure> {
    let Args { group, node, no_wait } = args;
    eprintln!("note: open connections to the VIPs of {group} break; new ones go to {node}");
    let message = client.order(&Request::Move { group: group.clone(), node: node.clone(), force: false })?;
    if *no_wait {
        writeln!(io::stdout().lock(), "{message}")?;
        return Ok(Exit::Done);
    }
    let owns = |g: &crate::api::status::GroupStatus| g.name == *group && g.owner.as_deref() == Some(node);
    let status =
        client.wait(LIMIT, &format!("{node} did not become the owner of {group}"), |s| s.groups.iter().any(owns))?;
    let epoch = status.groups.iter().find(|g| owns(g)).map_or(0, |g| g.epoch);
    writeln!(io::stdout().lock(), "{group} is owned by {node}, epoch {epoch}")?;
    Ok(Exit::Done)
}
