//! What the bench of moves prints: a table for people on standard error, JSON for programs on standard output.

use std::{collections::BTreeMap, io::Write};

use anyhow::Result;
use baton::cluster::ids::Nanos;
use baton_lab::load::report::Report;
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

use crate::{
    moves::Row,
    stats::{median, quantile},
};

/// What the rows without a move are called.
const BASELINE: &str = "none";
/// What the row of killed HAProxies is called.
const KILLED: &str = "haproxy-killed";

/// What one trial gave.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Long-lived connections that the load held.
    pub connections: usize,
    /// What the client saw before the move.
    pub calm: Report,
    /// What it saw from the order to move on.
    pub moved: Report,
    /// The machine's own longest stall from the order on.
    pub stall_ns: Nanos,
}

/// The samples of a row.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    /// One a trial.
    pub samples: Vec<Sample>,
    /// Trials that gave nothing.
    pub failed: u64,
}

/// All rows, in the order of the table.
pub type Cells = BTreeMap<Row, Cell>;

/// HAProxy killed once.
#[derive(Clone, Debug)]
pub struct Killed {
    /// From the kill to the first answer of the other node over a new connection.
    pub took_ns: Nanos,
    /// What the clients saw from the kill on.
    pub seen: Report,
}

/// HAProxy killed again and again.
#[derive(Clone, Debug, Default)]
pub struct KilledRow {
    /// Long-lived connections that the load held.
    pub connections: usize,
    /// One a kill.
    pub killed: Vec<Killed>,
    /// Kills that gave nothing.
    pub failed: u64,
}

impl KilledRow {
    fn took(&self) -> Vec<Nanos> {
        self.killed.iter().map(|k| k.took_ns).collect()
    }

    fn seen(&self, figure: fn(&Report) -> u64) -> Vec<u64> {
        self.killed.iter().map(|k| figure(&k.seen)).collect()
    }

    /// Its gap is the time until the other node answered.
    fn row(&self) -> Option<JsonRow> {
        (!self.killed.is_empty()).then(|| JsonRow {
            system: "baton",
            method: KILLED,
            connections: self.connections,
            broken_connections: quantile(&self.seen(Report::lost), 1.0),
            failed_requests: quantile(&self.seen(|r| r.failed), 1.0),
            slowest_ms: ms(median(&self.seen(Report::slowest_ns))),
            gap_ms: ms(median(&self.took())),
        })
    }
}

#[derive(Serialize)]
struct Json {
    rows: Vec<JsonRow>,
}

/// Counts are those of the worst trial, times are medians of the trials.
#[derive(Debug, PartialEq, Serialize)]
struct JsonRow {
    system: &'static str,
    method: &'static str,
    connections: usize,
    broken_connections: u64,
    failed_requests: u64,
    slowest_ms: f64,
    gap_ms: f64,
}

/// A row for the moves and one for the time before them.
fn rows(row: Row, cell: &Cell) -> Vec<JsonRow> {
    let (system, method) = row.names();
    let Some(connections) = cell.samples.iter().map(|s| s.connections).max() else { return Vec::new() };
    let line = |method: &'static str, of: fn(&Sample) -> &Report| {
        let all = |figure: fn(&Report) -> u64| cell.samples.iter().map(|s| figure(of(s))).collect::<Vec<_>>();
        JsonRow {
            system,
            method,
            connections,
            broken_connections: quantile(&all(Report::lost), 1.0),
            failed_requests: quantile(&all(|r| r.failed), 1.0),
            slowest_ms: ms(median(&all(Report::slowest_ns))),
            gap_ms: ms(median(&all(|r| r.gap_ns))),
        }
    };
    vec![line(method, |s| &s.moved), line(BASELINE, |s| &s.calm)]
}

/// One object on standard output.
pub fn print_json(cells: &Cells, killed: Option<&KilledRow>) -> Result<()> {
    let moves = cells.iter().flat_map(|(row, cell)| rows(*row, cell));
    let rows = moves.chain(killed.and_then(KilledRow::row)).collect();
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&Json { rows })?)?;
    Ok(())
}

