//! `baton move`: an operator moves a group, and sees how far it is and what its clients saw.

use std::{
    io::{self, Write as _},
    thread,
    time::{Duration, Instant},
};

use super::{
    client::{Client, ClientError},
    exit::{Exit, Failure},
};
use crate::{
    api::{
        protocol::Request,
        status::{GroupStatus, MoveStage, MoveStatus},
    },
    config::duration,
};

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
    /// Return when the node owns the group, without waiting for the open connections on the old owner to end
    #[arg(long)]
    no_drain: bool,
    /// Say what would happen, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Move also where open connections break by it
    #[arg(long)]
    force: bool,
}

/// How long the move may take; what drains afterwards takes as long as it takes.
const LIMIT: Duration = Duration::from_secs(10);
/// How often the status is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Gives the order and waits until the node owns the group and the old owner's flows have ended. Ctrl-C ends the waiting, not the
/// move.
pub(super) fn run(args: &Args, mut client: Client) -> Result<Exit, Failure> {
    let Args { group, node, no_wait, no_drain, dry_run, force } = args;
    let before = last_move(&mut client, group)?.map_or(0, |m| m.epoch);
    let request = |dry_run| Request::Move { group: group.clone(), node: node.clone(), force: *force, dry_run };
    let message = client.order(&request(*dry_run))?;
    if *no_wait || *dry_run {
        writeln!(io::stdout().lock(), "{message}")?;
        return Ok(Exit::Done);
    }
    let start = Instant::now();
    let mut told = None;
    loop {
        let status = client.status()?;
        let Some(now) = status.groups.into_iter().find(|g| g.name == *group) else {
            return Err(Failure::Late(format!("{group} is no group of the cluster any more")));
        };
        let owned = now.owner.as_deref() == Some(node);
        let newest = now.last_move.as_ref().filter(|m| m.to == *node && (m.epoch > before || owned));
        if let Some(m) = newest
            && told != Some(m.stage)
        {
            told = Some(m.stage);
            tell(group, m, *no_drain)?;
        }
        match newest.map(|m| m.stage) {
            Some(MoveStage::Abandoned) if !owned && told.is_some() => {
                // What stood against it most often still does.
                let why = match client.order(&request(true)) {
                    Err(ClientError::Refused { message, .. }) => message,
                    _ => format!("see the log of the agent on {node}"),
                };
                return Err(Failure::Late(format!(
                    "{group} was not moved to {node}, and goes on where it was: the move was given up; {why}"
                )));
            }
            Some(MoveStage::Draining) if owned && *no_drain => return done(group, &now),
            Some(MoveStage::Draining) => {}
            _ if owned && now.draining_on.is_none() => return done(group, &now),
            _ if start.elapsed() >= LIMIT => {
                return Err(Failure::Late(format!(
                    "the order was taken, but {node} did not become the owner of {group} within {} s; see `baton status`",
                    LIMIT.as_secs()
                )));
            }
            _ => {}
        }
        thread::sleep(LOOK);
    }
}

fn last_move(client: &mut Client, group: &str) -> Result<Option<MoveStatus>, Failure> {
    let status = client.status()?;
    Ok(status.groups.into_iter().find(|g| g.name == group).and_then(|g| g.last_move))
}

/// One line a stage.
fn tell(group: &str, m: &MoveStatus, no_drain: bool) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let to = &m.to;
    match m.stage {
        MoveStage::Preparing => writeln!(out, "{to} prepares to receive {group}")?,
        MoveStage::Ready => writeln!(out, "{to} is ready to receive, after {}", show(m.prepared_ns))?,
        MoveStage::Draining => {
            let from = m.from.as_deref().unwrap_or("the old owner");
            writeln!(out, "moved within {}: new connections go to {to}", show(m.moved_ns))?;
            if !no_drain {
                writeln!(out, "open connections go on on {from} until they end (Ctrl-C stops the waiting, not them)")?;
            }
        }
        MoveStage::Done => match &m.drained {
            Some(d) => {
                let ended = d.kept.saturating_sub(d.reset);
                writeln!(
                    out,
                    "drained in {}: {} connections were kept, {ended} of them ended by themselves and {} were reset; {} packets \
                     went to them; {} new flows came to the old owner and were forwarded",
                    show(d.lasted_ns),
                    d.kept,
                    d.reset,
                    d.packets,
                    d.forwarded
                )?;
            }
            None if m.steers => writeln!(out, "the old owner did not say what became of its open connections")?,
            None => writeln!(out, "moved within {}; what was open on the old owner broke", show(m.moved_ns))?,
        },
        MoveStage::Abandoned => {}
    }
    Ok(())
}

fn done(group: &str, now: &GroupStatus) -> Result<Exit, Failure> {
    let owner = now.owner.as_deref().unwrap_or("nobody");
    writeln!(io::stdout().lock(), "{group} is owned by {owner}, epoch {}", now.epoch)?;
    Ok(Exit::Done)
}

/// To tenths of a millisecond: what lies below means nothing to an operator.
fn show(nanos: u64) -> String {
    duration::show((nanos + 50_000) / 100_000 * 100_000)
}
