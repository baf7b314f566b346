//! `baton restart`: the agent on this machine is replaced by what is installed now, while the VIPs go on answering.

use std::{
    io::{self, Write as _},
    thread,
    time::{Duration, Instant},
};

use super::{
    client::Client,
    exit::{Exit, Failure},
};
use crate::{api::protocol::Request, cluster::ids::Nanos, config::duration};

/// Arguments of `baton restart`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// For how long the heartbeats go on without the agent; when it has not come up by then, its groups go to other nodes
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    within: Nanos,
    /// End the process instead of replacing it, for a process manager that starts it again
    #[arg(long)]
    exit: bool,
    /// Return when the restart begins, not when it is over
    #[arg(long)]
    no_wait: bool,
}

/// How often the new agent is looked for.
const LOOK: Duration = Duration::from_millis(20);
/// How much longer than the heartbeats the new agent is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

fn time(text: &str) -> Result<Nanos, String> {
    duration::parse(text).filter(|time| *time > 0).ok_or_else(|| "write a time as 10s or 500ms".to_owned())
}

/// Gives the order and waits until another agent's start is in the log.
pub(super) fn run(args: &Args, connect: impl Fn() -> Result<Client, Failure>) -> Result<Exit, Failure> {
    let Args { within, exit, no_wait } = args;
    let mut client = connect()?;
    let before = client.life()?.incarnation;
    let start = Instant::now();
    let message = client.order(&Request::Restart { within_ns: *within, exit: *exit })?;
    if *no_wait {
        writeln!(io::stdout().lock(), "{message}")?;
        return Ok(Exit::Done);
    }
    drop(client);
    while start.elapsed() < Duration::from_nanos(*within) + PATIENCE {
        // Nobody answers while there is no agent.
        if let Ok(life) = connect().and_then(|mut client| Ok(client.life()?))
            && life.incarnation > before
            && life.is_on_record()
        {
            let took = u64::try_from(start.elapsed().as_nanos()).unwrap_or(Nanos::MAX);
            let text = format!("Baton {} runs, after {}", life.version, duration::show(took));
            writeln!(io::stdout().lock(), "{text}")?;
            return Ok(Exit::Done);
        }
        thread::sleep(LOOK);
    }
    Err(Failure::Late(format!(
        "the agent has not come up again within {}; see its log, and `baton status` on another voter",
        duration::show(*within)
    )))
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn a_time_needs_a_unit_and_is_not_nothing() {
        assert_eq!(time("2s"), Ok(2_000_000_000));
        assert!(time("2").is_err() && time("0s").is_err() && time("soon").is_err());
    }
}
