//! The seeded simulation of the real core: seeds pass, a seed is a run, and a rule left out is found.
//!
//! Each mutation has the number of seeds within which it must be found, with room above what it took when this was written.

use std::thread;

use baton::{
    cluster::mutations::Mutations,
    simulation::{LEGEND, Mutation, Options, first_failing, run, run_once},
};

fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn all_pass(voters: u8, seeds: u64) {
    let summary = first_failing(1, seeds, &Options::new(voters), threads(), |_| ());
    if let Some(report) = &summary.failure {
        let tail = report.trace.iter().rev().take(60).rev();
        let lines: Vec<&str> = tail.map(String::as_str).collect();
        panic!("seed {} of {voters} voters: {:?}\n{LEGEND}\n{}", report.seed, report.violation, lines.join("\n"));
    }
    let sum = summary.statistics;
    assert_eq!(summary.seeds, seeds);
    // A world in which nothing happens would pass too.
    assert!(sum.faults > 10 * seeds && sum.takeovers > seeds && sum.conclusions > seeds, "{sum:?}");
    assert!(sum.switches > seeds && sum.given_up > seeds / 10, "{sum:?}");
    assert!(sum.moves > seeds / 10 && sum.terms > seeds, "{sum:?}");
}

#[test]
fn three_voters_never_have_two_owners_and_recover() {
    all_pass(3, 250);
}

#[test]
fn five_voters_never_have_two_owners_and_recover() {
    all_pass(5, 100);
}

#[test]
fn a_seed_is_a_run_bit_by_bit() {
    for seed in [3, 8] {
        let options = Options::new(3);
        let (a, b) = (run_once(seed, &options, true), run_once(seed, &options, true));
        assert_eq!(a, b);
        assert!(a.trace.len() > 100);
        // The trace itself changes nothing.
        assert_eq!(run_once(seed, &options, false).statistics, a.statistics);
        assert_ne!(run_once(seed + 1, &options, false).statistics, a.statistics);
    }
}

#[test]
fn a_failing_report_carries_its_seed_and_trace() {
    let mutation = Mutation::named("skip_hold").expect("a name of a mutation");
    let options = Options::new(3).without(mutation);
    let summary = first_failing(1, 50, &options, threads(), |_| ());
    let report = summary.failure.expect("found within 50 seeds");
    assert_eq!(run(report.seed, &options), report, "replayed");
    let violation = report.violation.as_ref().expect("a violation");
    assert!(violation.safety && violation.what.starts_with("two owners"), "{violation:?}");
    let last = report.trace.last().expect("a trace");
    assert!(last.contains("VIOLATION two owners"), "{last}");
}

/// The mutation must lose safety within so many seeds.
fn found(name: &str, voters: u8, seeds: u64) {
    let mutation = Mutation::named(name).expect("a name of a mutation");
    let options = Options::new(voters).without(mutation);
    let summary = first_failing(1, seeds, &options, threads(), |_| ());
    let report = summary.failure.unwrap_or_else(|| panic!("{name} is not found within {seeds} seeds"));
    let violation = report.violation.expect("a violation");
    assert!(violation.safety, "{violation:?}");
    println!("{name}: seed {} of {voters} voters: {}", report.seed, violation.what);
}

macro_rules! mutations {
    ($($name:ident: $voters:literal voters, $seeds:literal seeds;)*) => {
        mod rule_left_out {
            $(#[test] fn $name() { super::found(stringify!($name), $voters, $seeds); })*
        }

        #[test]
        fn every_mutation_has_its_test() {
            let tested = [$(stringify!($name)),*];
            for name in Mutations::NAMES.iter().chain(Mutation::KERNEL.iter().map(|(name, _)| name)) {
                assert!(tested.contains(name), "{name} has no test");
            }
        }
    };
}

mutations! {
    skip_hold: 3 voters, 100 seeds;
    skip_floor_raise: 3 voters, 100 seeds;
    skip_reread: 3 voters, 2500 seeds;
    floor_zero_after_restart: 3 voters, 100 seeds;
    skip_barrier: 3 voters, 150 seeds;
    skip_hold_after_barrier: 3 voters, 100 seeds;
    skip_owner_barrier: 3 voters, 200 seeds;
    skip_promise_index_check: 3 voters, 8000 seeds;
    skip_conclusion_floor: 3 voters, 100 seeds;
    skip_move_check: 3 voters, 2500 seeds;
    skip_divert: 3 voters, 300 seeds;
    skip_release_close: 3 voters, 300 seeds;
    reopen_released: 3 voters, 600 seeds;
    release_running: 3 voters, 600 seeds;
    skip_second_floor_check: 3 voters, 3000 seeds;
    plain_exchange: 3 voters, 400 seeds;
    beat_claims_applied: 3 voters, 2000 seeds;
    keeper_claims_newest: 3 voters, 300 seeds;
    orphan_keeps_gates: 3 voters, 300 seeds;
}
