//! openraft's view of the log.

use std::{fmt::Debug, io, ops::RangeBounds};

use openraft::{
    LogState, OptionalSend, RaftLogReader, StorageIOError,
    storage::{LogFlushed, RaftLogStorage},
};

use super::{BEHIND_MAX, Done, Log, Record};
use crate::quorum::types::{LogEntry, LogId, StorageError, TypeConfig, Vote};

/// Entries that one read for an append returns at most; more go with the next one.
const READ_MAX: usize = 256;

fn failed(error: io::Error) -> StorageError {
    StorageIOError::write_logs(&error).into()
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<LogEntry>, StorageError> {
        let memory = self.memory();
        Ok(memory.entries.range(range).map(|(_, (entry, _))| entry.clone()).collect())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<LogEntry>, StorageError> {
        let memory = self.memory();
        Ok(memory.entries.range(start..end).take(READ_MAX).map(|(_, (entry, _))| entry.clone()).collect())
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let last_log_id = self.last();
        Ok(LogState { last_purged_log_id: self.memory().purged, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let record = vec![Record::Vote(*vote)];
        let before = self.memory().vote.replace(*vote);
        if before.is_some_and(|before| before.leader_id() == vote.leader_id()) {
            // The same leader, now elected: only the vote before that had to be durable, which it is at the others. Here
            // it is waited for now, because from here on this voter may act as the leader.
            let candidacy = self.memory().candidacy;
            self.reached(candidacy).await.map_err(failed)?;
            self.memory().submit(record, false, Done::Nobody).map_err(failed)?;
            return Ok(());
        }
        if vote.leader_id().voted_for() == Some(self.shared.me) && !vote.committed {
            // Point 5 of the module's text.
            let mut memory = self.memory();
            memory.candidacy = memory.submit(record, true, Done::Nobody).map_err(failed)?;
            return Ok(());
        }
        self.write(record).await.map_err(failed)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.memory().vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let Some(id) = committed else { return Ok(()) };
        self.durable(id.index).await.map_err(failed)?;
        let mut memory = self.memory();
        memory.committed = committed;
        // Not awaited: a restart that knows less only waits for its barrier, which comes behind every older entry.
        memory.submit(vec![Record::Committed(id)], false, Done::Nobody).map_err(failed)?;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.memory().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().collect();
        let mut early = None;
        let ticket = {
            let mut memory = self.memory();
            // Point 3 of the module's text.
            let leads = memory.vote.is_some_and(|vote| {
                vote.committed
                    && vote.leader_id().voted_for() == Some(self.shared.me)
                    && entries.iter().all(|entry| entry.log_id.leader_id == *vote.leader_id())
            });
            let records = entries.iter().cloned().map(Record::Entry).collect();
            let done = if leads {
                early = Some(callback);
                Done::Nobody
            } else {
                Done::Raft(callback)
            };
            let ticket = memory.submit(records, true, done).map_err(failed)?;
            memory.entries.extend(entries.into_iter().map(|entry| (entry.log_id.index, (entry, ticket))));
            ticket
        };
        if let Some(callback) = early {
            self.reached(ticket.saturating_sub(BEHIND_MAX)).await.map_err(failed)?;
            callback.log_io_completed(Ok(()));
        }
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.memory().entries.split_off(&log_id.index);
        self.write(vec![Record::Truncate(log_id.index)]).await.map_err(failed)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        {
            let mut memory = self.memory();
            memory.purged = Some(log_id);
            memory.entries = memory.entries.split_off(&(log_id.index + 1));
        }
        self.write(vec![Record::Purge(log_id)]).await.map_err(failed)
    }
}
