//! openraft's network, over the channel.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use openraft::{
    RaftNetwork, RaftNetworkFactory,
    error::{
        Fatal, NetworkError, PayloadTooLarge, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
    },
    network::{Backoff, RPCOption},
    raft::{AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, SnapshotResponse, VoteResponse},
};
use serde::de::DeserializeOwned;

use super::{
    log::Log,
    types::{Snapshot, TypeConfig, Vote, voter_id},
    wire::{self, Append, RequestVote, SnapshotHead, method},
};
use crate::{
    backplane::channel::{Channel, MESSAGE_BYTES_MAX, RpcError},
    cluster::ids::VoterId,
};

/// How long an append or a vote may take, a slow disk at the other end included. A dead link costs nothing of it: the
/// request is on its way over the others, or goes again over the next connection.
const RPC_DEADLINE: Duration = Duration::from_millis(500);
/// How long a snapshot may take, its fsync at the other end included.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(3);
/// Bytes of an append, at most; a larger one is sent as several.
const APPEND_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 4;
/// Before a peer that could not be reached is tried again.
const BACKOFF: Duration = Duration::from_millis(20);

/// Makes the network to each peer.
pub(super) struct Network {
    pub channel: Arc<Channel>,
    pub log: Log,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _node: &()) -> Peer {
        // A number that is no voter's is answered by the channel: "no peer".
        let peer = voter_id(target).unwrap_or(VoterId(0));
        Peer { peer, channel: Arc::clone(&self.channel), log: self.log.clone() }
    }
}

/// The network to one peer.
pub(super) struct Peer {
    peer: VoterId,
    channel: Arc<Channel>,
    log: Log,
}

/// Why a request brought no answer.
enum Failure {
    /// Try again after the backoff.
    Unreachable(Unreachable),
    /// The deadline took its time already: try again at once.
    Late(NetworkError),
}

impl Peer {
    async fn call<T: DeserializeOwned>(
        &self,
        method: u8,
        body: Result<Bytes, serde_json::Error>,
        deadline: Duration,
    ) -> Result<T, Failure> {
        let body = body.map_err(|error| Failure::Unreachable(Unreachable::new(&error)))?;
        match self.channel.call(self.peer, method, body, deadline).await {
            Ok(reply) => wire::decode(&reply).map_err(|error| Failure::Unreachable(Unreachable::new(&error))),
            Err(error @ (RpcError::Deadline(_) | RpcError::Restarted(_))) => {
                Err(Failure::Late(NetworkError::new(&error)))
            }
            Err(error) => Err(Failure::Unreachable(Unreachable::new(&error))),
        }
    }
}

type CallError<E> = RPCError<u64, (), RaftError<u64, E>>;

impl<E: std::error::Error> From<Failure> for CallError<E> {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unreachable(error) => Self::Unreachable(error),
            Failure::Late(error) => Self::Network(error),
        }
    }
}

impl RaftNetwork<TypeConfig> for Peer {
    async fn append_entries(
        &mut self,
        rpc: Append,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, CallError<openraft::error::Infallible>> {
        // A leader appends before its own disk has the entry; nobody may hear of a commit before that (see `log`).
        if let Some(committed) = rpc.leader_commit {
            self.log.durable(committed.index).await.map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))?;
        }
        let body = wire::encode(&rpc);
        if body.as_ref().is_ok_and(|body| body.len() > APPEND_BYTES_MAX) && rpc.entries.len() > 1 {
            let fewer = rpc.entries.len() as u64 / 2;
            return Err(RPCError::PayloadTooLarge(PayloadTooLarge::new_entries_hint(fewer)));
        }
        Ok(self.call(method::APPEND, body, RPC_DEADLINE).await?)
    }

    async fn vote(
        &mut self,
        rpc: RequestVote,
        _option: RPCOption,
    ) -> Result<VoteResponse<u64>, CallError<openraft::error::Infallible>> {
        Ok(self.call(method::VOTE, wire::encode(&rpc), RPC_DEADLINE).await?)
    }

    async fn install_snapshot(
        &mut self,
        _rpc: InstallSnapshotRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, CallError<openraft::error::InstallSnapshotError>> {
        // openraft calls this from its own full_snapshot alone, which is replaced below.
        let error = std::io::Error::other("snapshots are sent as a whole, not in chunks");
        Err(RPCError::Unreachable(Unreachable::new(&error)))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        let head = SnapshotHead { vote, meta: snapshot.meta };
        let body = wire::encode_snapshot(&head, snapshot.snapshot.get_ref());
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            reply = self.call(method::SNAPSHOT, body, SNAPSHOT_DEADLINE) => match reply {
                Ok(reply) => Ok(reply),
                Err(Failure::Unreachable(error)) => Err(StreamingError::Unreachable(error)),
                Err(Failure::Late(error)) => Err(StreamingError::Network(error)),
            },
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}
