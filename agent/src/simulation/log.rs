//! The replicated log of the raft model, in memory and on the disk, with its snapshot.

use std::rc::Rc;

use crate::cluster::{
    entry::Entry,
    ids::{Index, VoterId},
    state::State,
};

/// Index and term of an entry.
pub type Position = (Index, u64);

/// One entry: the term in which a leader appended it, and what it says (`None`: the blank one that opens a term).
#[derive(Clone, Debug)]
pub struct LogEntry {
    /// The term.
    pub term: u64,
    /// The entry of the cluster.
    pub entry: Option<Entry>,
}

/// What is put on the disk.
#[derive(Clone, Debug)]
pub enum Write {
    /// Term and vote.
    Vote(u64, Option<VoterId>),
    /// Entries from an index on; whatever was there goes.
    Append(Index, Rc<[LogEntry]>),
    /// The commit index.
    Committed(Index),
    /// The log up to the state's last applied entry is replaced by the state.
    Compact(Index, Rc<State>),
    /// The whole log is replaced by a leader's snapshot, whose last entry had this index and term.
    Replace((Index, u64), Rc<State>),
}

/// A log: a snapshot, and the entries after it.
#[derive(Clone, Debug, Default)]
pub struct Log {
    base: Index,
    base_term: u64,
    snapshot: Option<Rc<State>>,
    entries: Vec<LogEntry>,
}

/// What [`Log::merge`] did.
pub struct Merged {
    /// Up to here the log is the leader's.
    pub last: Index,
    /// What is new, and from which index on.
    pub appended: Option<(Index, Rc<[LogEntry]>)>,
}

impl Log {
    /// Index and term of the last entry.
    pub fn last(&self) -> (Index, u64) {
        let index = self.base + self.entries.len() as u64;
        (index, self.entries.last().map_or(self.base_term, |entry| entry.term))
    }

    /// Index and term of the snapshot's last entry.
    pub const fn base(&self) -> (Index, u64) {
        (self.base, self.base_term)
    }

    /// The snapshot.
    pub fn snapshot(&self) -> Option<Rc<State>> {
        self.snapshot.clone()
    }

    /// How many entries are held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    fn position(&self, index: Index) -> Option<usize> {
        usize::try_from(index.checked_sub(self.base + 1)?).ok()
    }

    /// The term of an entry.
    pub fn term(&self, index: Index) -> Option<u64> {
        if index == self.base {
            return Some(self.base_term);
        }
        self.entries.get(self.position(index)?).map(|entry| entry.term)
    }

    /// What an entry says; `None` also for a blank one.
    pub fn entry(&self, index: Index) -> Option<Entry> {
        self.entries.get(self.position(index)?).and_then(|entry| entry.entry.clone())
    }

    /// Puts entries at an index; whatever was there goes.
    pub fn append(&mut self, from: Index, entries: &[LogEntry]) {
        if let Some(position) = self.position(from) {
            self.entries.truncate(position);
            self.entries.extend_from_slice(entries);
        }
    }

    /// Everything from an index on, with index and term of the entry before. `None`: it is in the snapshot already.
    pub fn suffix(&self, from: Index) -> Option<(Position, Rc<[LogEntry]>)> {
        let previous = from.checked_sub(1)?;
        let term = self.term(previous)?;
        Some(((previous, term), self.entries.get(self.position(from)?..)?.into()))
    }

    /// Takes a leader's entries. `None`: the entry before them is not the same here.
    pub fn merge(&mut self, previous: (Index, u64), entries: &Rc<[LogEntry]>) -> Option<Merged> {
        let last = previous.0 + entries.len() as u64;
        // What the snapshot holds is committed, so it is the leader's too.
        let known = usize::try_from(self.base.saturating_sub(previous.0)).unwrap_or(usize::MAX);
        if known == 0 && self.term(previous.0) != Some(previous.1) {
            return None;
        }
        for (offset, entry) in entries.iter().enumerate().skip(known) {
            let index = previous.0 + 1 + offset as u64;
            if self.term(index) != Some(entry.term) {
                let new: Rc<[LogEntry]> = entries[offset..].into();
                self.append(index, &new);
                return Some(Merged { last, appended: Some((index, new)) });
            }
        }
        Some(Merged { last: last.max(self.base), appended: None })
    }

    /// Replaces the entries up to an index by a state. Returns whether there was something to replace.
    pub fn compact(&mut self, index: Index, state: &Rc<State>) -> bool {
        let (Some(term), Some(position)) = (self.term(index), self.position(index)) else {
            return false;
        };
        self.entries.drain(..=position);
        self.base = index;
        self.base_term = term;
        self.snapshot = Some(Rc::clone(state));
        true
    }

    /// Replaces everything by a leader's snapshot.
    pub fn replace(&mut self, last: (Index, u64), state: &Rc<State>) {
        *self = Self { base: last.0, base_term: last.1, snapshot: Some(Rc::clone(state)), entries: Vec::new() };
    }
}

/// What survives a crash of the machine.
#[derive(Clone, Debug, Default)]
pub struct Durable {
    /// The term.
    pub term: u64,
    /// The vote in that term.
    pub voted: Option<VoterId>,
    /// The log.
    pub log: Log,
    /// The commit index, which may lag.
    pub committed: Index,
}

impl Durable {
    /// One write reaches the disk.
    pub fn apply(&mut self, write: &Write) {
        match write {
            Write::Vote(term, voted) => (self.term, self.voted) = (*term, *voted),
            Write::Append(from, entries) => self.log.append(*from, entries),
            Write::Committed(index) => self.committed = *index,
            Write::Compact(index, state) => {
                self.log.compact(*index, state);
            }
            Write::Replace(last, state) => {
                self.log.replace(*last, state);
                self.committed = last.0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(terms: &[u64]) -> Rc<[LogEntry]> {
        terms.iter().map(|&term| LogEntry { term, entry: None }).collect()
    }

    #[test]
    fn a_conflict_truncates_and_a_gap_is_refused() {
        let mut log = Log::default();
        assert!(log.merge((0, 0), &entries(&[1, 1, 1])).is_some());
        assert!(log.merge((5, 1), &entries(&[1])).is_none());
        let merged = log.merge((1, 1), &entries(&[2])).map(|merged| merged.last);
        assert_eq!((merged, log.last()), (Some(2), (2, 2)));
        // An old, shorter message takes nothing away.
        assert!(log.merge((0, 0), &entries(&[1])).is_some());
        assert_eq!(log.last(), (2, 2));
    }
}
