//! Switches that leave out one safety rule each. For the simulation alone: it shows that a missing rule is found.

/// Which rules the core leaves out. The default, and the only value that the agent uses, leaves out none.
///
/// The fields are private to the core, so that nothing but [`Mutations::for_simulation`] can set one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mutations {
    /// Rule 2: promise without waiting out the hold.
    pub(super) skip_hold: bool,
    /// Rule 3: promise without raising the floor.
    pub(super) skip_floor_raise: bool,
    /// Rule 3: compute the hold from the R that was read before the floor was raised.
    pub(super) skip_reread: bool,
    /// Rule 5: floors are zero, not infinite, until the own barrier is applied.
    pub(super) floor_zero_after_restart: bool,
    /// Rule 5: act at once as if the own barrier were applied; promises are taken from any incarnation.
    pub(super) skip_barrier: bool,
    /// Rule 5: holds count from R alone, although an earlier incarnation may have acknowledged later.
    pub(super) skip_hold_after_barrier: bool,
    /// Rule 5: an owner opens its gates before its barrier is applied.
    pub(super) skip_owner_barrier: bool,
    /// Rule 4: a promise counts for any round about the node, and a conclusion after any other.
    pub(super) skip_promise_index_check: bool,
    /// Rule 1: the floor after a conclusion is zero, so a node is acknowledged that has not seen the conclusion.
    pub(super) skip_conclusion_floor: bool,
    /// Rule 7: `Diverted` changes the owner although its movement has ended.
    pub(super) skip_move_check: bool,
    /// Rule 7: `Diverted` goes out while the owner still accepts new flows.
    pub(super) skip_divert: bool,
    /// Rule 6: `Release` goes out while the gate stays open.
    pub(super) skip_release_close: bool,
    /// Rule 6: a group that must not run twice is given up while its resources still run.
    pub(super) release_running: bool,
    /// Rule 6: an epoch that was given up is opened again while the release is in flight.
    pub(super) reopen_released: bool,
}

impl Mutations {
    /// The names that [`Mutations::for_simulation`] knows.
    pub const NAMES: [&'static str; 14] = [
        "skip_hold",
        "skip_floor_raise",
        "skip_reread",
        "floor_zero_after_restart",
        "skip_barrier",
        "skip_hold_after_barrier",
        "skip_owner_barrier",
        "skip_promise_index_check",
        "skip_conclusion_floor",
        "skip_move_check",
        "skip_divert",
        "skip_release_close",
        "reopen_released",
        "release_running",
    ];

    /// Leaves out the one rule of this name, or `None` if there is no such name. Never called by the agent.
    pub fn for_simulation(name: &str) -> Option<Self> {
        let mut m = Self::default();
        let switch = match name {
            "skip_hold" => &mut m.skip_hold,
            "skip_floor_raise" => &mut m.skip_floor_raise,
            "skip_reread" => &mut m.skip_reread,
            "floor_zero_after_restart" => &mut m.floor_zero_after_restart,
            "skip_barrier" => &mut m.skip_barrier,
            "skip_hold_after_barrier" => &mut m.skip_hold_after_barrier,
            "skip_owner_barrier" => &mut m.skip_owner_barrier,
            "skip_promise_index_check" => &mut m.skip_promise_index_check,
            "skip_conclusion_floor" => &mut m.skip_conclusion_floor,
            "skip_move_check" => &mut m.skip_move_check,
            "skip_divert" => &mut m.skip_divert,
            "skip_release_close" => &mut m.skip_release_close,
            "reopen_released" => &mut m.reopen_released,
            "release_running" => &mut m.release_running,
            _ => return None,
        };
        *switch = true;
        Some(m)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_sets_its_own_switch() {
        let all: Vec<_> = Mutations::NAMES.iter().map(|n| Mutations::for_simulation(n).unwrap()).collect();
        for (i, a) in all.iter().enumerate() {
            assert_ne!(*a, Mutations::default());
            assert!(all[..i].iter().all(|b| a != b));
        }
        assert_eq!(Mutations::for_simulation("no_such_rule"), None);
    }
}
