//! Many seeds, on all processors, for `cargo xtask simulate` and the tests.

use std::{
    io::{self, Write},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use super::{LEGEND, Mutation, Options, Report, Statistics, Violation, run, run_once};

/// Lines of the trace that a failing run prints.
const LINES_PRINTED: usize = 400;
/// Between two lines of progress.
const PROGRESS_SEEDS: u64 = 1_000;

/// What many seeds came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seeds that were run.
    pub seeds: u64,
    /// The sums over all seeds; of the times the longest.
    pub statistics: Statistics,
    /// The failing seed with the smallest number, if one was found.
    pub failure: Option<Report>,
    /// How long it took.
    pub took: Duration,
}

/// Runs the seeds `from .. from + seeds` on `threads` threads until one fails.
pub fn first_failing(
    from: u64,
    seeds: u64,
    options: &Options,
    threads: usize,
    progress: impl Fn(u64) + Sync,
) -> Summary {
    let began = crate::clock::now();
    let next = AtomicU64::new(0);
    let stop = AtomicU64::new(seeds);
    let summary = Mutex::new(Summary::default());
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let report = run_once(from + number, options, false);
                    let mut summary = summary.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    summary.add(&report);
                    // With a rule left out the question is whether safety is lost; nothing is asked of its recovery.
                    let fails = |violation: &Violation| violation.safety || options.mutation.is_none();
                    if report.violation.as_ref().is_some_and(fails) {
                        // Smaller seeds that are under way are finished, so that the answer does not depend on the threads.
                        stop.fetch_min(number, Ordering::Relaxed);
                        if summary.failure.as_ref().is_none_or(|known| report.seed < known.seed) {
                            summary.failure = Some(report);
                        }
                    }
                    let done = summary.seeds;
                    drop(summary);
                    if done.is_multiple_of(PROGRESS_SEEDS) {
                        progress(done);
                    }
                }
            });
        }
    });
    let mut summary = summary.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    summary.failure = summary.failure.map(|report| run(report.seed, options));
    summary.took = Duration::from_nanos(crate::clock::now() - began);
    summary
}

impl Summary {
    fn add(&mut self, report: &Report) {
        let (sum, one) = (&mut self.statistics, &report.statistics);
        self.seeds += 1;
        sum.events += one.events;
        sum.faults += one.faults;
        sum.entries += one.entries;
        sum.takeovers += one.takeovers;
        sum.moves += one.moves;
        sum.switches += one.switches;
        sum.given_up += one.given_up;
        sum.conclusions += one.conclusions;
        sum.terms += one.terms;
        sum.failed_starts += one.failed_starts;
        sum.recovery_ns = sum.recovery_ns.max(one.recovery_ns);
        sum.settled_ns = sum.settled_ns.max(one.settled_ns);
    }
}

/// The body of `cargo xtask simulate`: runs the seeds, prints what they came to, and, for a seed that fails, its trace and
/// how to run it again. Progress goes to standard error. Returns whether all seeds passed.
///
/// # Errors
/// Standard output cannot be written.
pub fn main_loop(seeds: u64, from: u64, voters: u8, mutation: Option<Mutation>) -> io::Result<bool> {
    let mut options = Options::new(voters);
    if let Some(mutation) = mutation {
        options = options.without(mutation);
    }
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let summary = first_failing(from, seeds, &options, threads, |done| eprintln!("{done} of {seeds} seeds"));
    let mut out = io::stdout().lock();
    let sum = summary.statistics;
    let per_second = summary.seeds * 1_000 / u64::try_from(summary.took.as_millis()).unwrap_or(u64::MAX).max(1);
    writeln!(
        out,
        "{} seeds of {voters} voters in {:.1} s ({per_second} a second): {} events, {} faults, {} entries, {} conclusions, \
         {} changes of owner, {} planned moves, {} terms; longest recovery {} ms",
        summary.seeds,
        summary.took.as_secs_f64(),
        sum.events,
        sum.faults,
        sum.entries,
        sum.conclusions,
        sum.takeovers,
        sum.moves,
        sum.terms,
        sum.recovery_ns / 1_000_000,
    )?;
    let Some(report) = summary.failure else {
        return Ok(true);
    };
    write_report(&mut out, &report)?;
    Ok(false)
}

fn write_report(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let seed = report.seed;
    writeln!(out, "\n{LEGEND}\n")?;
    let skipped = report.trace.len().saturating_sub(LINES_PRINTED);
    for line in report.trace.iter().skip(skipped) {
        writeln!(out, "{line}")?;
    }
    if let Some(violation) = &report.violation {
        writeln!(
            out,
            "\nseed {seed} of {} voters fails at {}.{:06} ms: {}",
            report.voters,
            violation.at / 1_000_000,
            violation.at % 1_000_000,
            violation.what
        )?;
    }
    writeln!(out, "again: cargo xtask simulate --seeds 1 --from {seed} --voters {}", report.voters)
}
