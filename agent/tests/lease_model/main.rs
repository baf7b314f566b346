//! A model of the quorum lease, explored to the end within its bounds (docs/model.md).
//!
//! With all rules no state has two nodes that serve; with any single rule left out there is one, within the same bounds.

mod bounds;
mod facts;
mod log;
mod model;
mod rules;
mod state;
mod step;

use std::time::Instant;

use stateright::{Checker, Model};

use bounds::{Bounds, MOVES, MOVES_AND_RESTARTS, RELEASES, RESTARTS, ROUNDS};
use model::{Lease, NEVER_TWO, OUTLIVES_THE_LOG, TAKEN_OVER};
use rules::Rule;

/// The machine that builds Baton has two cores.
const THREADS: usize = 2;
/// Fewer states than this would mean that the bounds have shrunk by mistake.
const STATES_MIN: usize = 1_000_000;

/// Explores a configuration to the end, with all rules, and returns how many states it has.
fn explore(bounds: Bounds) -> usize {
    let start = Instant::now();
    let checker = Lease { bounds, off: None }.checker().threads(THREADS).spawn_bfs().join();
    let states = checker.unique_state_count();
    println!(
        "{:<18} {states:>9} states, {:>9} steps between them, {:>2} deep, {:>5.1} s, at most {} MiB so far",
        bounds.name,
        checker.state_count(),
        checker.max_depth(),
        start.elapsed().as_secs_f64(),
        peak_mib(),
    );
    if let Some(path) = checker.discovery(NEVER_TWO) {
        panic!(
            "{}: two nodes serve at {:#?}\nafter {:#?}",
            bounds.name,
            path.last_state(),
            path.clone().into_actions()
        );
    }
    assert!(checker.is_done(), "{}: not explored to the end", bounds.name);
    checker.assert_any_discovery(TAKEN_OVER);
    checker.assert_any_discovery(OUTLIVES_THE_LOG);
    states
}

/// Leaves one rule out, and expects to see two nodes serve.
fn break_without(rule: Rule, bounds: Bounds) {
    let start = Instant::now();
    let checker = Lease { bounds, off: Some(rule) }.checker().threads(THREADS).spawn_bfs().join();
    let path = checker.discovery(NEVER_TWO);
    let actions = path.expect("without this rule two nodes must be able to serve").into_actions();
    println!(
        "without {rule:?}: two nodes serve after {} steps ({}: {} states, {:.1} s)\n  {actions:?}",
        actions.len(),
        bounds.name,
        checker.unique_state_count(),
        start.elapsed().as_secs_f64(),
    );
}

/// The most memory that this process has had, for the table.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

#[test]
fn never_two_with_all_rules() {
    let start = Instant::now();
    let all = [ROUNDS, RESTARTS, RELEASES, MOVES, MOVES_AND_RESTARTS];
    let states: usize = all.into_iter().map(explore).sum();
    println!("in all             {states:>9} states, {:.1} s", start.elapsed().as_secs_f64());
    assert!(states >= STATES_MIN, "only {states} states");
}

/// One test a rule: it names the configuration in which leaving the rule out is found.
macro_rules! two_without {
    ($($name:ident: $rule:ident in $bounds:ident,)*) => {
        $(
            #[test]
            fn $name() {
                break_without(Rule::$rule, $bounds);
            }
        )*
    };
}

two_without! {
    two_without_departure_stamp: DepartureStamp in ROUNDS,
    two_without_floor_checks_index: FloorChecksIndex in ROUNDS,
    two_without_beat_carries_gate_index: BeatCarriesGateIndex in ROUNDS,
    two_without_hold: Hold in ROUNDS,
    two_without_hold_covers_drift: HoldCoversDrift in ROUNDS,
    two_without_promise: Promise in ROUNDS,
    two_without_promise_raises_floor: PromiseRaisesFloor in ROUNDS,
    two_without_read_after_floor: ReadAfterFloor in ROUNDS,
    two_without_second_floor_check: SecondFloorCheck in ROUNDS,
    two_without_exchange_before_answer: ExchangeBeforeAnswer in ROUNDS,
    two_without_promise_index: PromiseIndex in ROUNDS,
    two_without_promise_incarnation: PromiseIncarnation in RESTARTS,
    two_without_floor_after_restart: FloorAfterRestart in RESTARTS,
    two_without_barrier: Barrier in RESTARTS,
    two_without_hold_after_barrier: HoldAfterBarrier in RESTARTS,
    two_without_owner_barrier: OwnerBarrier in RELEASES,
    two_without_close_before_release: CloseBeforeRelease in RELEASES,
    two_without_release_incarnation: ReleaseIncarnation in RELEASES,
    two_without_roles_by_epoch: RolesByEpoch in RELEASES,
    two_without_move_compare_and_set: MoveCompareAndSet in MOVES,
    two_without_close_before_diverted: CloseBeforeDiverted in MOVES,
    two_without_diverted_incarnation: DivertedIncarnation in MOVES_AND_RESTARTS,
}
