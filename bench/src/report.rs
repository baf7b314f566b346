//! What the failover bench prints: a table for people on standard error, JSON for programs on standard output.

use std::{collections::BTreeMap, io::Write};

use anyhow::Result;
use baton::cluster::ids::Nanos;
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

use crate::{
    matrix::{Contender, Row},
    stats::{median, quantile},
};

/// What one trial gave.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// The client's longest time without an answer.
    pub gap_ns: Nanos,
    /// From the fault until the client was served by another node; `None` where nobody else had to serve, or did.
    pub takeover_ns: Option<Nanos>,
    /// Probes never answered.
    pub lost: u64,
    /// Two owners at once.
    pub overlap_ns: Nanos,
    /// Changes of the owner that no fault asked for.
    pub false_failovers: u64,
    /// The machine's own longest stall.
    pub stall_ns: Nanos,
    /// Whether the outcome was not the one expected (nobody took over, or somebody did without need).
    pub unexpected: bool,
}

/// The samples of a pair, and what it needs to be printed.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    /// The system's name and setting.
    pub system: (String, String),
    /// Trials in which the machine stalled for longer than this are left out of the calm row.
    pub stall_limit_ns: Nanos,
    /// One a trial.
    pub samples: Vec<Sample>,
    /// Trials that gave nothing: the cluster didn't become steady before or after.
    pub failed: u64,
}

/// All pairs, in the order of the table.
pub type Cells = BTreeMap<(Row, Contender), Cell>;

#[derive(Serialize)]
struct Json {
    rows: Vec<JsonRow>,
}

#[derive(Serialize)]
struct JsonRow {
    system: String,
    profile: String,
    fault: String,
    trials: usize,
    gap_ms: Gap,
    lost_probes: u64,
    overlap_ms: f64,
    false_failovers: u64,
}

#[derive(Serialize)]
struct Gap {
    median: f64,
    p95: f64,
    max: f64,
}

/// One object on standard output. A fault's row counts all trials; the row `<fault>/calm` leaves out those in which the
/// machine itself stalled. Lost probes are the median of a trial, overlap and false failovers the sum of all.
pub fn print_json(cells: &Cells) -> Result<()> {
    let mut rows = Vec::new();
    for ((row, _), cell) in cells {
        for (fault, samples) in [(row.to_string(), cell.samples.clone()), (format!("{row}/calm"), calm(cell))] {
            let gaps: Vec<_> = samples.iter().map(|s| s.gap_ns).collect();
            let lost: Vec<_> = samples.iter().map(|s| s.lost).collect();
            rows.push(JsonRow {
                system: cell.system.0.clone(),
                profile: cell.system.1.clone(),
                fault,
                trials: samples.len(),
                gap_ms: Gap {
                    median: ms(median(&gaps)),
                    p95: ms(quantile(&gaps, 0.95)),
                    max: ms(quantile(&gaps, 1.0)),
                },
                lost_probes: median(&lost),
                overlap_ms: ms(samples.iter().map(|s| s.overlap_ns).sum()),
                false_failovers: samples.iter().map(|s| s.false_failovers).sum(),
            });
        }
    }
    // Structs rather than `json!`, which would sort the keys.
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&Json { rows })?)?;
    Ok(())
}

/// The table.
pub fn print_table(cells: &Cells) {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header([
        "fault",
        "system",
        "setting",
        "trials",
        "gap ms\nmedian",
        "\np95",
        "\nmax",
        "calm\ntrials",
        "gap ms\nmedian",
        "\np95",
        "takeover\nms",
        "lost\nprobes",
        "two owners ms\nmedian",
        "\nmax",
        "false\nfailovers",
        "worst\nstall ms",
        "not as\nexpected",
        "failed\ntrials",
    ]);
    for ((row, _), cell) in cells {
        let all = &cell.samples;
        let quiet = calm(cell);
        let column = |samples: &[Sample], f: fn(&Sample) -> u64| samples.iter().map(f).collect::<Vec<_>>();
        let (gaps, calm_gaps) = (column(all, |s| s.gap_ns), column(&quiet, |s| s.gap_ns));
        let overlaps = column(all, |s| s.overlap_ns);
        let takeovers: Vec<_> = all.iter().filter_map(|s| s.takeover_ns).collect();
        table.add_row([
            row.to_string(),
            cell.system.0.clone(),
            cell.system.1.clone(),
            all.len().to_string(),
            shown(median(&gaps)),
            shown(quantile(&gaps, 0.95)),
            shown(quantile(&gaps, 1.0)),
            quiet.len().to_string(),
            shown(median(&calm_gaps)),
            shown(quantile(&calm_gaps, 0.95)),
            if takeovers.is_empty() { "–".to_owned() } else { shown(median(&takeovers)) },
            median(&column(all, |s| s.lost)).to_string(),
            shown(median(&overlaps)),
            shown(quantile(&overlaps, 1.0)),
            all.iter().map(|s| s.false_failovers).sum::<u64>().to_string(),
            shown(quantile(&column(all, |s| s.stall_ns), 1.0)),
            all.iter().filter(|s| s.unexpected).count().to_string(),
            cell.failed.to_string(),
        ]);
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    eprintln!("{table}");
    eprintln!("calm: without the trials in which the machine itself stalled for longer than a quarter of the lease");
    eprintln!(
        "(keepalived has no lease: than one advertisement). takeover: from the fault's command, which takes\nup to 20 ms where it changes the networks, to another node's first answer."
    );
}

fn calm(cell: &Cell) -> Vec<Sample> {
    cell.samples.iter().filter(|s| s.stall_ns <= cell.stall_limit_ns).copied().collect()
}

fn ms(ns: Nanos) -> f64 {
    (ns as f64 / 1e4).round() / 100.0
}

fn shown(ns: Nanos) -> String {
    format!("{:.1}", ns as f64 / 1e6)
}