/// The table.
pub fn print_table(cells: &Cells, killed: Option<&KilledRow>) {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header([
        "system",
        "method",
        "trials",
        "connections",
        "broken\nmedian",
        "\nmax",
        "failed\nmedian",
        "\nmax",
        "SYNs again\nmedian",
        "slowest ms\nmedian",
        "\nmax",
        "gap ms\nmedian",
        "\nmax",
        "without a move:\nslowest ms",
        "\ngap ms",
        "worst\nstall ms",
        "failed\ntrials",
    ]);
    for (row, cell) in cells {
        let (system, method) = row.names();
        let moved = |figure: fn(&Report) -> u64| cell.samples.iter().map(|s| figure(&s.moved)).collect::<Vec<_>>();
        let calm = |figure: fn(&Report) -> u64| cell.samples.iter().map(|s| figure(&s.calm)).collect::<Vec<_>>();
        let (slowest, gaps) = (moved(Report::slowest_ns), moved(|r| r.gap_ns));
        let stalls: Vec<_> = cell.samples.iter().map(|s| s.stall_ns).collect();
        table.add_row([
            system.to_owned(),
            method.to_owned(),
            cell.samples.len().to_string(),
            cell.samples.iter().map(|s| s.connections).max().unwrap_or(0).to_string(),
            median(&moved(Report::lost)).to_string(),
            quantile(&moved(Report::lost), 1.0).to_string(),
            median(&moved(|r| r.failed)).to_string(),
            quantile(&moved(|r| r.failed), 1.0).to_string(),
            median(&moved(|r| r.tcp.syn_retransmits)).to_string(),
            shown(median(&slowest)),
            shown(quantile(&slowest, 1.0)),
            shown(median(&gaps)),
            shown(quantile(&gaps, 1.0)),
            shown(median(&calm(Report::slowest_ns))),
            shown(median(&calm(|r| r.gap_ns))),
            shown(quantile(&stalls, 1.0)),
            cell.failed.to_string(),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    eprintln!("{table}");
    eprintln!(
        "broken: connections that were made and ended by a reset, a time-out, or a close without notice.\n\
         failed: requests without an answer. slowest: of the answered requests, over kept connections from their sending,\n\
         over new ones from connect(2). gap: the longest time in which no request at all was answered."
    );
    if let Some(row) = killed {
        let (took, broken, failed) = (row.took(), row.seen(Report::lost), row.seen(|r| r.failed));
        eprintln!(
            "HAProxy killed on the owner, {} times ({} gave nothing): the other node answers after {} ms (median; max {}; target: \
             ≤ 5); of {} connections {} broke, {} requests failed (medians)",
            took.len(),
            row.failed,
            shown(median(&took)),
            shown(quantile(&took, 1.0)),
            row.connections,
            median(&broken),
            median(&failed)
        );
    }
}

/// Milliseconds with two digits after the point.
fn ms(ns: Nanos) -> f64 {
    (ns as f64 / 1e4).round() / 100.0
}

fn shown(ns: Nanos) -> String {
    format!("{:.1}", ns as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_lab::load::record::{Event, Kind, Reason, Record};

    fn sample(broken: usize, took_ns: Nanos) -> Sample {
        let record = |event| Record { at: 5, kind: Kind::Kept, event };
        let mut records = vec![record(Event::Broken(Reason::Reset)); broken];
        let calm = Report::of(&[], 0, 1_000_000).unwrap();
        records.push(record(Event::Answered { took_ns, by: 0 }));
        Sample { connections: 7, calm, moved: Report::of(&records, 0, 10).unwrap(), stall_ns: 0 }
    }

    #[test]
    fn counts_are_of_the_worst_trial_and_times_are_medians() {
        let samples = vec![sample(0, 1_000_000), sample(3, 5_000_000), sample(1, 2_000_000)];
        let found = rows(Row::KeepalivedStop, &Cell { samples, failed: 0 });
        assert_eq!((found[0].system, found[0].method, found[0].connections), ("keepalived-0.01s", "stop", 7));
        assert_eq!((found[0].broken_connections, found[0].slowest_ms), (3, 2.0));
        assert_eq!((found[1].method, found[1].broken_connections, found[1].gap_ms), ("none", 0, 1.0));
        assert!(rows(Row::Baton, &Cell::default()).is_empty());
    }
}
