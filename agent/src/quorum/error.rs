//! Why a quorum did not start, a proposal has no fate, or an election was not called.

use super::{ENTRY_BYTES_MAX, log::LogError, snapshot::SnapshotError};
use crate::cluster::ids::{Incarnation, VoterId};

/// Why the quorum could not be started.
#[derive(Debug, thiserror::Error)]
pub enum QuorumError {
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The snapshot cannot be used.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A stored or received value cannot be read.
    #[error("a stored or received value cannot be read; run the same version on all machines")]
    Encoding {
        /// The cause.
        source: serde_json::Error,
    },
    /// The others know this voter, but its own log is empty.
    #[error(
        "voter {peer} knows this machine as voter {me}, incarnation {incarnation}, but the data folder here is empty: \
         its disk was wiped or replaced, and with it what this voter promised. Bring the folder back, or let this \
         machine join under a new voter number"
    )]
    Forgotten {
        /// This voter.
        me: VoterId,
        /// Who knows it.
        peer: VoterId,
        /// The incarnation on record.
        incarnation: Incarnation,
    },
    /// The number of starts went back.
    #[error(
        "the log knows this voter in incarnation {recorded}, the file of incarnations says {own}: it was lost or put \
         back. Write {recorded} into it, and start again"
    )]
    OldIncarnation {
        /// In the log.
        recorded: Incarnation,
        /// Of this start.
        own: Incarnation,
    },
    /// Two configurations name different voters.
    #[error("voter {peer} is configured with the voters {theirs:?}, this machine with {mine:?}: make them equal")]
    OtherVoters {
        /// The peer.
        peer: VoterId,
        /// Its list.
        theirs: Vec<VoterId>,
        /// The list here.
        mine: Vec<VoterId>,
    },
    /// The log was begun with other voters than the configuration names.
    #[error(
        "the log was begun with the voters {stored:?}, the configuration names {configured:?}: \
         put the old list back, voters cannot be changed by the configuration alone"
    )]
    VotersChanged {
        /// In the log.
        stored: Vec<VoterId>,
        /// In the configuration.
        configured: Vec<VoterId>,
    },
    /// The configuration's voters are not usable.
    #[error("the configuration names the voters {voters:?}, which must contain this one, {me}, once each")]
    Voters {
        /// The list.
        voters: Vec<VoterId>,
        /// This voter.
        me: VoterId,
    },
    /// A voter without an address on the channel.
    #[error("voter {peer} has no backplane address in the configuration")]
    NoAddress {
        /// The voter.
        peer: VoterId,
    },
    /// raft itself did not start.
    #[error("raft did not start: {0}")]
    Raft(String),
}

/// Why a proposal has no known fate, or none at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// No leader is known, or it could not be reached: nothing was appended.
    #[error("no leader can be reached; the entry was not appended")]
    NoLeader,
    /// The entry is too large: nothing was appended.
    #[error("an entry of {0} bytes is larger than {ENTRY_BYTES_MAX}")]
    TooLarge(usize),
    /// The entry may or may not be applied later.
    #[error("the leader was lost before the entry's fate was known")]
    Unknown,
}

/// Why an election was not called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElectError {
    /// Too few voters would vote for this one now: no term was spent.
    #[error("only {granted} of {voters} voters would vote for this one now")]
    NoMajority {
        /// Those that would, this one included.
        granted: usize,
        /// All voters.
        voters: usize,
    },
    /// raft has stopped.
    #[error("raft has stopped: {0}")]
    Stopped(String),
}
