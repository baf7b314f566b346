//! A model of the quorum lease, explored to the end within its bounds (docs/model.md).
//!
//! With all rules no state has two nodes that serve; with any single rule left out there is one.

mod bounds;
mod facts;
mod log;
mod model;
mod rules;
mod state;
mod step;

use std::time::Instant;

use stateright::{Checker, Model};

use bounds::{Bounds, MOVES, RESTARTS, ROUNDS};
use model::{BACK, Lease, NEVER_TWO, TAKEN_OVER};
use rules::Rule;

const THREADS: usize = 2;

fn holds(bounds: Bounds) -> usize {
    let start = Instant::now();
    let checker = Lease { bounds, off: None }.checker().threads(THREADS).spawn_bfs().join();
    println!(
        "{}: {} unique states, {} steps deep, {:.1} s",
        bounds.name,
        checker.unique_state_count(),
        checker.max_depth(),
        start.elapsed().as_secs_f64()
    );
    if let Some(path) = checker.discovery(NEVER_TWO) {
        let state = *path.last_state();
        panic!("two nodes serve after {:#?}\n{state:#?}", path.into_actions());
    }
    assert!(checker.is_done());
    checker.assert_any_discovery(TAKEN_OVER);
    checker.assert_any_discovery(BACK);
    checker.unique_state_count()
}

fn fails(bounds: Bounds, off: Rule) {
    let start = Instant::now();
    let checker = Lease { bounds, off: Some(off) }.checker().threads(THREADS).spawn_bfs().join();
    println!(
        "{} without {off:?}: {} unique states, {:.1} s",
        bounds.name,
        checker.unique_state_count(),
        start.elapsed().as_secs_f64()
    );
    let path = checker.discovery(NEVER_TWO);
    let actions = path.expect("without this rule two nodes must be able to serve").into_actions();
    println!("  {} steps: {actions:?}", actions.len());
}


/// One test a rule: it names the configuration in which leaving the rule out is found.
macro_rules! without {
    ($($name:ident: $rule:ident in $bounds:ident,)*) => {
        $(
            #[test]
            fn $name() {
                fails($bounds, Rule::$rule);
            }
        )*
    };
}

without! {
    departure_stamp: DepartureStamp in ROUNDS,
    floor_checks_index: FloorChecksIndex in ROUNDS,
    beat_carries_gate_index: BeatCarriesGateIndex in ROUNDS,
    hold: Hold in ROUNDS,
    hold_covers_drift: HoldCoversDrift in ROUNDS,
    promise: Promise in ROUNDS,
    promise_raises_floor: PromiseRaisesFloor in ROUNDS,
    read_after_floor: ReadAfterFloor in ROUNDS,
    second_floor_check: SecondFloorCheck in ROUNDS,
    exchange_before_answer: ExchangeBeforeAnswer in ROUNDS,
    promise_index: PromiseIndex in ROUNDS,
    promise_incarnation: PromiseIncarnation in RESTARTS,
    floor_after_restart: FloorAfterRestart in RESTARTS,
    barrier: Barrier in RESTARTS,
    hold_after_barrier: HoldAfterBarrier in RESTARTS,
    owner_barrier: OwnerBarrier in RESTARTS,
    close_before_release: CloseBeforeRelease in RESTARTS,
    release_incarnation: ReleaseIncarnation in RESTARTS,
    roles_by_epoch: RolesByEpoch in RESTARTS,
    move_compare_and_set: MoveCompareAndSet in MOVES,
    diverted_incarnation: DivertedIncarnation in MOVES,
    close_before_diverted: CloseBeforeDiverted in MOVES,
}

#[test]
fn tune() {
    let get = |name: &str, or: u8| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(or);
    let base = match std::env::var("CONF").as_deref() { Ok("restarts") => RESTARTS, Ok("moves") => MOVES, _ => ROUNDS };
    let bounds = Bounds {
        entries: get("ENTRIES", base.entries),
        lost: get("LOST", base.lost),
        alive: get("ALIVE", base.alive),
        agent_restarts: get("AR", base.agent_restarts),
        host_restarts: get("HR", base.host_restarts),
        releases: get("REL", base.releases),
        moves: get("MOV", base.moves),
        ..base
    };
    let start = Instant::now();
    let limit = std::time::Duration::from_secs(get("LIMIT", 60).into());
    let checker = Lease { bounds, off: None }.checker().threads(THREADS).timeout(limit).spawn_bfs().join();
    println!("{bounds:?}: {} unique, {} total, depth {}, {:.1} s, violation {} taken {} back {}", checker.unique_state_count(), checker.state_count(), checker.max_depth(), start.elapsed().as_secs_f64(),
      checker.discovery(NEVER_TWO).is_some(), checker.discovery(TAKEN_OVER).is_some(), checker.discovery(BACK).is_some());
    if let Some(path) = checker.discovery(NEVER_TWO) {
        panic!("two nodes serve after {:#?}", path.into_actions());
    }
}
