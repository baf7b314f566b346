//! What the executor tells the flight recorder; the core's part comes as facts.

use super::record::PhaseName;
use crate::cluster::ids::{Epoch, GroupId, VoterId};

/// What the executor and the shell report; the core's part comes as [`crate::cluster::command::Fact`]s.
///
/// Each is sent with the instant at which it happened, which may be earlier than the call: the kernel stamps its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The last valid heartbeat of a voter arrived; sent when the voter is found silent.
    LastBeat {
        /// The voter.
        node: VoterId,
    },
    /// The gate map says that this node owns the group.
    GateOpen {
        /// The group.
        group: GroupId,
        /// The epoch.
        epoch: Epoch,
    },
    /// The gate map says that this node does not own the group any more.
    GateClosed {
        /// The group.
        group: GroupId,
        /// The epoch that ended here.
        epoch: Epoch,
    },
    /// The gate map says that new flows are forwarded to the target of a planned move.
    Diverted {
        /// The group.
        group: GroupId,
        /// The epoch that ends here.
        epoch: Epoch,
    },
    /// All VIPs of the group stand on their devices.
    AddressesAdded {
        /// The group.
        group: GroupId,
        /// The epoch.
        epoch: Epoch,
        /// How many.
        count: usize,
    },
    /// The first gratuitous ARP or unsolicited NA of each VIP has been sent.
    Announced {
        /// The group.
        group: GroupId,
        /// The epoch.
        epoch: Epoch,
    },
    /// A resource of the group runs.
    ResourceStarted {
        /// The group.
        group: GroupId,
        /// The epoch.
        epoch: Epoch,
        /// The resource's name.
        resource: String,
    },
    /// All of the group runs here.
    Started {
        /// The group.
        group: GroupId,
        /// The epoch.
        epoch: Epoch,
    },
    /// The flows of the epoch go on here, although another node owns the group.
    Draining {
        /// The group.
        group: GroupId,
        /// The epoch that ended here.
        epoch: Epoch,
    },
    /// The group could not be started here.
    StartFailed {
        /// The group.
        group: GroupId,
        /// The epoch.
        epoch: Epoch,
        /// Why.
        reason: String,
    },
    /// A resource of the group failed while it ran.
    ResourceFailed {
        /// The group.
        group: GroupId,
        /// The epoch.
        epoch: Epoch,
        /// What happened.
        reason: String,
    },
    /// Nothing of the group runs here any more.
    Stopped {
        /// The group.
        group: GroupId,
        /// The epoch that ended here.
        epoch: Epoch,
    },
    /// The gate passed the first packet of a client at this epoch.
    FirstPacket {
        /// The group.
        group: GroupId,
        /// The epoch.
        epoch: Epoch,
    },
}

impl Mark {
    /// The phase that it reaches, and what there is to say about it.
    pub(super) fn phase(&self) -> (PhaseName, String) {
        match self {
            Self::LastBeat { .. } => (PhaseName::LastBeat, String::new()),
            Self::GateOpen { .. } => (PhaseName::GateOpen, String::new()),
            Self::GateClosed { .. } => (PhaseName::GateClosed, String::new()),
            Self::Diverted { .. } => (PhaseName::Diverted, String::new()),
            Self::AddressesAdded { count, .. } => (PhaseName::AddressAdded, format!("{count} VIPs")),
            Self::Announced { .. } => (PhaseName::Announced, String::new()),
            Self::ResourceStarted { resource, .. } => (PhaseName::ResourceStarted, resource.clone()),
            Self::Started { .. } => (PhaseName::Started, String::new()),
            Self::Draining { .. } => (PhaseName::Draining, String::new()),
            Self::StartFailed { reason, .. } => (PhaseName::StartFailed, reason.clone()),
            Self::ResourceFailed { reason, .. } => (PhaseName::ResourceFailed, reason.clone()),
            Self::Stopped { .. } => (PhaseName::Stopped, String::new()),
            Self::FirstPacket { .. } => (PhaseName::FirstPacket, String::new()),
        }
    }

    /// The group and epoch that it is about; `None` for what is about a node.
    pub(super) fn place(&self) -> Option<(&GroupId, Epoch)> {
        match self {
            Self::LastBeat { .. } => None,
            Self::GateOpen { group, epoch }
            | Self::GateClosed { group, epoch }
            | Self::AddressesAdded { group, epoch, .. }
            | Self::Announced { group, epoch }
            | Self::ResourceStarted { group, epoch, .. }
            | Self::Started { group, epoch }
            | Self::Draining { group, epoch }
            | Self::Diverted { group, epoch }
            | Self::StartFailed { group, epoch, .. }
            | Self::ResourceFailed { group, epoch, .. }
            | Self::Stopped { group, epoch }
            | Self::FirstPacket { group, epoch } => Some((group, *epoch)),
        }
    }
}
