//! Resources: what a group consists of, one file a kind, behind one trait.
//!
//! An operation returns [`Work`]: done already, or a future. Kinds on the critical path of a takeover (addresses) do their
//! work inside the call, without a task switch or an allocation for a future; slower kinds return a future.

pub mod build;
pub mod call;
pub mod common;
pub mod error;
pub mod event;
pub mod haproxy;
pub mod output;
pub mod script;
pub mod vip;

use std::{future::Future, pin::Pin, time::Duration};

pub use common::Common;
pub use error::{Operation, ResourceError};
pub use event::{Notifier, ResourceEvent, What};

use crate::{
    cluster::ids::{Epoch, GroupId, Nanos},
    netlink::watch::Event,
};

/// What an operation comes to: its result already, or a future of it.
pub enum Work<'a, T> {
    /// It is done.
    Done(Result<T, ResourceError>),
    /// It goes on; whoever awaits it sets the time limit ([`Work::within`]).
    Pending(Pin<Box<dyn Future<Output = Result<T, ResourceError>> + Send + 'a>>),
}

impl<'a, T> Work<'a, T> {
    /// Work that went well at once.
    pub fn ok(value: T) -> Self {
        Self::Done(Ok(value))
    }

    /// Work that goes on as a future.
    pub fn pending(future: impl Future<Output = Result<T, ResourceError>> + Send + 'a) -> Self {
        Self::Pending(Box::pin(future))
    }

    /// The result, at the latest after `limit`; nothing is awaited when the work is done already.
    ///
    /// # Errors
    /// The work's own error, or [`ResourceError::TimedOut`]. The future is dropped then: a kind that leaves something behind
    /// in that case (a process, a half-done mount) must clean up in its next `probe` or `stop`.
    pub async fn within(self, limit: Duration, resource: &str, operation: Operation) -> Result<T, ResourceError> {
        match self {
            Self::Done(result) => result,
            Self::Pending(future) => tokio::time::timeout(limit, future)
                .await
                .unwrap_or_else(|_| Err(ResourceError::TimedOut { resource: resource.to_owned(), operation, limit })),
        }
    }
}

/// For what an operation is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The group.
    pub group: GroupId,
    /// The group's epoch: fences and logs carry it.
    pub epoch: Epoch,
}

/// What a probe or a monitor found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Running as it should, in the started (or promoted) state.
    Running,
    /// Not running at all.
    Stopped,
    /// Partly there, or there and ill; the text says what is wrong.
    Failed(String),
}

/// Whether this node may take a group over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It may.
    Ready,
    /// It may not, and why not, in words for an operator.
    NotReady(String),
}

/// When a phase of the last start was over, for the flight recorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Milestone {
    /// The phase.
    pub phase: &'static str,
    /// CLOCK_BOOTTIME; 0 if it has not happened.
    pub at: Nanos,
}

/// The time limits of a resource's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For [`Resource::probe`] and [`Resource::readiness`].
    pub probe: Duration,
    /// For [`Resource::start`] and [`Resource::promote`], and for what prepares them: [`Resource::attend`],
    /// [`Resource::receive`], [`Resource::export`] and [`Resource::import`].
    pub start: Duration,
    /// For [`Resource::stop`] and [`Resource::demote`], [`Resource::drain`] and [`Resource::drained`].
    pub stop: Duration,
    /// For [`Resource::monitor`].
    pub monitor: Duration,
}

impl Timeouts {
    /// The limit of an operation.
    pub fn of(&self, operation: Operation) -> Duration {
        match operation {
            Operation::Probe | Operation::Readiness => self.probe,
            Operation::Start
            | Operation::Promote
            | Operation::Attend
            | Operation::Receive
            | Operation::Export
            | Operation::Import => self.start,
            Operation::Stop | Operation::Demote | Operation::Drain | Operation::Drained => self.stop,
            Operation::Monitor | Operation::Announce => self.monitor,
        }
    }
}

