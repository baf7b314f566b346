//! Resources: what a group consists of, one file a kind, behind one trait.
//!
//! An operation returns [`Work`]: done already, or a future. Kinds on the critical path of a takeover (addresses) do their
//! work inside the call, without a task switch or an allocation for a future; slower kinds return a future.

pub mod error;
pub mod vip;

use std::{future::Future, pin::Pin, time::Duration};

pub use error::{Operation, ResourceError};

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
    /// For [`Resource::probe`].
    pub probe: Duration,
    /// For [`Resource::start`] and [`Resource::promote`].
    pub start: Duration,
    /// For [`Resource::stop`] and [`Resource::demote`].
    pub stop: Duration,
    /// For [`Resource::monitor`].
    pub monitor: Duration,
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

    /// Be ready to take what the owner forwards, for the target of a planned move: whatever it takes to start at once and unseen.
    fn receive(&mut self, context: &Context) -> Work<'_, ()> {
        let _ = context;
        Work::ok(())
    }

    /// The group went to another node by a planned move: serve what is open here, take nothing new.
    fn drain(&mut self, context: &Context) -> Work<'_, ()> {
        let _ = context;
        Work::ok(())
    }

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
