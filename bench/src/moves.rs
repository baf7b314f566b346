//! `move`: what a planned move costs the clients of a service under load, for Baton, keepalived and Pacemaker in turns.
//!
//! Each trial has a fresh cluster, HAProxy on both nodes, and the usual load. The same clients are watched for the same
//! time right before the move, without one: that is the baseline.

use std::{fmt, str::FromStr, thread, time::Duration};

use anyhow::{Context, Error, Result, anyhow, ensure};
use baton::clock;
use baton_lab::{
    baton::{Baton, Profile},
    gates,
    keepalived::Keepalived,
    load::{
        http::{self, Load},
        proxy,
        record::Kind,
        report::Report,
        stage::{Proxied, Stage},
    },
    lock::Exclusive,
    pacemaker::{Method, Pacemaker},
    system::System,
    topology::{Spec, VIP4},
    wait,
};
use rand::{SeedableRng, rngs::SmallRng, seq::SliceRandom};

use crate::{
    moves_killed,
    moves_report::{self, Cells, Sample},
    moves_steering,
};

const LIMIT: Duration = Duration::from_secs(60);
/// After the last connection was opened, until the baseline begins.
const SETTLE: Duration = Duration::from_secs(1);

/// Options of `move`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Moves a row, each in a fresh cluster.
    #[arg(long, default_value_t = 5)]
    trials: u32,
    /// Long-lived connections, each with a request every 50 ms.
    #[arg(long, default_value_t = 500)]
    kept: usize,
    /// New connections a second.
    #[arg(long, default_value_t = 200)]
    new: u32,
    /// Seconds before the move that are the baseline, and seconds from the move on that are counted.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Rows, such as `baton/move,keepalived-0.01s/stop`; all if left out.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<Row>,
    /// Times that HAProxy is killed on the owner (Baton only); 0 leaves that out.
    #[arg(long, default_value_t = 10)]
    kills: u32,
    /// Questions of each kind by which the latency of a steered packet is measured; 0 leaves steering out.
    #[arg(long, default_value_t = 5_000)]
    questions: usize,
    /// Uploads of each kind, steered and not.
    #[arg(long, default_value_t = 10)]
    uploads: usize,
    /// Baton's profile: default, quick or fast.
    #[arg(long, default_value = "quick")]
    profile: String,
    /// Print one JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// A system, and the way in which its operator asks for a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    /// `baton move`.
    Baton,
    /// keepalived with an advertisement every 10 ms and realtime priority: its daemon on the owner is stopped.
    KeepalivedStop,
    /// The same, its priority on the owner is lowered.
    KeepalivedPriority,
    /// keepalived's default of an advertisement a second, stopped.
    KeepalivedDefault,
    /// `crm_resource --move`.
    PacemakerMove,
    /// The owner becomes a standby.
    PacemakerStandby,
}

const ROWS: [(Row, &str, &str); 6] = [
    (Row::Baton, "baton", "move"),
    (Row::KeepalivedStop, "keepalived-0.01s", "stop"),
    (Row::KeepalivedPriority, "keepalived-0.01s", "priority"),
    (Row::KeepalivedDefault, "keepalived-1s", "stop"),
    (Row::PacemakerMove, "pacemaker", "move"),
    (Row::PacemakerStandby, "pacemaker", "standby"),
];

impl Row {
    /// The system's name and the method's.
    pub fn names(self) -> (&'static str, &'static str) {
        ROWS.iter().find(|(row, ..)| *row == self).map_or(("?", "?"), |(_, system, method)| (system, method))
    }

    fn system(self, profile: &Profile) -> Box<dyn System> {
        match self {
            Self::Baton => Box::new(Baton::new(profile.clone(), gates::INSPECT).with_haproxy("")),
            Self::KeepalivedStop => Box::new(Keepalived::floor_realtime()),
            Self::KeepalivedPriority => Box::new(Keepalived::floor_realtime().moved_by_priority()),
            Self::KeepalivedDefault => Box::new(Keepalived::default_setting()),
            Self::PacemakerMove => Box::new(Pacemaker::new(Method::Move)),
            Self::PacemakerStandby => Box::new(Pacemaker::new(Method::Standby)),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (system, method) = self.names();
        write!(f, "{system}/{method}")
    }
}

impl FromStr for Row {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = || ROWS.map(|(row, ..)| row.to_string()).join(", ");
        let found = ROWS.iter().find(|(row, ..)| row.to_string() == text);
        found.map(|(row, ..)| *row).ok_or_else(|| anyhow!("no row is named `{text}`; there are {}", all()))
    }
}

