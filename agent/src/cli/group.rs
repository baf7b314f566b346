//! `baton group`: lists and shows groups, starts and stops them, forgets what failed.

use std::{
    io::{self, Write as _},
    thread,
    time::{Duration, Instant},
};

use super::{
    client::{Client, ClientError},
    exit::{Exit, Failure},
    table,
};
use crate::{
    api::{
        protocol::Request,
        status::{GroupStatus, StatusReport},
    },
    config::did_you_mean,
    telemetry::run::RunState,
};

/// Arguments of `baton group`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// All groups: owner, state, and what stands against them
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// One group, with each of its resources
    Show {
        /// The group
        group: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Let a group run again that was stopped
    Start(Change),
    /// Stop a group wherever it runs, until `start`
    Stop(Change),
    /// Forget what failed of a group, try again at once what could not be stopped, and let every node take it again
    Cleanup {
        /// The group
        group: String,
        /// Forget the failures of this resource alone
        resource: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Change {
    /// The group
    group: String,
    /// Return when the order is taken, not when it is carried out
    #[arg(long)]
    no_wait: bool,
}

/// How long it may take until the log says so, and a node takes what is started.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);
/// How long the resources may take to start or stop; each has a limit of its own.
const LIMIT: Duration = Duration::from_secs(600);
/// How often the status is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Does what was asked.
pub(super) fn run(args: &Args, mut client: Client) -> Result<Exit, Failure> {
    let mut out = io::stdout().lock();
    match &args.verb {
        Verb::List { json } => {
            let status = client.status()?;
            let text = if *json { pretty(&status.groups)? } else { table::group_list(&status) };
            writeln!(out, "{text}")?;
            Ok(Exit::Done)
        }
        Verb::Show { group, json } => {
            let status = client.status()?;
            let found = named(&status, group)?;
            let text = if *json { pretty(found)? } else { table::group_details(&status, found) };
            writeln!(out, "{text}")?;
            Ok(Exit::Done)
        }
        Verb::Cleanup { group, resource } => {
            let request = Request::Cleanup { group: group.clone(), resource: resource.clone() };
            writeln!(out, "{}", client.order(&request)?)?;
            Ok(Exit::Done)
        }
        Verb::Start(change) => switch(change, false, &mut client),
        Verb::Stop(change) => switch(change, true, &mut client),
    }
}

fn pretty(value: &impl serde::Serialize) -> Result<String, ClientError> {
    serde_json::to_string_pretty(value).map_err(ClientError::Garbled)
}

fn named<'a>(status: &'a StatusReport, name: &str) -> Result<&'a GroupStatus, ClientError> {
    let known = || status.groups.iter().map(|g| g.name.as_str());
    status.groups.iter().find(|g| g.name == name).ok_or_else(|| ClientError::Refused {
        kind: crate::api::protocol::ErrorKind::Refused,
        message: format!(
            "no group is called \"{}\"{}; the groups are: {}",
            name.escape_debug(),
            did_you_mean(name, known()),
            known().collect::<Vec<_>>().join(", ")
        ),
    })
}

/// Gives the order and follows it until it is carried out. Ctrl-C ends the following, not the order.
fn switch(change: &Change, stop: bool, client: &mut Client) -> Result<Exit, Failure> {
    let Change { group, no_wait } = change;
    let message = client.order(&Request::Stopped { group: group.clone(), on: stop })?;
    if *no_wait {
        writeln!(io::stdout().lock(), "{message}")?;
        return Ok(Exit::Done);
    }
    let start = Instant::now();
    let mut told = None;
    loop {
        let status = client.status()?;
        let now = named(&status, group)?;
        let progress = progress(now);
        if told.as_ref() != Some(&progress) {
            if let Some(text) = &progress {
                writeln!(io::stdout().lock(), "{text}")?;
            }
            told = Some(progress);
        }
        if let Some((node, why)) = now.blocked().next().filter(|_| now.stopped == stop) {
            return Err(Failure::Late(format!(
                "{group} is blocked on {node}: {why}; it is tried again, and `baton group cleanup {group}` tries at once"
            )));
        }
        if now.stopped == stop && (if stop { is_down(now) } else { is_up(now) }) {
            return done(now, stop);
        }
        let waits = now.stopped == stop && !stop && now.owner.is_none();
        if waits && (status.maintenance || now.maintenance) {
            writeln!(io::stdout().lock(), "{group} will be started when the maintenance is over")?;
            return Ok(Exit::Done);
        }
        let limit = if now.stopped != stop || waits { TAKEN_WITHIN } else { LIMIT };
        if start.elapsed() >= limit {
            let verb = if stop { "stopped" } else { "started" };
            return Err(Failure::Late(format!(
                "the order was taken, but {group} was not {verb} within {} s: {}",
                limit.as_secs(),
                now.why
            )));
        }
        thread::sleep(LOOK);
    }
}

/// Nobody owns it, and nothing of it runs where that is known.
fn is_down(group: &GroupStatus) -> bool {
    let mut resources = group.runs.iter().flat_map(|r| &r.run.resources);
    group.owner.is_none()
        && group.draining_on.is_none()
        && resources.all(|r| matches!(r.state, RunState::Stopped | RunState::Unmanaged | RunState::Failed))
}

/// Somebody owns it, and all of it runs there if that is known.
fn is_up(group: &GroupStatus) -> bool {
    let Some(owner) = &group.owner else { return false };
    let mut resources = group.runs.iter().filter(|r| r.node == *owner).flat_map(|r| &r.run.resources);
    resources.all(|r| matches!(r.state, RunState::Running | RunState::Unmanaged))
}

/// What starts or stops now, if that is known here.
fn progress(group: &GroupStatus) -> Option<String> {
    let under_way = group.runs.iter().flat_map(|r| r.run.resources.iter().map(move |resource| (&r.node, resource)));
    let lines = under_way.filter_map(|(node, r)| match r.state {
        RunState::Starting | RunState::Stopping => Some(format!("{} {} on {node}", r.state.as_str(), r.name)),
        RunState::Failed => {
            Some(format!("{} failed on {node}: {}", r.name, r.last_error.as_deref().unwrap_or("see the log there")))
        }
        _ => None,
    });
    let text = lines.collect::<Vec<_>>().join(", ");
    (!text.is_empty()).then_some(text)
}

fn done(group: &GroupStatus, stop: bool) -> Result<Exit, Failure> {
    let mut out = io::stdout().lock();
    let name = &group.name;
    match &group.owner {
        _ if stop => writeln!(out, "{name} is stopped; `baton group start {name}` starts it again")?,
        Some(owner) => writeln!(out, "{name} is owned by {owner}, epoch {}", group.epoch)?,
        None => {}
    }
    Ok(Exit::Done)
}
