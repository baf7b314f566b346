//! The state of the model: the log, what was said, and each machine's agent, kernel side, clock and gate.

use super::bounds::Bounds;
use super::facts::Facts;
use super::log::{Entry, Id, NODES, Shared, VOTERS};
use super::rules::Rule;

/// The most entries that any configuration allows.
pub const ENTRIES: usize = 7;
/// A floor that no gate index reaches.
pub const INFINITE: u8 = u8::MAX;

/// The whole state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// Ticks since clocks could last miss one.
    pub phase: u8,
    /// The index of the last committed entry.
    pub head: u8,
    /// The state after each entry. Those that every machine has passed are blank.
    pub log: [Shared; ENTRIES + 1],
    /// Promises and proposals.
    pub facts: Facts,
    /// What the bounds still allow.
    pub left: Left,
    /// The beat that some voter's kernel side is handling.
    pub handling: Option<Handling>,
    /// Each machine as a voter.
    pub voters: [Voter; VOTERS],
    /// Each node as an owner.
    pub nodes: [Node; NODES],
}

/// Budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Left {
    /// Conclusions that a node lost.
    pub lost: u8,
    /// Conclusions that a node is alive.
    pub alive: u8,
    /// Restarts.
    pub restarts: u8,
    /// Releases.
    pub releases: u8,
    /// Moves.
    pub moves: u8,
}

impl Left {
    /// Takes an entry that was applied off the budget, which the model never exceeds.
    pub fn spend(&mut self, entry: &Entry) {
        match entry {
            Entry::Lost { .. } => self.lost -= 1,
            Entry::Alive { .. } => self.alive -= 1,
            Entry::Prepare { .. } => self.moves -= 1,
            _ => {}
        }
    }
}

/// A machine as a voter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Voter {
    /// The incarnation that runs.
    pub incarnation: u8,
    /// The index that its agent has applied.
    pub applied: u8,
    /// The floor in the kernel's map, for each node.
    pub floor: [u8; NODES],
    /// Ticks since R, for each node, no more than the hold.
    pub since: [u8; NODES],
    /// Whether the agent is promising about each node.
    pub promising: [bool; NODES],
    /// Whether the agent found its hold over before it raised the floor. Only used without [`Rule::ReadAfterFloor`].
    pub read_early: [bool; NODES],
}

/// A beat in a voter's program, between its checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handling {
    /// The voter that handles it.
    pub voter: u8,
    /// Whose beat.
    pub node: u8,
    /// Ticks since it departed, on the sender's clock.
    pub age: u8,
    /// The gate index that it carries.
    pub index: u8,
    /// Whether the first of the two steps (exchange of R, answer) is done.
    pub half: bool,
}

/// A node as an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// Ticks until its lease ends, on its own clock.
    pub lease: u8,
    /// The epoch for which its gate is open, 0 if it is closed.
    pub open: u8,
    /// The index that its gate reflects.
    pub gate_index: u8,
    /// The epoch that this incarnation has released, 0 if none.
    pub released: u8,
    /// The move that this incarnation has diverted, 0 if none.
    pub diverted: u8,
    /// The index that its gate reflected before the last tick of its clock: what a beat of age 1 carries.
    pub earlier_index: u8,
    /// The age of the youngest beat with an acknowledgement in flight.
    pub acknowledged: Option<u8>,
}

impl State {
    /// Everything up, node 0 the owner, its gate open.
    pub fn initial(bounds: &Bounds) -> Self {
        let voter = Voter {
            incarnation: 0,
            applied: 0,
            floor: [0; NODES],
            since: [bounds.hold; NODES],
            promising: [false; NODES],
            read_early: [false; NODES],
        };
        let node =
            Node { lease: 0, open: 0, gate_index: 0, released: 0, diverted: 0, earlier_index: 0, acknowledged: None };
        let mut log = [Shared::default(); ENTRIES + 1];
        log[0] = Shared::initial();
        Self {
            phase: 0,
            head: 0,
            log,
            facts: Facts::default(),
            left: Left {
                lost: bounds.lost,
                alive: bounds.alive,
                restarts: bounds.restarts,
                releases: bounds.releases,
                moves: bounds.moves,
            },
            handling: None,
            voters: [voter; VOTERS],
            nodes: [Node { open: 1, ..node }, node],
        }
    }

    /// The state after the whole log.
    pub fn committed(&self) -> &Shared {
        &self.log[usize::from(self.head)]
    }

    /// The state that `machine`'s agent has applied.
    pub fn applied(&self, machine: Id) -> &Shared {
        &self.log[usize::from(self.voters[machine].applied)]
    }

    /// Whether `machine`'s agent has applied the barrier of the incarnation that runs (rule 5).
    pub fn past_barrier(&self, machine: Id, off: Option<Rule>) -> bool {
        off == Some(Rule::Barrier) || self.applied(machine).incarnation[machine] == self.voters[machine].incarnation
    }

    /// Whether `node` accepts new connections now.
    pub fn serves(&self, node: Id) -> bool {
        self.nodes[node].open != 0 && self.nodes[node].lease > 0
    }

    /// Whether `node`'s lease can matter: its gate is open, or some machine's view names it as owner or target.
    pub fn takes_part(&self, node: Id) -> bool {
        let passed = usize::from(self.passed());
        self.nodes[node].open != 0 || self.log[passed..=usize::from(self.head)].iter().any(|s| s.involves(node))
    }

    /// The index that every machine has applied.
    fn passed(&self) -> u8 {
        self.voters.iter().map(|v| v.applied).min().unwrap_or(0)
    }

    /// Blanks what cannot change anything any more, so that states which differ in it alone count once.
    pub fn normalize(&mut self, bounds: &Bounds, off: Option<Rule>) {
        if off.is_none() {
            for machine in 0..VOTERS {
                if !self.past_barrier(machine, off) {
                    self.wait_for_barrier(machine, bounds.hold);
                }
            }
        }
        let passed = usize::from(self.passed());
        for blank in &mut self.log[..passed] {
            *blank = Shared::default();
        }
        for node in 0..NODES {
            let ahead = &self.log[usize::from(self.voters[node].applied)..=usize::from(self.head)];
            let owner = &mut self.nodes[node];
            if !ahead.iter().any(|s| s.owned_by(node) && s.epoch == owner.released) {
                owner.released = 0;
            }
            if !ahead.iter().any(|s| s.movement.is_some_and(|m| m.id == owner.diverted)) {
                owner.diverted = 0;
            }
        }
        if self.left.lost == 0 {
            // Nobody promises any more.
            for voter in &mut self.voters {
                voter.since = [bounds.hold; NODES];
            }
        }
        let idle = |n: &Node| n.lease == 0 && n.acknowledged.is_none() && n.earlier_index == n.gate_index;
        let over = |v: &Voter| v.since == [bounds.hold; NODES];
        if self.nodes.iter().all(idle) && self.voters.iter().all(over) && self.handling.is_none() {
            // Ticks alone lead from any phase to any other.
            self.phase = 0;
        }
    }

    /// Until the barrier of the incarnation that runs is applied, nothing depends on what was applied before it,
    /// nor on R, which starts afresh there.
    fn wait_for_barrier(&mut self, machine: Id, hold: u8) {
        let voter = &mut self.voters[machine];
        voter.since = [hold; NODES];
        let barrier = self.log[usize::from(voter.applied)..=usize::from(self.head)]
            .iter()
            .take_while(|s| s.incarnation[machine] != voter.incarnation)
            .count();
        voter.applied += barrier as u8 - 1;
    }
}