/// The verb.
pub fn run(arguments: &Arguments) -> Result<()> {
    let _one = Exclusive::take()?;
    let profile = Profile::named(&arguments.profile)?;
    let rows = if arguments.rows.is_empty() { ROWS.map(|(row, ..)| row).to_vec() } else { arguments.rows.clone() };
    let mut cells = Cells::new();
    let mut random = SmallRng::from_os_rng();
    for round in 1..=arguments.trials {
        let mut order = rows.clone();
        order.shuffle(&mut random);
        for row in order {
            let cell = cells.entry(row).or_default();
            match trial(row, &profile, arguments) {
                Ok(sample) => {
                    eprintln!("round {round} of {}: {row}: {}", arguments.trials, sample.moved);
                    cell.samples.push(sample);
                }
                Err(error) => {
                    eprintln!("round {round} of {}: {row}: failed: {}", arguments.trials, first_lines(&error));
                    cell.failed += 1;
                }
            }
        }
    }
    let killed = (arguments.kills > 0)
        .then(|| moves_killed::trials(&profile, arguments.kills, arguments.kept, arguments.new))
        .and_then(|found| told("killing HAProxy", found));
    let steering = (arguments.questions > 0)
        .then(|| moves_steering::measure(&profile, arguments.questions, arguments.uploads))
        .and_then(|found| told("steering", found));
    moves_report::print_table(&cells, killed.as_ref());
    if let Some(steering) = steering {
        steering.print();
    }
    if arguments.json {
        moves_report::print_json(&cells, killed.as_ref())?;
    }
    let asked = arguments.trials > 0;
    ensure!(
        !asked || cells.values().any(|cell| !cell.samples.is_empty()),
        "no trial gave a result; the lines above say why"
    );
    Ok(())
}

/// What a part of the bench found. That it failed is said; the other parts count still.
fn told<T>(part: &str, found: Result<T>) -> Option<T> {
    found.inspect_err(|error| eprintln!("{part}: failed: {}", first_lines(error))).ok()
}

/// The first line of an error and of each of its causes: the logs that they may carry are long.
pub fn first_lines(error: &Error) -> String {
    let lines = error.chain().map(|e| e.to_string().lines().next().unwrap_or_default().to_owned());
    lines.collect::<Vec<_>>().join(": ")
}

/// One move in a cluster of its own.
fn trial(row: Row, profile: &Profile, arguments: &Arguments) -> Result<Sample> {
    let spec = Spec { arbiter: row == Row::Baton, ..Spec::usual("move") };
    let proxied = if row == Row::Baton { Proxied::BySystem } else { Proxied::ByStage };
    let mut stage = Stage::new(spec, row.system(profile), proxied)?;
    let owner = stage.steady(LIMIT)?;
    let usual = http::Spec::usual((VIP4, proxy::PORT).into());
    let spec = http::Spec { kept: arguments.kept, fresh_per_second: arguments.new, ..usual };
    let load = Load::start(&stage.client()?, spec.clone())?;
    load.ready(&spec, LIMIT)?;
    thread::sleep(SETTLE);

    let span = Duration::from_secs(arguments.seconds);
    let begin = clock::now();
    thread::sleep(span);
    let ordered = clock::now();
    stage.system.planned_move(&stage.lab, owner, 1 - owner)?;
    thread::sleep(span);
    let moved = |report: &Report| report.nodes(Kind::Fresh).contains(&(1 - owner));
    // A slow one gets as long as it needs: the window grows with it.
    let end = wait::until_some(stage.system.patience(), "new connections to be answered by the other node", || {
        let now = clock::now();
        let there = moved(&load.report(now.saturating_sub(1_000_000_000), now)?);
        if !there {
            thread::sleep(Duration::from_millis(200));
        }
        Ok(there.then_some(now))
    })
    .context("nothing moved")?;
    Ok(Sample {
        connections: spec.kept,
        calm: load.report(begin, ordered)?,
        moved: load.report(ordered, end)?,
        stall_ns: stage.stall.worst(ordered, end),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_their_names() {
        for (row, ..) in ROWS {
            assert_eq!(row.to_string().parse::<Row>().unwrap(), row);
        }
        assert!("baton".parse::<Row>().is_err());
    }
}
