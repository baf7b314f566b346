//! What waits for a group: its jobs in order, and which of them end what is under way.

use std::{
    collections::VecDeque,
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::jobs::Job;

/// Network events that may wait for one group; what comes beyond is dropped, and everything is looked at once instead. Orders of the
/// core are never dropped, since it would wait for their report for ever: it has at most a start or a stop of each group under way.
pub(super) const EVENTS_MAX: usize = 4096;

/// The sending side.
#[derive(Debug)]
pub(super) struct Outbox {
    jobs: UnboundedSender<Job>,
    events: Arc<Events>,
}

/// The receiving side.
#[derive(Debug)]
pub(super) struct Inbox {
    queue: UnboundedReceiver<Job>,
    /// Taken out of the queue while something was under way, oldest first.
    pending: VecDeque<Job>,
    pub events: Arc<Events>,
}

/// The network events in a queue.
#[derive(Debug, Default)]
pub(super) struct Events {
    waiting: AtomicUsize,
    /// Some were dropped since everything was last looked at.
    missed: AtomicBool,
}

/// The queue of a group.
pub(super) fn queue() -> (Outbox, Inbox) {
    let (jobs, queue) = unbounded_channel();
    let events = Arc::new(Events::default());
    let outbox = Outbox { jobs, events: Arc::clone(&events) };
    (outbox, Inbox { queue, pending: VecDeque::new(), events })
}

impl Outbox {
    /// How many network events wait.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.events.waiting.load(SeqCst)
    }

    /// Hands a job over.
    ///
    /// # Errors
    /// The job, when nobody takes it any more.
    pub fn send(&self, job: Job) -> Result<(), Job> {
        if matches!(job, Job::Network(_)) && !self.events.admit() {
            return Ok(());
        }
        self.jobs.send(job).map_err(|refused| refused.0)
    }
}

impl Events {
    /// Whether one more may wait.
    fn admit(&self) -> bool {
        if self.waiting.fetch_add(1, SeqCst) < EVENTS_MAX {
            return true;
        }
        // Before the place is given back: whoever takes the last event out sees it.
        self.missed.store(true, SeqCst);
        self.waiting.fetch_sub(1, SeqCst);
        false
    }

    /// One was taken out; whether some were dropped meanwhile.
    pub fn taken(&self) -> bool {
        self.waiting.fetch_sub(1, SeqCst);
        self.missed.swap(false, SeqCst)
    }
}

impl Inbox {
    /// The next job; `None` when there will be no more.
    pub async fn next(&mut self) -> Option<Job> {
        match self.pending.pop_front() {
            Some(job) => Some(job),
            None => self.queue.recv().await,
        }
    }

    /// Does something to its end, unless a job arrives that ends it: then it is dropped, and `None` returned. Jobs that arrive
    /// meanwhile wait.
    pub async fn unless<T>(&mut self, ends: impl Fn(&Job) -> bool, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        if self.pending.iter().any(&ends) {
            return None;
        }
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                job = self.queue.recv() => {
                    let job = job.unwrap_or(Job::End);
                    let over = ends(&job);
                    self.pending.push_back(job);
                    if over {
                        return None;
                    }
                }
            }
        }
    }
}

/// What ends a start: the group is not wanted here any more, or the agent ends.
pub(super) fn ends_start(job: &Job) -> bool {
    matches!(job, Job::Stop(..) | Job::End)
}

/// What ends a stop: the end of the agent alone.
pub(super) fn ends_stop(job: &Job) -> bool {
    matches!(job, Job::End)
}
