//! `baton standby`: a node gives all its groups away, for maintenance.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use super::{
    client::Client,
    exit::{Exit, Failure},
};
use crate::api::protocol::Request;

/// Arguments of `baton standby`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The node
    node: String,
    /// Return when the order is taken, not when it is carried out
    #[arg(long)]
    no_wait: bool,
}

/// How long giving everything away may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Gives the order and waits until the node owns nothing.
pub(super) fn run(args: &Args, mut client: Client) -> Result<Exit, Failure> {
    let Args { node, no_wait } = args;
    eprintln!("note: open connections to the VIPs of the groups that {node} owns break");
    let message = client.order(&Request::Standby { node: node.clone(), on: true })?;
    if *no_wait {
        writeln!(io::stdout().lock(), "{message}")?;
        return Ok(Exit::Done);
    }
    client.wait(LIMIT, &format!("{node} still owns a group"), |s| {
        s.voters.iter().any(|v| v.name == *node && v.standby)
            && s.groups.iter().all(|g| g.owner.as_deref() != Some(node))
    })?;
    writeln!(io::stdout().lock(), "{node} is on standby and owns nothing; `baton online {node}` ends it")?;
    Ok(Exit::Done)
}
