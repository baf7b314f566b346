//! A machine's disk: writes become durable in order, after a while, or not before a hanging disk goes on.

use std::collections::VecDeque;

use super::{
    clock::Instant,
    log::{Durable, Write},
    random::Random,
};
use crate::cluster::ids::{Incarnation, Index};

/// The disk.
pub struct Disk {
    /// What is safe.
    pub durable: Durable,
    /// How often the agent has started here; counted, and safe, before anything else happens.
    pub incarnation: Incarnation,
    /// Shortest and longest latency of a write.
    pub latency: (u64, u64),
    /// No write completes before this.
    pub hangs_until: Instant,
    pending: VecDeque<(u64, Write)>,
    busy_until: Instant,
}

impl Disk {
    /// An empty disk.
    pub fn new() -> Self {
        Self {
            durable: Durable::default(),
            incarnation: 0,
            latency: (50_000, 250_000),
            hangs_until: 0,
            pending: VecDeque::new(),
            busy_until: 0,
        }
    }

    /// Takes a write; it will complete at the instant returned, if the disk does not hang then.
    pub fn submit(&mut self, now: Instant, number: u64, write: Write, random: &mut Random) -> Instant {
        self.pending.push_back((number, write));
        // Writes that wait for one another go down together, as in a group commit.
        let latency = random.range(self.latency.0, self.latency.1);
        self.busy_until = self.busy_until.max(now + latency);
        self.busy_until
    }

    /// Completes the writes up to a number. Gives the last index on the disk, or when to try again.
    pub fn complete(&mut self, now: Instant, number: u64) -> Result<Index, Instant> {
        if now < self.hangs_until {
            return Err(self.hangs_until);
        }
        while self.pending.front().is_some_and(|(first, _)| *first <= number) {
            if let Some((_, write)) = self.pending.pop_front() {
                self.durable.apply(&write);
            }
        }
        Ok(self.durable.log.last().0)
    }

    /// The writer is gone: some of what it had under way is on the disk, the rest is not.
    pub fn crash(&mut self, random: &mut Random) {
        let kept = random.index(self.pending.len() + 1);
        for (_, write) in self.pending.drain(..).take(kept) {
            self.durable.apply(&write);
        }
        self.pending.clear();
        self.busy_until = 0;
    }
}
