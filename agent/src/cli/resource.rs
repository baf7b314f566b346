//! `baton resource`: one resource of a group is restarted, left alone, or managed again.

use std::io::{self, Write as _};

use super::{
    client::{Client, LOGGED_WITHIN},
    exit::{Exit, Failure},
};
use crate::api::protocol::Request;

/// Arguments of `baton resource`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Stop a resource and what requires it, and start them again, where the group runs
    Restart(Resource),
    /// Let Baton start and stop a resource again
    Manage(Resource),
    /// Take a resource out of Baton's hands: it is neither started, stopped nor restarted
    Unmanage(Resource),
}

#[derive(Debug, clap::Args)]
struct Resource {
    /// The group
    group: String,
    /// The resource: a name of the group's [[group.resource]], "haproxy", or "vip"
    resource: String,
}

/// Asks for it, and says what came of it.
pub(super) fn run(args: &Args, mut client: Client) -> Result<Exit, Failure> {
    let (Resource { group, resource }, on) = match &args.verb {
        Verb::Restart(Resource { group, resource }) => {
            let request = Request::RestartResource { group: group.clone(), resource: resource.clone() };
            let message = client.order(&request)?;
            writeln!(io::stdout().lock(), "{message}; `baton group show {group}` says how it goes")?;
            return Ok(Exit::Done);
        }
        Verb::Manage(named) => (named, false),
        Verb::Unmanage(named) => (named, true),
    };
    client.order(&Request::Unmanaged { group: group.clone(), resource: resource.clone(), on })?;
    client.wait(LOGGED_WITHIN, "the log does not say so", |s| {
        let unmanaged = |name: &String| name == resource;
        s.groups.iter().any(|g| g.name == *group && g.unmanaged.iter().any(unmanaged) == on)
    })?;
    let mut out = io::stdout().lock();
    match on {
        true => writeln!(
            out,
            "{resource} of {group} is unmanaged: nobody starts or stops it, and while it runs the group cannot be given up; \
             `baton resource manage {group} {resource}` ends that"
        )?,
        false => writeln!(out, "{resource} of {group} is managed again")?,
    }
    Ok(Exit::Done)
}