/// A thing that a group starts on its owner and stops when it leaves. Every operation is idempotent: starting what runs and
/// stopping what is stopped succeed and change nothing.
pub trait Resource: Send {
    /// The resource's name in the configuration, for texts and labels.
    fn name(&self) -> &str;

    /// The time limits of its operations.
    fn timeouts(&self) -> Timeouts;

    /// What state is it in? Changes nothing. Asked at the agent's start, when nothing is known.
    fn probe(&mut self) -> Work<'_, Health>;

    /// Start it.
    fn start(&mut self, context: &Context) -> Work<'_, ()>;

    /// Stop it. When this succeeds nothing of it runs here.
    fn stop(&mut self, context: &Context) -> Work<'_, ()>;

    /// Is it well? May repair what can be repaired in place at once, and then reports what is the case afterwards.
    fn monitor(&mut self) -> Work<'_, Health>;

    /// Take the active role, for kinds that run on several nodes in different roles.
    fn promote(&mut self, context: &Context) -> Work<'_, ()> {
        Work::Done(Err(ResourceError::no_roles(self.name(), Operation::Promote, context)))
    }

    /// Leave the active role.
    fn demote(&mut self, context: &Context) -> Work<'_, ()> {
        Work::Done(Err(ResourceError::no_roles(self.name(), Operation::Demote, context)))
    }

    /// Tell the neighbourhood again where it is. Only addresses have something to tell.
    fn announce(&mut self) -> Work<'_, ()> {
        Work::ok(())
    }

    /// Bring up what must run on a standby too, or adopt what runs already. Called at the agent's start on every node of the
    /// group, before anything is started; calling it again is the way to try again after a failure.
    fn attend(&mut self) -> Work<'_, ()> {
        Work::ok(())
    }

    /// May this node take the group over now? Says what is true of this node alone: it is asked when the owner is dead, too.
    fn readiness(&mut self) -> Work<'_, Readiness> {
        Work::ok(Readiness::Ready)
    }

    /// Prepare for a planned move to this node, before anything of it is announced. Stricter than [`Self::readiness`]: what
    /// fails here refuses the move, and the group stays where it is.
    fn receive(&mut self, context: &Context) -> Work<'_, ()> {
        let _ = context;
        Work::ok(())
    }

    /// On the owner, in a planned move: the state that the target's instance must have, for [`Self::import`] there. Empty
    /// when there is none.
    fn export(&mut self) -> Work<'_, Vec<u8>> {
        Work::ok(Vec::new())
    }

    /// On the target of a planned move: take over what [`Self::export`] gave. Only what differs is changed.
    fn import(&mut self, bytes: &[u8]) -> Work<'_, ()> {
        if bytes.is_empty() {
            return Work::ok(());
        }
        Work::Done(Err(ResourceError::Foreign {
            resource: self.name().to_owned(),
            operation: Operation::Import,
            cause: format!("{} bytes came, and this kind of resource takes none", bytes.len()),
            remedy: "run the same version of Baton, with the same configuration, on both nodes".to_owned(),
        }))
    }

    /// On the old owner, after a planned move: let what is under way end, and take nothing new on.
    fn drain(&mut self, context: &Context) -> Work<'_, ()> {
        let _ = context;
        Work::ok(())
    }

    /// The drain is over: what is still under way has no way to its clients any more.
    fn drained(&mut self, context: &Context) -> Work<'_, ()> {
        let _ = context;
        Work::ok(())
    }

    /// The network configuration changed. A kind that it touches repairs itself at once.
    fn on_network(&mut self, event: &Event) -> Work<'_, ()> {
        // Most kinds do not depend on it.
        match event {
            Event::Link { .. } | Event::LinkGone(_) | Event::Address(_) | Event::AddressGone(_) | Event::Resynced => {
                Work::ok(())
            }
        }
    }

    /// How often [`Self::monitor`] is called while it is started; none for kinds that report by events alone.
    fn monitor_interval(&self) -> Option<Duration> {
        Some(Duration::from_secs(10))
    }

    /// The phases of the last start that a kind stamps itself.
    fn milestones(&self) -> &[Milestone] {
        &[]
    }
}
