//! What may happen next in each state, and the invariant: at most one node serves.

use stateright::{Model, Property};

use super::bounds::{Bounds, Grain};
use super::facts::Fact;
use super::log::{Entry, Id, MAJORITY, Movement, NODES, VOTERS};
use super::rules::Rule;
use super::state::State;

/// The model: its bounds, and the rule that it leaves out.
#[derive(Clone, Debug)]
pub struct Lease {
    /// How much may happen.
    pub bounds: Bounds,
    /// The rule left out, if any.
    pub off: Option<Rule>,
}

/// Something that happens, at one machine or to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A tick of time, which the clocks of the machines in the mask miss.
    Tick(u8),
    /// The voter's program takes a beat of the node, of that age on the node's clock, and checks the floor.
    Check(Id, Id, u8),
    /// The program that handles a beat does the next of: exchange R; check the floor again and answer.
    Handle,
    /// An acknowledgement arrives at the node.
    Hear(Id),
    /// A beat is sent, acknowledged by the voter, and heard.
    Renew(Id, Id),
    /// The agent applies the next entry.
    Apply(Id),
    /// The executor brings the node's gate up to what its agent has applied.
    Gate(Id),
    /// The voter's agent reads R before it raises the floor ([`Rule::ReadAfterFloor`] left out).
    ReadEarly(Id, Id),
    /// The voter's agent, its hold over, raises its floor for the node to infinity.
    Raise(Id, Id),
    /// The voter's agent reads R again, finds its hold over still, and promises. Of the whole grain: raises, too.
    Promise(Id, Id),
    /// The owner closes its gate and proposes its release.
    Release(Id),
    /// The owner closes its gate and proposes that it has diverted.
    Divert(Id),
    /// The agent starts again; the maps in the kernel stay.
    RestartAgent(Id),
    /// The host starts again; the maps are gone.
    RestartHost(Id),
    /// An entry is committed.
    Commit(Entry),
}

impl Lease {
    /// Whether a rule holds.
    pub fn on(&self, rule: Rule) -> bool {
        self.off != Some(rule)
    }

    /// How long a voter waits after its last acknowledgement.
    pub fn hold(&self) -> u8 {
        match self.off {
            Some(Rule::Hold) => 0,
            Some(Rule::HoldCoversDrift) => self.bounds.lease,
            _ => self.bounds.hold,
        }
    }

    fn time(&self, state: &State, actions: &mut Vec<Action>) {
        // Once in a while each node's clock may miss a tick, or not. A voter's clock misses none: all that it does
        // is to wait, and a slow one waits longer.
        let masks = if state.phase + 1 == self.bounds.drift { 1 << NODES } else { 1 };
        actions.extend((0..masks).map(Action::Tick));
    }

    fn heartbeats(&self, state: &State, actions: &mut Vec<Action>) {
        for node in 0..NODES {
            if state.nodes[node].acknowledged.is_some() {
                actions.push(Action::Hear(node));
            }
            if !state.takes_part(node) || state.handling.is_some() {
                continue;
            }
            for voter in (0..VOTERS).filter(|v| *v != node) {
                match self.bounds.grain {
                    Grain::Fine => actions.extend((0..self.bounds.lease).map(|age| Action::Check(voter, node, age))),
                    Grain::Whole => actions.push(Action::Renew(voter, node)),
                }
            }
        }
        if state.handling.is_some() {
            actions.push(Action::Handle);
        }
    }

    fn agents(&self, state: &State, actions: &mut Vec<Action>) {
        for voter in 0..VOTERS {
            let agent = &state.voters[voter];
            if agent.applied < state.head {
                actions.push(Action::Apply(voter));
            }
            if state.left.restarts > 0 {
                actions.extend([Action::RestartAgent(voter), Action::RestartHost(voter)]);
            }
            if !state.past_barrier(voter, self.off) {
                continue;
            }
            if state.left.lost == 0 || state.head == self.bounds.entries {
                continue;
            }
            for node in (0..NODES).filter(|node| *node != voter && state.applied(voter).involves(*node)) {
                let over = agent.since[node] >= self.hold();
                if self.bounds.grain == Grain::Whole {
                    if over && !agent.promising[node] {
                        actions.push(Action::Promise(voter, node));
                    }
                    continue;
                }
                if !self.on(Rule::ReadAfterFloor) && over && !agent.read_early[node] {
                    actions.push(Action::ReadEarly(voter, node));
                }
                let may_go_on = if self.on(Rule::ReadAfterFloor) { over } else { agent.read_early[node] };
                if may_go_on {
                    let step = if agent.promising[node] { Action::Promise } else { Action::Raise };
                    actions.push(step(voter, node));
                }
            }
        }
    }

