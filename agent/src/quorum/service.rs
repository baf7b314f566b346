//! Answers the requests of the other voters.

use std::{
    io::Cursor,
    sync::{Arc, OnceLock, PoisonError},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use openraft::{
    EntryPayload,
    error::{ClientWriteError, RaftError},
};

use super::{
    log::Log,
    machine::{Replicated, Shared},
    types::{Raft, Snapshot},
    wire::{self, Append, Proposed, RequestVote, WhoAmI, WouldVote, YouAre, method},
};
use crate::{
    backplane::channel::Handler,
    cluster::{
        entry::Entry,
        ids::{Incarnation, VoterId},
    },
};

/// What the answers are made from.
pub(super) struct Service<M> {
    pub voters: Vec<VoterId>,
    pub log: Log,
    pub view: Shared<M>,
    /// Empty until this voter may take part.
    pub raft: OnceLock<Raft>,
    /// What is done with what other voters propose, before it goes into the log here.
    pub complete: OnceLock<Complete>,
}

/// What an entry of another voter becomes before it goes into the log here.
pub type Complete = Box<dyn Fn(Entry) -> BoxFuture<'static, Entry> + Send + Sync>;

impl<M: Replicated> Service<M> {
    /// The handler for the channel.
    pub fn handler(self: &Arc<Self>) -> Handler {
        let service = Arc::clone(self);
        Arc::new(move |peer, method, body| {
            let service = Arc::clone(&service);
            Box::pin(async move { service.answer(peer, method, body).await })
        })
    }

    async fn answer(&self, peer: VoterId, method: u8, body: Bytes) -> Result<Bytes, String> {
        let text = |error: serde_json::Error| error.to_string();
        if method == method::WHO_AM_I {
            let asked: WhoAmI = wire::decode(&body).map_err(text)?;
            if asked.voters != self.voters {
                tracing::warn!(%peer, theirs = ?asked.voters, mine = ?self.voters, "a voter is configured with other voters");
            }
            let answer = YouAre { voters: self.voters.clone(), incarnation: self.incarnation(peer) };
            return wire::encode(&answer).map_err(text);
        }
        let raft = self.raft.get().ok_or("this voter is starting")?;
        match method {
            method::APPEND => {
                let request: Append = wire::decode(&body).map_err(text)?;
                let reply = raft.append_entries(request).await.map_err(|error| error.to_string())?;
                wire::encode(&reply).map_err(text)
            }
            method::VOTE => {
                let request: RequestVote = wire::decode(&body).map_err(text)?;
                let reply = raft.vote(request).await.map_err(|error| error.to_string())?;
                wire::encode(&reply).map_err(text)
            }
            method::SNAPSHOT => {
                let (head, data) = wire::decode_snapshot(&body).ok_or("the snapshot is malformed")?;
                let snapshot = Snapshot { meta: head.meta, snapshot: Box::new(Cursor::new(data.to_vec())) };
                let reply = raft.install_full_snapshot(head.vote, snapshot).await.map_err(|error| error.to_string())?;
                wire::encode(&reply).map_err(text)
            }
            method::PROPOSE => {
                let mut entry: Entry = wire::decode(&body).map_err(text)?;
                if let Some(complete) = self.complete.get() {
                    entry = complete(entry).await;
                }
                wire::encode(&propose(raft, entry).await).map_err(text)
            }
            method::WOULD_VOTE => {
                let asked: WouldVote = wire::decode(&body).map_err(text)?;
                wire::encode(&(asked.last >= self.log.last())).map_err(text)
            }
            _ => Err(format!("method {method} is unknown")),
        }
    }

    /// A voter's newest incarnation in the state or in the log behind it, committed or not.
    pub fn incarnation(&self, voter: VoterId) -> Incarnation {
        let (mut newest, applied) = {
            let view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
            (view.state.incarnation(voter), view.applied.map(|id| id.index))
        };
        self.log.entries_behind(applied.unwrap_or(0), |entry| {
            if let EntryPayload::Normal(Entry::Barrier { voter: of, incarnation }) = &entry.payload
                && *of == voter
            {
                newest = newest.max(*incarnation);
            }
        });
        newest
    }
}

/// Appends an entry here, if this voter leads.
pub(super) async fn propose(raft: &Raft, entry: Entry) -> Proposed {
    match raft.client_write(entry).await {
        Ok(written) => Proposed::Applied(written.data),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => Proposed::NotLeader(forward.leader_id),
        Err(_) => Proposed::Unknown,
    }
}
