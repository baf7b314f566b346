//! The executor: a thread that starts and stops the resources of this node's groups, announces and repairs them, and reports.
//!
//! ```text
//! driver ─Job─► Executor ─► queue of a group ─► its task (group): starting · watching · planned ─Report─► driver
//! ```
//! The core never waits for it. Jobs of one group are carried out in the order in which they were sent; groups do not wait for one
//! another, since no task of theirs blocks the thread.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    rc::Rc,
    sync::Arc,
    thread::JoinHandle,
};

use futures::future::join_all;
use tokio::{
    sync::{Semaphore, mpsc::UnboundedSender},
    task::LocalSet,
};
use tracing::{error, warn};

use super::{inputs::Input, mail::Board};
use crate::{
    cluster::ids::GroupId,
    kernel::{Flow, KernelError},
    realtime,
    telemetry::recorder::Recorder,
};

mod failures;
mod group;
mod inbox;
mod jobs;
mod planned;
#[cfg(test)]
mod property;
mod settle;
mod stack;
mod starting;
mod switched;
#[cfg(test)]
mod tests;
mod watching;

use group::{Group, Shared};
use inbox::Outbox;
pub use jobs::{Job, Report};
pub use stack::{Policy, Slot, Stack};

/// Reads the flows without connections of a row of the gate.
pub type FlowSource = Box<dyn Fn(u32) -> Result<Vec<Flow>, KernelError> + Send>;

/// What the thread needs of the rest of the agent.
pub struct Surroundings {
    /// Where its reports go.
    pub reports: UnboundedSender<Input>,
    /// The flight recorder.
    pub recorder: Recorder,
    /// What arrives from other agents.
    pub board: Arc<Board>,
    /// The flows that are known here.
    pub flows: FlowSource,
    /// Groups that are adopted as they are: what runs of them is not stopped.
    pub adopted: BTreeSet<GroupId>,
    /// How many groups with resources may be starting at once.
    pub starts_at_once: usize,
    /// Whether the thread gets a realtime priority.
    pub realtime: bool,
}

/// The handle of the executor's thread.
#[derive(Debug)]
pub struct Executor {
    groups: BTreeMap<GroupId, Outbox>,
    reports: UnboundedSender<Input>,
    thread: Option<JoinHandle<()>>,
}

impl Executor {
    /// Starts the thread with the stacks of all groups that may run here. What still runs of an earlier agent, and is not
    /// adopted, is stopped first.
    pub fn start(stacks: BTreeMap<GroupId, Stack>, surroundings: Surroundings) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let reports = surroundings.reports.clone();
        let mut groups = BTreeMap::new();
        let mut tasks = Vec::new();
        for (id, stack) in stacks {
            let (outbox, inbox) = inbox::queue();
            groups.insert(id.clone(), outbox);
            tasks.push((id, stack, inbox));
        }
        let thread = std::thread::Builder::new().name("executor".into()).spawn(move || {
            let Surroundings { reports, recorder, board, flows, adopted, starts_at_once, realtime } = surroundings;
            // Threads and processes that come of it get no such priority: they block.
            if realtime && let Err(error) = realtime::become_fifo(realtime::WORKER_PRIORITY) {
                warn!(%error, "the executor runs without realtime priority");
            }
            let starts = Semaphore::new(starts_at_once);
            let shared = Rc::new(Shared { reports, recorder, board, flows, starts });
            let local = LocalSet::new();
            let tasks: Vec<_> = tasks
                .into_iter()
                .map(|(id, stack, inbox)| {
                    let adopted = adopted.contains(&id);
                    local.spawn_local(Group::new(id, stack, inbox, Rc::clone(&shared)).run(adopted))
                })
                .collect();
            let ended = runtime.block_on(local.run_until(join_all(tasks)));
            if let Some(error) = ended.into_iter().find_map(Result::err) {
                // A group's task that is gone would leave its group to nobody: as with any other thread of the core's, all ends.
                std::panic::resume_unwind(error.into_panic());
            }
            // What a resource left to a thread that hangs does not hold up the end.
            runtime.shutdown_background();
        })?;
        Ok(Self { groups, reports, thread: Some(thread) })
    }

    /// Hands a job over; never waits.
    pub fn send(&self, job: Job) {
        let Some(id) = job.group() else {
            for outbox in self.groups.values() {
                // A task that has ended needs no job.
                drop(outbox.send(job.clone()));
            }
            return;
        };
        match self.groups.get(id) {
            None => self.refuse(&job),
            Some(outbox) => {
                if let Err(job) = outbox.send(job) {
                    error!(?job, "the executor has ended");
                }
            }
        }
    }

    /// A group that this node's configuration does not name: what the core waits for is answered.
    fn refuse(&self, job: &Job) {
        let reason = || "the configuration here does not name the group".to_owned();
        let report = match job {
            Job::Start { group, epoch, .. } => Report::StartFailed(group.clone(), *epoch, reason()),
            Job::Receive(group, movement) => Report::ReceiveFailed(group.clone(), *movement, reason()),
            Job::Stop(group, epoch) => Report::Stopped(group.clone(), *epoch),
            _ => return,
        };
        drop(self.reports.send(Input::Executor(report)));
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // What waits is worked off first; a thread that has ended needs no job.
        self.send(Job::End);
        if let Some(thread) = self.thread.take() {
            // An error is a panic of the thread, which was printed already.
            drop(thread.join());
        }
    }
}
