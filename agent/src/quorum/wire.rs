//! The requests between quorums: their numbers, and what they carry. Bodies are JSON, as in the log.

use bytes::{BufMut, Bytes, BytesMut};
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::types::{Applied, LogId, SnapshotMeta, TypeConfig, Vote};
use crate::cluster::ids::{Incarnation, VoterId};

/// The methods on the channel.
pub(super) mod method {
    pub const APPEND: u8 = 1;
    pub const VOTE: u8 = 2;
    pub const SNAPSHOT: u8 = 3;
    pub const PROPOSE: u8 = 4;
    pub const WOULD_VOTE: u8 = 5;
    pub const WHO_AM_I: u8 = 6;
}

/// The leader's entries and its committed position.
pub(super) type Append = AppendEntriesRequest<TypeConfig>;
/// A candidate's request.
pub(super) type RequestVote = VoteRequest<u64>;

/// What a snapshot transfer says before the data.
#[derive(Serialize, Deserialize)]
pub(super) struct SnapshotHead {
    pub vote: Vote,
    pub meta: SnapshotMeta,
}

/// The answer to a forwarded entry.
#[derive(Serialize, Deserialize)]
pub(super) enum Proposed {
    Applied(Applied),
    /// Not appended: the receiver does not lead; whom it knows as the leader.
    NotLeader(Option<u64>),
    /// Appended, perhaps: its fate is unknown.
    Unknown,
}

/// Asks whether a vote would be granted, before a term is spent on it.
#[derive(Serialize, Deserialize)]
pub(super) struct WouldVote {
    pub last: Option<LogId>,
}

/// What a voter on its first start asks the others.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WhoAmI {
    /// The voters of the asker's configuration.
    pub voters: Vec<VoterId>,
}

/// The answer: what the log knows of the asker.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct YouAre {
    /// The voters of the answerer's configuration.
    pub voters: Vec<VoterId>,
    /// The asker's newest incarnation on record.
    pub incarnation: Incarnation,
}

/// Encodes a body.
pub(super) fn encode(value: &impl Serialize) -> Result<Bytes, serde_json::Error> {
    serde_json::to_vec(value).map(Bytes::from)
}

/// Decodes a body.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(body)
}

/// Encodes a snapshot: `length of the head u32 little-endian | head | data`.
pub(super) fn encode_snapshot(head: &SnapshotHead, data: &[u8]) -> Result<Bytes, serde_json::Error> {
    let head = serde_json::to_vec(head)?;
    let mut body = BytesMut::with_capacity(4 + head.len() + data.len());
    body.put_u32_le(u32::try_from(head.len()).map_err(serde::ser::Error::custom)?);
    body.put_slice(&head);
    body.put_slice(data);
    Ok(body.freeze())
}

/// Decodes a snapshot.
pub(super) fn decode_snapshot(body: &[u8]) -> Option<(SnapshotHead, &[u8])> {
    let (length, rest) = body.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (head, data) = rest.split_at_checked(length)?;
    Some((decode(head).ok()?, data))
}
