//! What the executor is asked, and what it answers.

use std::collections::BTreeSet;

use crate::{
    agent::mail::Mail,
    cluster::ids::{Epoch, GroupId, Index, VoterId},
    netlink::watch::Event,
    telemetry::run::GroupRun,
};

/// What the executor is asked to do.
#[derive(Clone, Debug)]
pub enum Job {
    /// Start a group; its gate is open. `after_flows`: once the old owner has told which flows it goes on serving.
    Start {
        /// The group.
        group: GroupId,
        /// The epoch.
        epoch: Epoch,
        /// Whether the old owner tells of flows.
        after_flows: bool,
    },
    /// Make a group able to take what its owner forwards, for a planned move.
    Receive(GroupId, Index),
    /// Tell the target of a planned move what the resources here know.
    Export(GroupId, Index, VoterId),
    /// Tell the new owner which flows without connections this node goes on serving.
    TellFlows {
        /// The group.
        group: GroupId,
        /// Its row in the gate.
        slot: u32,
        /// The epoch whose flows drain.
        epoch: Epoch,
        /// The new owner.
        to: VoterId,
    },
    /// The group went to another node: serve what is open alone.
    Drain(GroupId, Epoch),
    /// Stop a group; its gate is closed.
    Stop(GroupId, Epoch),
    /// Announce a group's addresses again, and repeat it on the schedule.
    Announce(GroupId),
    /// Look again whether the groups could be taken over here.
    Look,
    /// A resource of a group reports that it has died.
    Died(GroupId, String, String),
    /// Something changed in the network.
    Network(Event),
    /// What operators have switched of a group. A group of which nothing was told is not in maintenance, and all of it is managed.
    Mode {
        /// The group.
        group: GroupId,
        /// Whether failures are only reported.
        maintenance: bool,
        /// Its resources that are neither started, stopped nor restarted.
        unmanaged: BTreeSet<String>,
    },
    /// Stop a resource of a group that runs here, and what requires it, and start them again.
    Restart(GroupId, String),
    /// Forget what failed of a resource, or of all of the group, and try again at once what could not be stopped.
    Cleanup(GroupId, Option<String>),
    /// End the group's task.
    End,
}

impl Job {
    /// The group that it is for; `None`: all of them.
    pub fn group(&self) -> Option<&GroupId> {
        match self {
            Self::Start { group, .. }
            | Self::Receive(group, _)
            | Self::Export(group, ..)
            | Self::TellFlows { group, .. }
            | Self::Drain(group, _)
            | Self::Stop(group, _)
            | Self::Announce(group)
            | Self::Mode { group, .. }
            | Self::Restart(group, _)
            | Self::Cleanup(group, _)
            | Self::Died(group, ..) => Some(group),
            Self::Look | Self::Network(_) | Self::End => None,
        }
    }
}

/// What the executor has done.
#[derive(Debug)]
pub enum Report {
    /// The group runs.
    Started(GroupId, Epoch),
    /// Nothing of the group runs here any more.
    Stopped(GroupId, Epoch),
    /// The group can receive, for a planned move.
    Received(GroupId, Index),
    /// It cannot; what was begun of it is stopped by the core.
    ReceiveFailed(GroupId, Index, String),
    /// A letter for another agent.
    Mail(VoterId, Mail),
    /// Whether a group could be taken over here; the text says why not.
    Readiness(GroupId, Option<String>),
    /// A resource of a running group failed beyond what a restart in place mends: the group is to be given up.
    Failed(GroupId, Epoch, String),
    /// How the group's resources run here now; told at each change.
    Run(GroupId, GroupRun),
    /// The group could not be started; what was started of it has been stopped.
    StartFailed(GroupId, Epoch, String),
}
