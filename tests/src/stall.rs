//! The stall meter: how long the machine itself stood still, beside every trial.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::Result;
use baton::{clock, cluster::ids::Nanos};

use crate::realtime;

const TICK_NS: Nanos = 1_000_000;
/// Ticks that were late by less are not worth a record.
const NOTED_NS: Nanos = 200_000;
const RECORDS_MAX: usize = 1 << 20;

/// A locked SCHED_FIFO 1 ms ticker that records its own lateness.
#[derive(Debug)]
pub struct StallMeter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    /// (when the tick was due, when it came), in order.
    late: Mutex<Vec<(Nanos, Nanos)>>,
}

impl StallMeter {
    /// Starts to measure.
    pub fn start() -> Result<Self> {
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), late: Mutex::new(Vec::with_capacity(4096)) });
        let inside = shared.clone();
        let thread = realtime::spawn("stall-meter", realtime::METER, move || {
            Ok(move || {
                let mut due = clock::now() + TICK_NS;
                while !inside.stop.load(Ordering::Relaxed) {
                    realtime::sleep_until(due);
                    let now = clock::now();
                    if now > due + NOTED_NS {
                        let mut late = inside.late.lock().unwrap_or_else(PoisonError::into_inner);
                        if late.len() < RECORDS_MAX {
                            late.push((due, now));
                        }
                    }
                    // A tick that was missed is gone: its lateness is in the record of the one that was late.
                    due = (due + TICK_NS).max(now);
                }
            })
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The longest stall that touches the window, in nanoseconds; 0 if every tick came within 0.2 ms.
    pub fn worst(&self, from: Nanos, to: Nanos) -> Nanos {
        let late = self.shared.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.iter().filter(|(due, came)| *due < to && *came > from).map(|(due, came)| came - due).max().unwrap_or(0)
    }
}

impl Drop for StallMeter {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
