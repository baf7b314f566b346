//! The flight recorder: takes facts and marks without ever waiting, and tells stories on a thread of its own.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    history::History,
    mark::Mark,
    record::{Phase, Record},
    story::{Draft, Story},
};
use crate::{
    clock,
    cluster::{
        command::Fact,
        ids::{Nanos, VoterId},
    },
};

/// Facts and marks that wait for the thread; more are dropped and counted.
const WAITING_MAX: usize = 8_192;
/// The thread's stack: memory may be locked, so a default of 2 MiB would be resident.
pub(super) const STACK_BYTES: usize = 256 << 10;
/// How often open stories are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A handle to the recorder; clones feed the same one. The thread ends when the last is dropped.
#[derive(Clone, Debug)]
pub struct Recorder {
    inputs: SyncSender<(Nanos, Input)>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Input {
    Fact(Fact),
    Mark(Mark),
}

impl Recorder {
    /// Starts the recorder's thread. `names` are those of all voters; finished records go to `history`.
    ///
    /// Call it from a thread of ordinary priority: a thread inherits the priority of the one that starts it.
    pub fn start(me: VoterId, names: BTreeMap<VoterId, Arc<str>>, history: History) -> io::Result<Self> {
        let (inputs, waiting) = sync_channel(WAITING_MAX);
        let dropped = history.dropped_inputs();
        let teller = Teller { story: Story::new(me), me, names, history };
        thread::Builder::new()
            .name("baton-recorder".into())
            .stack_size(STACK_BYTES)
            .spawn(move || teller.run(&waiting))?;
        Ok(Self { inputs, dropped })
    }

    /// A fact of the core, at an instant of CLOCK_BOOTTIME. Never waits.
    pub fn fact(&self, at: Nanos, fact: Fact) {
        self.send(at, Input::Fact(fact));
    }

    /// A mark of the executor, at an instant of CLOCK_BOOTTIME. Never waits.
    pub fn mark(&self, at: Nanos, mark: Mark) {
        self.send(at, Input::Mark(mark));
    }

    fn send(&self, at: Nanos, input: Input) {
        match self.inputs.try_send((at, input)) {
            Ok(()) => (),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The thread's own.
struct Teller {
    story: Story,
    me: VoterId,
    names: BTreeMap<VoterId, Arc<str>>,
    history: History,
}

impl Teller {
    fn run(mut self, waiting: &Receiver<(Nanos, Input)>) {
        loop {
            let next = if self.story.is_busy() {
                waiting.recv_timeout(LOOK)
            } else {
                waiting.recv().map_err(|_ended| RecvTimeoutError::Disconnected)
            };
            match next {
                Ok((at, input)) => {
                    self.take(at, &input);
                    // Whatever else waits belongs together: look at the stories once, after all of it.
                    for (at, input) in waiting.try_iter().take(WAITING_MAX) {
                        self.take(at, &input);
                    }
                    self.publish(clock::now());
                }
                Err(RecvTimeoutError::Timeout) => self.publish(clock::now()),
                Err(RecvTimeoutError::Disconnected) => return self.publish(Nanos::MAX),
            }
        }
    }

    fn take(&mut self, at: Nanos, input: &Input) {
        tracing::debug!(target: "baton::fact", at, ?input);
        let names = &self.names;
        match input {
            Input::Fact(fact) => self.story.fact(at, fact, |v| name_in(names, v)),
            Input::Mark(mark) => self.story.mark(at, mark),
        }
    }

    fn publish(&mut self, now: Nanos) {
        for draft in self.story.settle(now) {
            let record = self.record(draft);
            tracing::info!(target: "baton::failover", "{}", record.render());
            self.history.add(record);
        }
    }

    fn record(&self, draft: Draft) -> Record {
        let first = draft.steps.first().map_or(0, |s| s.at);
        let last = draft.steps.last().map_or(first, |s| s.at);
        let mut before = first;
        let mut phases = Vec::with_capacity(draft.steps.len());
        for step in draft.steps {
            phases.push(Phase { phase: step.phase, at_ns: step.at, took_ns: step.at - before, detail: step.detail });
            before = step.at;
        }
        let name = |v: Option<VoterId>| v.map(|v| name_in(&self.names, v));
        Record {
            seq: 0, // the history numbers it
            recorded_by: name_in(&self.names, self.me),
            group: draft.group.map(|g| g.to_string()),
            epoch: draft.epoch,
            cause: draft.cause,
            from: name(draft.from),
            to: name(draft.to),
            wall_ns: wall_of(first),
            total_ns: last - first,
            phases,
        }
    }
}

fn name_in(names: &BTreeMap<VoterId, Arc<str>>, v: VoterId) -> String {
    names.get(&v).map_or_else(|| v.to_string(), |n| n.to_string())
}

/// The wall clock at an instant of CLOCK_BOOTTIME, by what both say now.
fn wall_of(at: Nanos) -> u64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ago = clock::now().saturating_sub(at);
    u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX).saturating_sub(ago)
}

#[cfg(test)]
#[path = "recorder_tests.rs"]
mod tests;
