//! `failover`: what a client sees when the owner fails, for Baton and for keepalived, trial by trial in turns.
//!
//! In every round each system gets a fresh cluster and meets each of its rows once, in an order that changes from round
//! to round: a slow spell of the machine hits all alike.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use baton::clock;
use baton_lab::{
    burn::Burners,
    lock::Exclusive,
    scene::Scene,
    system,
    trial::{self, Expectation, Fault, Watch},
};
use rand::{SeedableRng, rngs::SmallRng, seq::SliceRandom};

use crate::{
    matrix::{Contender, Row},
    report::{self, Cells, Sample},
};

const MILLISECOND: u64 = 1_000_000;
const BURNERS: usize = 8;

/// Options of `failover`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Trials a row.
    #[arg(long, default_value_t = 30)]
    trials: u32,
    /// Trials of the row `load`, each as long as --load-seconds.
    #[arg(long, default_value_t = 1)]
    load_trials: u32,
    /// How long the busy loops of the row `load` run.
    #[arg(long, default_value_t = 60)]
    load_seconds: u64,
    /// Rows, such as `cut-off,sigkill,cut-off+load,load`; all usual ones if left out.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<Row>,
    /// Systems, such as `baton-quick,keepalived-floor`; each of them meets all rows then.
    #[arg(long, value_delimiter = ',')]
    systems: Vec<Contender>,
    /// Print one JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// The verb.
pub fn run(arguments: &Arguments) -> Result<()> {
    let _one = Exclusive::take()?;
    let rows = if arguments.rows.is_empty() { Row::usual() } else { arguments.rows.clone() };
    let chosen = !arguments.systems.is_empty();
    let contenders = if chosen { arguments.systems.clone() } else { Contender::all() };
    let mut cells = Cells::new();
    let mut random = SmallRng::from_os_rng();
    let rounds = arguments.trials.max(arguments.load_trials);
    for round in 0..rounds {
        let mut order = contenders.clone();
        order.shuffle(&mut random);
        for contender in order {
            let mut rows: Vec<Row> = rows
                .iter()
                .copied()
                .filter(|row| chosen || contender.usually_meets(*row))
                .filter(|row| round < if *row == Row::Load { arguments.load_trials } else { arguments.trials })
                .collect();
            rows.shuffle(&mut random);
            if !rows.is_empty() {
                eprintln!("round {} of {rounds}: {contender}", round + 1);
                meet(contender, &rows, Duration::from_secs(arguments.load_seconds), &mut cells)?;
            }
        }
    }
    report::print_table(&cells);
    if arguments.json {
        report::print_json(&cells)?;
    }
    let trials: usize = cells.values().map(|cell| cell.samples.len()).sum();
    ensure!(trials > 0, "no trial gave a result; the lines above say why");
    Ok(())
}

/// One cluster through its rows; a cluster that doesn't recover is replaced for the next row.
fn meet(contender: Contender, rows: &[Row], load: Duration, cells: &mut Cells) -> Result<()> {
    let mut scene: Option<Scene> = None;
    for row in rows {
        let cell = cells.entry((*row, contender)).or_default();
        if scene.is_none() {
            let system = contender.system()?;
            cell.system = (system.name().to_owned(), system.profile().to_owned());
            scene = Some(Scene::new(contender.spec(), system, MILLISECOND)?);
        }
        let Some(stage) = &mut scene else { continue };
        cell.system = (stage.system.name().to_owned(), stage.system.profile().to_owned());
        cell.stall_limit_ns = system::stall_limit_ns(stage.system.as_ref());
        match try_row(stage, *row, load) {
            Ok(sample) => {
                eprintln!(
                    "  {row}: gap {:.1} ms, {} lost, two owners {:.1} ms, stall {:.1} ms",
                    sample.gap_ns as f64 / 1e6,
                    sample.lost,
                    sample.overlap_ns as f64 / 1e6,
                    sample.stall_ns as f64 / 1e6
                );
                cell.samples.push(sample);
            }
            Err(error) => {
                // The logs that the error carries are long: the first line and the causes say enough here.
                let reason = error.chain().last().map(ToString::to_string).unwrap_or_default();
                eprintln!("  {row}: failed: {}: {}", first_line(&error.to_string()), first_line(&reason));
                cell.failed += 1;
                scene = None;
            }
        }
    }
    Ok(())
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn try_row(scene: &mut Scene, row: Row, load: Duration) -> Result<Sample> {
    match row {
        Row::Fault(fault) => one_fault(scene, fault),
        Row::Loaded(fault) => {
            scene.steady(Watch::default().steady_limit)?;
            let _burners = Burners::start(scene.lab.home(), &scene.lab.observer.ns, BURNERS)?;
            one_fault(scene, fault)
        }
        Row::Load => under_load(scene, load),
    }
}

fn one_fault(scene: &mut Scene, fault: Fault) -> Result<Sample> {
    let outcome = trial::run(scene, fault, Watch::default())?;
    let moved = outcome.after.is_some_and(|after| after != outcome.before);
    let unexpected = match fault.expectation() {
        Expectation::Moves => !moved,
        Expectation::Stays => outcome.after != Some(outcome.before),
        Expectation::Serves => outcome.after.is_none(),
    };
    let taken = moved.then(|| scene.probe.first_answer_by_another(outcome.harmed, outcome.before)).flatten();
    Ok(Sample {
        gap_ns: outcome.gap_ns,
        takeover_ns: taken.map(|at| at.saturating_sub(outcome.harmed)),
        lost: outcome.lost,
        overlap_ns: outcome.overlap.ns(),
        false_failovers: u64::from(fault.expectation() == Expectation::Stays && unexpected),
        stall_ns: outcome.stall_ns,
        unexpected,
    })
}

/// Busy loops while nothing fails: every change of the owner is a false one.
fn under_load(scene: &mut Scene, span: Duration) -> Result<Sample> {
    let limit = Watch::default().steady_limit;
    scene.steady(limit)?;
    let before = scene.system.takeovers(&scene.lab)?;
    let start = clock::now();
    let burners = Burners::start(scene.lab.home(), &scene.lab.observer.ns, BURNERS)?;
    thread::sleep(span);
    let end = clock::now();
    drop(burners);
    let seen = scene.probe.report(start, end - 20 * MILLISECOND);
    let overlap = scene.overlap(start, end)?;
    let stall_ns = scene.stall.worst(start, end);
    scene.steady(limit)?;
    let false_failovers = scene.system.takeovers(&scene.lab)? - before;
    Ok(Sample {
        gap_ns: seen.gap_ns,
        takeover_ns: None,
        lost: seen.lost,
        overlap_ns: overlap.ns(),
        false_failovers,
        stall_ns,
        unexpected: false_failovers > 0,
    })
}
