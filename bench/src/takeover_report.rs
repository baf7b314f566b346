//! What the takeover bench prints: a table for people on standard error, JSON for programs on standard output.

use std::{collections::BTreeMap, io::Write};

use anyhow::Result;
use baton::cluster::ids::Nanos;
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

use crate::{
    stats::{median, quantile},
    takeover::Row,
    timeline::{Span, Timeline},
};

/// What the issue of the main job asks for: the client's first answer with one VIP, a median.
const ANSWER_TARGET_NS: Nanos = 500_000;
/// And all announcements with a thousand.
const ANNOUNCED_TARGET_NS: Nanos = 20_000_000;

/// What one trial gave.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The change of owner.
    pub line: Timeline,
    /// The machine's longest stall from the decision to the last phase.
    pub stall_ns: Nanos,
    /// Whether that was at most a quarter of the lease.
    pub calm: bool,
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

#[derive(Serialize)]
struct Json<'a> {
    profile: &'a str,
    rows: Vec<JsonRow>,
}

#[derive(Serialize)]
struct JsonRow {
    fault: &'static str,
    vips: u16,
    /// Where the span that began with the decision ends.
    until: &'static str,
    trials: usize,
    calm_trials: usize,
    ms: Option<Figures>,
    calm_ms: Option<Figures>,
    target_ms: Option<f64>,
}

#[derive(Serialize)]
struct Figures {
    median: f64,
    p95: f64,
    max: f64,
}

/// One line about a trial.
pub fn line(sample: &Sample) -> String {
    let spans = Span::ALL.iter().filter_map(|span| {
        let ns = sample.line.since_decision(*span)?;
        Some(format!("{} {}", span.sentence(), shown(ns)))
    });
    format!("ms from the decision: {}; stall {}", spans.collect::<Vec<_>>().join(", "), shown(sample.stall_ns))
}

/// One object on standard output: a row for each fault, number of VIPs and span.
pub fn print_json(profile: &str, cells: &Cells) -> Result<()> {
    let mut rows = Vec::new();
    for (row, cell) in cells {
        for span in Span::ALL {
            let (all, calm) = (spans(cell, span, false), spans(cell, span, true));
            rows.push(JsonRow {
                fault: row.fault.name(),
                vips: row.vips,
                until: span.name(),
                trials: all.len(),
                calm_trials: calm.len(),
                ms: figures(&all),
                calm_ms: figures(&calm),
                target_ms: target(*row, span).map(ms),
            });
        }
    }
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&Json { profile, rows })?)?;
    Ok(())
}

/// The table.
pub fn print_table(cells: &Cells) {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header([
        "fault",
        "VIPs",
        "from the decision until",
        "trials",
        "ms\nmedian",
        "\np95",
        "\nmax",
        "calm\ntrials",
        "ms\nmedian",
        "\np95",
        "target\n(median)",
        "failed\ntrials",
    ]);
    for (row, cell) in cells {
        for span in Span::ALL {
            let (all, calm) = (spans(cell, span, false), spans(cell, span, true));
            if all.is_empty() {
                continue;
            }
            table.add_row([
                row.fault.name().to_owned(),
                row.vips.to_string(),
                span.sentence().to_owned(),
                all.len().to_string(),
                shown(median(&all)),
                shown(quantile(&all, 0.95)),
                shown(quantile(&all, 1.0)),
                calm.len().to_string(),
                cell_of(&calm, median),
                cell_of(&calm, |values| quantile(values, 0.95)),
                target(*row, span).map_or_else(String::new, |ns| format!("≤ {}", ms(ns))),
                cell.failed.to_string(),
            ]);
        }
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    eprintln!("{table}");
    eprintln!(
        "the decision: the first instant at which any voter had the change committed. first answer: stamped by the\n\
         client's kernel; the client asks every 0.1 ms, which is up to 0.1 ms of it. calm: without the trials in which\n\
         the machine stalled for longer than a quarter of the lease between the decision and the last phase."
    );
}

/// The span of each trial that reached it.
fn spans(cell: &Cell, span: Span, calm_only: bool) -> Vec<Nanos> {
    let samples = cell.samples.iter().filter(|s| s.calm || !calm_only);
    samples.filter_map(|s| s.line.since_decision(span)).collect()
}

/// What is asked for, if anything.
fn target(row: Row, span: Span) -> Option<Nanos> {
    match (span, row.vips) {
        (Span::FirstAnswer, 1) => Some(ANSWER_TARGET_NS),
        (Span::Announced, 1_000) => Some(ANNOUNCED_TARGET_NS),
        _ => None,
    }
}

/// `None` without values, so that no figure looks like an instant takeover.
fn figures(values: &[Nanos]) -> Option<Figures> {
    let figure = |q| ms(quantile(values, q));
    (!values.is_empty()).then(|| Figures { median: ms(median(values)), p95: figure(0.95), max: figure(1.0) })
}

/// The figure of a table's cell; a dash without values.
fn cell_of(values: &[Nanos], figure: impl Fn(&[Nanos]) -> Nanos) -> String {
    if values.is_empty() { "–".to_owned() } else { shown(figure(values)) }
}

/// Milliseconds with three digits after the point.
fn ms(ns: Nanos) -> f64 {
    (ns as f64 / 1e3).round() / 1e3
}

fn shown(ns: Nanos) -> String {
    format!("{:.3}", ns as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_lab::trial::Fault;

    #[test]
    fn targets_belong_to_the_rows_that_they_speak_of() {
        let row = |vips| Row { vips, fault: Fault::Move };
        assert_eq!(target(row(1), Span::FirstAnswer), Some(500_000));
        assert_eq!(target(row(1_000), Span::Announced), Some(20_000_000));
        assert_eq!((target(row(1_000), Span::FirstAnswer), target(row(1), Span::Announced)), (None, None));
    }

    #[test]
    fn figures_are_milliseconds() {
        let three = figures(&[1_234_567, 2_000_000, 300_400]).unwrap();
        assert_eq!((three.median, three.p95, three.max), (1.235, 2.0, 2.0));
        assert!(figures(&[]).is_none());
        assert_eq!((cell_of(&[123_456], median), cell_of(&[], median)), ("0.123".to_owned(), "–".to_owned()));
    }
}
