//! `baton maintenance`: the cluster, a node or a group is left as it is while somebody works on it.

use std::io::{self, Write as _};

use clap::ValueEnum;

use super::{
    client::{Client, LOGGED_WITHIN},
    exit::{Exit, Failure},
};
use crate::api::{protocol::Request, status::StatusReport};

/// Arguments of `baton maintenance`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Begin it, or end it
    #[arg(value_enum)]
    way: Way,
    /// Of this node and what it owns, not of the whole cluster
    #[arg(long, value_name = "NODE", conflicts_with = "group")]
    node: Option<String>,
    /// Of this group alone
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    On,
    Off,
}

/// Gives the order and waits until it is in the log.
pub(super) fn run(args: &Args, mut client: Client) -> Result<Exit, Failure> {
    let Args { way, node, group } = args;
    let on = *way == Way::On;
    client.order(&Request::Maintenance { node: node.clone(), group: group.clone(), on })?;
    let is = |s: &StatusReport| match (node, group) {
        (Some(node), _) => s.voters.iter().any(|v| v.name == *node && v.maintenance),
        (None, Some(group)) => s.groups.iter().any(|g| g.name == *group && g.maintenance),
        (None, None) => s.maintenance,
    };
    client.wait(LOGGED_WITHIN, "the log does not say so", |s| is(s) == on)?;
    let (what, option) = match (node, group) {
        (Some(node), _) => (node.as_str(), format!(" --node {node}")),
        (None, Some(group)) => (group.as_str(), format!(" --group {group}")),
        (None, None) => ("the cluster", String::new()),
    };
    let mut out = io::stdout().lock();
    match on {
        true => writeln!(
            out,
            "{what} is in maintenance: nothing moves on its own, and what fails is only reported; a node without a lease still serves \
             nothing; `baton maintenance off{option}` ends it"
        )?,
        false => writeln!(out, "the maintenance of {what} is over")?,
    }
    Ok(Exit::Done)
}