    fn owners(&self, state: &State, actions: &mut Vec<Action>) {
        for node in 0..NODES {
            let (owner, agent) = (&state.nodes[node], &state.voters[node]);
            if !state.past_barrier(node, self.off) && self.on(Rule::OwnerBarrier) {
                continue;
            }
            let view = state.applied(node);
            if owner.gate_index != agent.applied || owner.open != owner.right(view, node) {
                actions.push(Action::Gate(node));
            }
            if state.left.releases > 0 && view.owned_by(node) && owner.released != view.epoch {
                actions.push(Action::Release(node));
            }
            let may_divert = |m: &Movement| {
                m.ready && m.from_incarnation == agent.incarnation && owner.diverted != m.id && view.owned_by(node)
            };
            if view.movement.as_ref().is_some_and(may_divert) {
                actions.push(Action::Divert(node));
            }
        }
    }

    /// Entries that the log may take now, proposed by whoever leads or led: each is checked when it is applied.
    fn entries(&self, state: &State, entries: &mut Vec<Entry>) {
        let head = state.committed();
        for voter in 0..VOTERS {
            let incarnations = head.incarnation[voter] + 1..=state.voters[voter].incarnation;
            entries.extend(incarnations.map(|incarnation| Entry::Barrier { voter, incarnation }));
        }
        for node in 0..NODES {
            let last = head.concluded[node];
            if state.left.alive > 0 && head.involves(node) {
                entries.push(Entry::Alive { node, last });
            }
            if state.left.lost > 0 && head.involves(node) {
                self.conclusions(state, node, entries);
            }
            if head.owner == 0 {
                entries.push(Entry::Assign { to: node, epoch: head.epoch });
            } else if state.left.moves > 0 && !head.owned_by(node) {
                let to_incarnation = head.incarnation[node];
                entries.push(Entry::Prepare { to: node, epoch: head.epoch, to_incarnation });
            }
        }
        if let Some(movement) = head.movement {
            entries.push(Entry::Abandon { id: movement.id, epoch: head.epoch });
        }
        for fact in state.facts.iter() {
            match fact {
                Fact::None | Fact::Promise { .. } => {}
                Fact::Release { node, epoch, incarnation } => {
                    entries.push(Entry::Release { node: node.into(), epoch, incarnation });
                }
                Fact::Ready { id, epoch, to, incarnation } => {
                    entries.push(Entry::Ready { id, epoch, to: to.into(), incarnation });
                }
                Fact::Diverted { id, epoch, to, incarnation } => {
                    entries.push(Entry::Diverted { id, epoch, to: to.into(), incarnation });
                }
            }
        }
    }

    fn conclusions(&self, state: &State, node: Id, entries: &mut Vec<Entry>) {
        let head = state.committed();
        let other = NODES - 1 - node;
        let heirs: &[Option<Id>] = if head.owned_by(node) { &[Some(other), None] } else { &[None] };
        let mut add = |last: u8, promised: [Option<(Id, u8)>; MAJORITY]| {
            entries.extend(heirs.iter().map(|heir| Entry::Lost {
                node,
                last,
                promised,
                epoch: head.epoch,
                heir: *heir,
            }));
        };
        for (voter, last, incarnation) in state.facts.promises(node) {
            if !self.on(Rule::Promise) {
                add(last, [Some((voter, incarnation)), None]);
            }
            for (second, second_last, second_incarnation) in state.facts.promises(node) {
                if voter < second && last == second_last {
                    add(last, [Some((voter, incarnation)), Some((second, second_incarnation))]);
                }
            }
        }
    }
}

impl Model for Lease {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::initial(&self.bounds)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.time(state, actions);
        self.heartbeats(state, actions);
        self.agents(state, actions);
        self.owners(state, actions);
        if state.head < self.bounds.entries {
            let mut entries = Vec::new();
            self.entries(state, &mut entries);
            actions.extend(entries.into_iter().map(Action::Commit));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = *last;
        next.step(self, action);
        next.normalize(&self.bounds, self.off);
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let never_two = Property::always(NEVER_TWO, |_: &Self, s: &State| !(s.serves(0) && s.serves(1)));
        if self.off.is_some() {
            return vec![never_two];
        }
        // That the model is alive: a node takes over, and the first owner can outlive the whole log.
        vec![
            never_two,
            Property::sometimes(TAKEN_OVER, |_, s: &State| s.serves(1)),
            Property::sometimes(OUTLIVES_THE_LOG, |model: &Self, s: &State| {
                s.serves(0) && s.nodes[0].gate_index == model.bounds.entries
            }),
        ]
    }
}

/// The invariant's name.
pub const NEVER_TWO: &str = "never two nodes serve";
/// The name of the first proof of life.
pub const TAKEN_OVER: &str = "the other node serves";
/// The name of the second.
pub const OUTLIVES_THE_LOG: &str = "the first owner serves after the last entry";
