//! The trace of a failing seed: one line an event, the state of every machine in fixed columns before it.

use std::collections::VecDeque;

use super::{clock::Instant, machine::Machine};
use crate::cluster::command::GateRole;

/// Lines kept; older ones go.
const LINES_MAX: usize = 4_000;

/// How to read a trace.
pub const LEGEND: &str = "\
time in ms of true time, then a column a machine, then the machine that acts and what happens
column: machine: process raft lease, then a field a group
  process  U up  P user space paused  W async part wedged  S machine stalled  - no agent  x machine down
  raft     L leader  q leader that stepped aside  C candidate  F follower
  lease    * holds its lease  . does not
  group    epoch in the gate, then O open and serving  o open without lease  d draining  r receiving  . closed
marks: ! fault  ~ fault ends  > command  < input of the core  # entry applied  = fact";

/// Collects lines when switched on.
pub struct Trace {
    on: bool,
    lines: VecDeque<String>,
}

impl Trace {
    /// A trace that records, or one that costs nothing.
    pub const fn new(on: bool) -> Self {
        Self { on, lines: VecDeque::new() }
    }

    /// Whether it records.
    pub const fn on(&self) -> bool {
        self.on
    }

    /// Adds a line.
    pub fn line(&mut self, now: Instant, machines: &[Machine], who: Option<u8>, text: &str) {
        if !self.on {
            return;
        }
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        let columns: Vec<String> = machines.iter().map(|machine| column(machine, now)).collect();
        let who = who.map_or_else(|| " ".to_owned(), |id| id.to_string());
        self.lines.push_back(format!(
            "{:>6}.{:06} | {} | {who} {text}",
            now / 1_000_000,
            now % 1_000_000,
            columns.join(" | ")
        ));
    }

    /// The lines.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}

fn column(machine: &Machine, now: Instant) -> String {
    let process = match machine {
        _ if !machine.powered => 'x',
        _ if machine.stalled => 'S',
        _ if machine.agent_gone => '-',
        _ if machine.paused => 'P',
        _ if machine.wedged => 'W',
        _ => 'U',
    };
    let raft = machine.raft_letter;
    let lease = machine.kernel.as_ref().is_some_and(|kernel| machine.local(now) < kernel.control.lease_end);
    let mut column = format!("{}:{process}{raft}{}", machine.id, if lease { '*' } else { '.' });
    if let Some(kernel) = &machine.kernel {
        for &(epoch, role) in &kernel.gates {
            let letter = match (role, lease) {
                (GateRole::Owner { .. }, true) => 'O',
                (GateRole::Owner { .. }, false) => 'o',
                (GateRole::Drain { .. }, _) => 'd',
                (GateRole::Receive { .. }, _) => 'r',
                (GateRole::Closed, _) => '.',
            };
            column.push_str(&format!(" {epoch:>2}{letter}"));
        }
    }
    column
}
