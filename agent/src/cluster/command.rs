//! What the core asks the shell to do. The shell carries commands out in order.

use super::{
    entry::{Cause, DrainSummary, Entry, Switch},
    ids::{Epoch, GroupId, Index, VoterId},
    message::Message,
};

/// A command of the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Set the floor for a peer (a full fence follows; the shell then takes a fresh view and steps again).
    SetFloor {
        /// The peer.
        peer: VoterId,
        /// The new floor; [`u64::MAX`] is infinity.
        floor: Index,
    },
    /// Set a group's role in the gate.
    SetGate {
        /// The group.
        group: GroupId,
        /// The epoch.
        epoch: Epoch,
        /// What the gate does with the group's packets while the lease holds.
        role: GateRole,
    },
    /// Every gate change up to this entry is done: publish the gate index (always after the `SetGate`s).
    SetGateIndex(Index),
    /// Start the group's resources (VIP addresses, announcement); the gate is open already.
    Start {
        /// The group.
        group: GroupId,
        /// The epoch.
        epoch: Epoch,
        /// Why the group came here.
        cause: Cause,
    },
    /// Make the group's resources able to take what the owner forwards (VIP addresses that nobody is told of); the gate is set
    /// already. The report is [`super::core::Core::on_received`], or that it is not ready.
    Receive {
        /// The group.
        group: GroupId,
        /// The planned move.
        movement: Index,
    },
    /// A planned move to `to` has begun: hand over what its resources need to know of the ones here (HAProxy's server states).
    Export {
        /// The group.
        group: GroupId,
        /// The planned move.
        movement: Index,
        /// The target.
        to: VoterId,
    },
    /// The group went to another node: serve the flows that are here until they have ended, and take nothing new.
    /// The report is [`super::core::Core::on_drained`].
    Drain {
        /// The group.
        group: GroupId,
        /// The epoch whose flows drain.
        epoch: Epoch,
    },
    /// Stop the group's resources; the gate is closed already.
    Stop {
        /// The group.
        group: GroupId,
        /// The epoch that ended.
        epoch: Epoch,
    },
    /// Announce the group's addresses again (a healed partition may have left stale neighbour caches).
    Announce {
        /// The group.
        group: GroupId,
    },
    /// Send to one voter.
    Send {
        /// To whom.
        to: VoterId,
        /// What.
        message: Message,
    },
    /// Append an entry through the leader. Its fate is seen when it is applied, or by [`super::core::Core::on_proposal_failed`].
    Propose(Entry),
    /// Stand for election now.
    Elect,
    /// Stop being a leader: send no more heartbeats, so that `to` can be elected.
    StepAside {
        /// The successor.
        to: VoterId,
    },
    /// Nobody took the leadership over: be a leader again, if raft still says so.
    Resume,
    /// A fact for the flight recorder.
    Record(Fact),
    /// The agent cannot go on; the text says what happened and what to do.
    Halt(String),
}

/// What the gate does with a group's packets (docs/safety.md). Every role but `Closed` needs a valid lease at every packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GateRole {
    /// Nothing passes.
    #[default]
    Closed,
    /// This node owns the group: new flows are accepted here.
    Owner {
        /// Who still serves flows from before the last planned move: what is not known here goes there.
        steer: Option<VoterId>,
    },
    /// This node owned the group: its flows go on, new ones are forwarded.
    Drain {
        /// The new owner.
        to: VoterId,
    },
    /// This node is about to own the group: it accepts new flows only from the owner, which forwards them once it takes none itself.
    Receive {
        /// The owner.
        from: VoterId,
    },
}

/// What the flight recorder gets from the core; the shell adds the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// This voter's hold on `node` ran out.
    Silent(VoterId),
    /// The leader began a round about `node`.
    RoundBegan(VoterId, Cause),
    /// This voter raised its floor for `node`.
    FloorRaised(VoterId),
    /// A promise about `node` arrived from the second voter.
    Promised(VoterId, VoterId),
    /// The leader proposed the conclusion about `node`.
    ConclusionProposed(VoterId),
    /// A conclusion about `node` was applied here.
    Concluded(VoterId),
    /// A group changed owner in the applied state.
    OwnerChanged {
        /// The group.
        group: GroupId,
        /// Its new epoch.
        epoch: Epoch,
        /// The old owner.
        from: Option<VoterId>,
        /// The new owner.
        to: Option<VoterId>,
        /// Why.
        cause: Cause,
    },
    /// An entry was refused by its compare-and-set.
    Refused(&'static str),
    /// A group's planned move to `to` began, or its target can receive now.
    Moving {
        /// The group.
        group: GroupId,
        /// Its epoch.
        epoch: Epoch,
        /// The target.
        to: VoterId,
        /// Whether the target can receive.
        ready: bool,
        /// Whether open flows will go on.
        steers: bool,
    },
    /// A planned move was given up before the group changed owner.
    Abandoned {
        /// The group.
        group: GroupId,
        /// Its epoch.
        epoch: Epoch,
        /// The target.
        to: VoterId,
    },
    /// The flows of before a planned move have ended, or their time was over.
    Drained {
        /// The group.
        group: GroupId,
        /// Its epoch.
        epoch: Epoch,
        /// The node that served them.
        node: VoterId,
        /// What became of them, if it said so.
        summary: Option<DrainSummary>,
    },
    /// An order that another voter forwarded was refused; the text says why.
    OrderRefused(String),
    /// An operator switched something on (`true`) or off.
    Switched(Switch, bool),
    /// Leadership was handed over.
    SteppedAside(VoterId),
    /// A node that this voter had found silent is back.
    Returned(VoterId),
    /// This machine's own lease lapsed while it owned something.
    LeaseLapsed,
    /// This machine stands for election.
    Stood,
}
