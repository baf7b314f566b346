//! What the core asks the shell to do. The shell carries commands out in order.

use super::{
    entry::{Cause, Entry},
    ids::{Epoch, GroupId, Index, VoterId},
    message::Message,
};

/// What a group's gate does on this node. Every role but the closed one needs a valid lease at every packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateRole {
    /// Nothing of the group passes.
    Closed,
    /// The owner: everything passes. With `steer`, packets of flows that are not its own go to the old owner.
    Owner {
        /// The old owner, while it drains.
        steer: Option<VoterId>,
    },
    /// The old owner after a move: serves the flows it has, sends new ones to the new owner, answers no ARP.
    Drain {
        /// The new owner.
        to: VoterId,
    },
    /// The next owner before the move is done: takes what the owner sends over the backplane.
    Receive {
        /// The owner.
        from: VoterId,
    },
}

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
    /// Set a group's role in the gate: pass its packets while the lease holds, or not.
    SetGate {
        /// The group.
        group: GroupId,
        /// The epoch.
        epoch: Epoch,
        /// Whether this node is the owner at that epoch.
        open: bool,
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
    /// An order that another voter forwarded was refused; the text says why.
    OrderRefused(String),
    /// Leadership was handed over.
    SteppedAside(VoterId),
    /// A node that this voter had found silent is back.
    Returned(VoterId),
    /// This machine's own lease lapsed while it owned something.
    LeaseLapsed,
    /// This machine stands for election.
    Stood,
}
