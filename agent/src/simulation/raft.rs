//! A raft model: durable term, vote and log behind a disk that takes its time; commit; snapshots; followers that learn of a
//! commit later; deposed leaders; proposals of unknown fate.
//!
//! What it has in common with openraft 0.9, as the agent runs it: no elections of its own (the core calls them), a leader
//! lease that makes voters refuse a candidate while a leader was heard of, a candidate that is refused while its own lease
//! for the leader is fresh, a leader that stays one until it sees a larger term, a blank entry at the start of a term.
//!
//! Where it differs:
//! - one vote a term and so one leader a term; openraft orders votes by (term, node) and may have a larger node
//!   take over a term in which nothing was committed;
//! - membership is fixed: no learners, no joint configurations;
//! - a follower applies as soon as it learns of the commit (the driver adds its own lag); openraft has a task for that;
//! - replication is one outstanding request a follower with the whole rest of the log in it; openraft streams chunks;
//! - a snapshot travels in one message.

use std::rc::Rc;

use super::log::{Log, LogEntry, Write};
use crate::cluster::{
    entry::Entry,
    ids::{Index, Nanos, VoterId},
    state::State,
    timing::majority,
};

const ROWS: usize = VoterId::MAX as usize + 1;

/// What raft nodes tell one another.
#[derive(Clone, Debug)]
pub enum RaftMessage {
    /// Replicates, and tells that the leader lives.
    Append {
        /// The leader's term.
        term: u64,
        /// The entry before the first one: index and term.
        previous: (Index, u64),
        /// The entries.
        entries: Rc<[LogEntry]>,
        /// The leader's commit index.
        commit: Index,
    },
    /// The answer: how far the follower's log is known to match, or where to try again.
    Appended {
        /// The follower's term.
        term: u64,
        /// Whether `previous` matched.
        matched: bool,
        /// The index that matches, or the follower's last.
        index: Index,
    },
    /// A candidate asks for a vote.
    Vote {
        /// Its new term.
        term: u64,
        /// Term and index of its last entry.
        last: (u64, Index),
    },
    /// The answer.
    Voted {
        /// The voter's term.
        term: u64,
        /// Whether it is a yes.
        granted: bool,
    },
    /// The state instead of the entries that led to it.
    Snapshot {
        /// The leader's term.
        term: u64,
        /// The newest entry in it, and its term.
        last: (Index, u64),
        /// The state.
        state: Rc<State>,
    },
    /// A proposal on its way to the leader.
    Forward(Entry),
    /// The receiver of the proposal is no leader.
    NotLeader(Entry),
}

#[derive(Clone, Debug)]
enum Standing {
    Follower,
    Candidate { granted: u16 },
    Leader { next: [Index; ROWS], matched: [Index; ROWS], first_write: u64, quiet: bool },
}

/// What raft wants done.
#[derive(Debug)]
pub enum Output {
    /// Send to a voter.
    Send(VoterId, RaftMessage),
    /// Put on the disk, in order; [`Raft::written`] tells when it is there.
    Write(u64, Write),
    /// The state machine takes this state.
    Restore(Rc<State>),
    /// The state machine applies an entry.
    Apply(Index, Option<Entry>),
}

/// One machine's raft.
pub struct Raft {
    me: VoterId,
    voters: Vec<VoterId>,
    lease_ns: Nanos,
    term: u64,
    voted: Option<VoterId>,
    log: Log,
    commit: Index,
    handed: Index,
    standing: Standing,
    leader: Option<VoterId>,
    heard: Nanos,
    /// The number of the last write asked for, and of the last one done.
    writes: u64,
    durable: u64,
    /// Answers that wait until a write is durable.
    waiting: Vec<(u64, VoterId, RaftMessage)>,
    outputs: Vec<Output>,
}

impl Raft {
    /// Starts from what the disk holds. The outputs restore the snapshot and apply up to the persisted commit index.
    pub fn new(me: VoterId, voters: &[VoterId], lease_ns: Nanos, disk: &super::log::Durable) -> Self {
        let mut raft = Self {
            me,
            voters: voters.to_vec(),
            lease_ns,
            term: disk.term,
            voted: disk.voted,
            log: disk.log.clone(),
            commit: disk.committed.min(disk.log.last().0).max(disk.log.base().0),
            handed: 0,
            standing: Standing::Follower,
            leader: None,
            heard: 0,
            writes: 0,
            durable: 0,
            waiting: Vec::new(),
            outputs: Vec::new(),
        };
        if let Some(state) = raft.log.snapshot() {
            raft.handed = raft.log.base().0;
            raft.outputs.push(Output::Restore(state));
        }
        raft.hand_out();
        raft
    }

    /// What is to be done now.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// The leader known here, the term, and the last index.
    pub fn status(&self) -> (Option<VoterId>, u64, Index) {
        (self.leader, self.term, self.log.last().0)
    }

    /// Whether this machine leads, and whether it has stepped aside.
    pub const fn leading(&self) -> Option<bool> {
        match self.standing {
            Standing::Leader { quiet, .. } => Some(quiet),
            _ => None,
        }
    }

    /// Whether this machine waits for votes.
    pub const fn standing_for_election(&self) -> bool {
        matches!(self.standing, Standing::Candidate { .. })
    }

    /// The entries in the log that no snapshot holds.
    pub fn entries(&self) -> usize {
        self.log.len()
    }

    /// The log up to an applied index becomes a snapshot.
    pub fn compact(&mut self, state: &Rc<State>) {
        if self.log.compact(state.applied.min(self.handed), state) {
            self.write(Write::Compact(state.applied, Rc::clone(state)));
        }
    }

    /// The core calls an election.
    pub fn elect(&mut self, now: Nanos) {
        let fresh = self.leader.is_some_and(|leader| leader != self.me) && now < self.heard + self.lease_ns;
        if fresh || matches!(self.standing, Standing::Leader { .. }) {
            return;
        }
        self.term += 1;
        self.voted = Some(self.me);
        self.leader = None;
        self.standing = Standing::Candidate { granted: self.me.bit() };
        let write = self.write(Write::Vote(self.term, self.voted));
        let (index, term) = self.log.last();
        for peer in self.peers() {
            self.waiting.push((write, peer, RaftMessage::Vote { term: self.term, last: (term, index) }));
        }
    }

    /// A leader stops its heartbeats.
    pub fn step_aside(&mut self) {
        if let Standing::Leader { quiet, .. } = &mut self.standing {
            *quiet = true;
        }
    }

    /// Nobody took over: the leader goes on.
    pub fn resume(&mut self) {
        if let Standing::Leader { quiet, .. } = &mut self.standing {
            *quiet = false;
        }
    }

    /// Appends a proposal, when this machine leads.
    pub fn propose(&mut self, entry: Entry) -> Result<(), Entry> {
        if !matches!(self.standing, Standing::Leader { .. }) {
            return Err(entry);
        }
        self.append(Some(entry));
        self.replicate_all();
        Ok(())
    }

    /// The leader's heartbeat, when due.
    pub fn tick(&mut self) {
        if matches!(self.standing, Standing::Leader { quiet: false, .. }) {
            self.replicate_all();
        }
    }

    /// A write has become durable; `last` is the last index on the disk then.
    pub fn written(&mut self, write: u64, last: Index) {
        self.durable = self.durable.max(write);
        let mut index = 0;
        while index < self.waiting.len() {
            if self.waiting[index].0 <= write {
                let (_, to, message) = self.waiting.remove(index);
                self.outputs.push(Output::Send(to, message));
            } else {
                index += 1;
            }
        }
        let me = usize::from(self.me.0);
        if let Standing::Leader { matched, first_write, .. } = &mut self.standing
            && write >= *first_write
        {
            matched[me] = matched[me].max(last);
            self.advance();
        }
    }

    /// A message arrived.
    pub fn message(&mut self, now: Nanos, from: VoterId, message: RaftMessage) {
        match message {
            RaftMessage::Append { term, previous, entries, commit } => {
                if self.follow(now, from, term) {
                    self.on_append(from, previous, &entries, commit);
                }
            }
            RaftMessage::Appended { term, matched, index } => self.on_appended(from, term, matched, index),
            RaftMessage::Vote { term, last } => self.on_vote(now, from, term, last),
            RaftMessage::Voted { term, granted } => self.on_voted(from, term, granted),
            RaftMessage::Snapshot { term, last, state } => {
                if self.follow(now, from, term) {
                    self.on_snapshot(from, last, &state);
                }
            }
            RaftMessage::Forward(entry) => {
                if let Err(entry) = self.propose(entry) {
                    self.outputs.push(Output::Send(from, RaftMessage::NotLeader(entry)));
                }
            }
            RaftMessage::NotLeader(_) => {}
        }
    }

    fn peers(&self) -> Vec<VoterId> {
        self.voters.iter().copied().filter(|&voter| voter != self.me).collect()
    }

    fn write(&mut self, write: Write) -> u64 {
        self.writes += 1;
        self.outputs.push(Output::Write(self.writes, write));
        self.writes
    }

    fn append(&mut self, entry: Option<Entry>) {
        let entry = LogEntry { term: self.term, entry };
        let from = self.log.last().0 + 1;
        self.log.append(from, std::slice::from_ref(&entry));
        self.write(Write::Append(from, vec![entry].into()));
    }

    /// A message of a leader: adopt its term, or tell it that it is deposed.
    fn follow(&mut self, now: Nanos, from: VoterId, term: u64) -> bool {
        if term < self.term {
            let reply = RaftMessage::Appended { term: self.term, matched: false, index: self.log.last().0 };
            self.outputs.push(Output::Send(from, reply));
            return false;
        }
        if term > self.term {
            self.term = term;
            self.voted = Some(from);
            self.write(Write::Vote(term, self.voted));
        }
        self.standing = Standing::Follower;
        self.leader = Some(from);
        self.heard = now;
        true
    }

    fn depose(&mut self, term: u64) {
        if term > self.term {
            self.term = term;
            self.voted = None;
            self.standing = Standing::Follower;
            self.leader = None;
            self.write(Write::Vote(term, None));
        }
    }

    fn on_append(&mut self, from: VoterId, previous: (Index, u64), entries: &Rc<[LogEntry]>, commit: Index) {
        let Some(matched) = self.log.merge(previous, entries) else {
            let index = self.log.last().0.min(previous.0.saturating_sub(1));
            self.reply_when_durable(from, RaftMessage::Appended { term: self.term, matched: false, index });
            return;
        };
        if let Some((at, new)) = matched.appended {
            self.write(Write::Append(at, new));
        }
        self.reply_when_durable(from, RaftMessage::Appended { term: self.term, matched: true, index: matched.last });
        self.commit_to(commit.min(matched.last));
    }

    /// An answer waits for all the writes before it.
    fn reply_when_durable(&mut self, to: VoterId, reply: RaftMessage) {
        if self.durable == self.writes {
            self.outputs.push(Output::Send(to, reply));
        } else {
            self.waiting.push((self.writes, to, reply));
        }
    }

    fn on_snapshot(&mut self, from: VoterId, last: (Index, u64), state: &Rc<State>) {
        if self.log.term(last.0) == Some(last.1) {
            // The entries after it may have been acknowledged already: they stay.
            self.commit_to(last.0);
        } else if last.0 > self.commit {
            self.log.replace(last, state);
            self.commit = last.0;
            self.handed = last.0;
            self.write(Write::Replace(last, Rc::clone(state)));
            self.outputs.push(Output::Restore(Rc::clone(state)));
        }
        self.reply_when_durable(from, RaftMessage::Appended { term: self.term, matched: true, index: last.0 });
    }

    fn on_vote(&mut self, now: Nanos, from: VoterId, term: u64, last: (u64, Index)) {
        let (index, last_term) = self.log.last();
        let leader_lives = match self.standing {
            Standing::Leader { quiet, .. } => !quiet,
            _ => self.leader.is_some_and(|leader| leader != from) && now < self.heard + self.lease_ns,
        };
        let voted_other = term == self.term && self.voted.is_some_and(|voted| voted != from);
        if term < self.term || leader_lives || voted_other || last < (last_term, index) {
            self.outputs.push(Output::Send(from, RaftMessage::Voted { term: self.term, granted: false }));
            return;
        }
        self.depose(term);
        self.voted = Some(from);
        self.leader = None;
        let write = self.write(Write::Vote(self.term, self.voted));
        self.waiting.push((write, from, RaftMessage::Voted { term: self.term, granted: true }));
    }

    fn on_voted(&mut self, from: VoterId, term: u64, granted: bool) {
        if term > self.term {
            self.depose(term);
            return;
        }
        let needed = majority(self.voters.len());
        let Standing::Candidate { granted: yes } = &mut self.standing else {
            return;
        };
        if term != self.term || !granted {
            return;
        }
        *yes |= from.bit();
        if usize::try_from(yes.count_ones()).unwrap_or(0) < needed {
            return;
        }
        let next = [self.log.last().0 + 1; ROWS];
        self.standing = Standing::Leader { next, matched: [0; ROWS], first_write: self.writes + 1, quiet: false };
        self.leader = Some(self.me);
        self.append(None);
        self.replicate_all();
    }

    fn on_appended(&mut self, from: VoterId, term: u64, matches: bool, index: Index) {
        if term > self.term {
            self.depose(term);
            return;
        }
        let last = self.log.last().0;
        let Standing::Leader { next, matched, .. } = &mut self.standing else {
            return;
        };
        let row = usize::from(from.0);
        if term < self.term || row >= ROWS {
            return;
        }
        if matches {
            matched[row] = matched[row].max(index.min(last));
            next[row] = next[row].max(matched[row] + 1);
            self.advance();
        } else {
            next[row] = (index + 1).clamp(matched[row] + 1, last + 1);
            self.replicate(from);
        }
    }

    fn replicate_all(&mut self) {
        for peer in self.peers() {
            self.replicate(peer);
        }
    }

    fn replicate(&mut self, to: VoterId) {
        let Standing::Leader { next, .. } = &self.standing else {
            return;
        };
        let from = next[usize::from(to.0)];
        let message = match (self.log.suffix(from), self.log.snapshot()) {
            (Some((previous, entries)), _) => {
                RaftMessage::Append { term: self.term, previous, entries, commit: self.commit }
            }
            (None, Some(state)) => RaftMessage::Snapshot { term: self.term, last: self.log.base(), state },
            (None, None) => return,
        };
        self.outputs.push(Output::Send(to, message));
    }

    /// The leader commits what a majority has, when it is of its own term.
    fn advance(&mut self) {
        let Standing::Leader { matched, .. } = &self.standing else {
            return;
        };
        let mut indices: Vec<Index> = self.voters.iter().map(|voter| matched[usize::from(voter.0)]).collect();
        indices.sort_unstable_by(|a, b| b.cmp(a));
        let index = indices.get(majority(indices.len()) - 1).copied().unwrap_or(0);
        if index > self.commit && self.log.term(index) == Some(self.term) {
            self.commit_to(index);
            self.replicate_all();
        }
    }

    fn commit_to(&mut self, index: Index) {
        if index > self.commit {
            self.commit = index;
            self.write(Write::Committed(index));
            self.hand_out();
        }
    }

    fn hand_out(&mut self) {
        while self.handed < self.commit {
            self.handed += 1;
            let entry = self.log.entry(self.handed);
            self.outputs.push(Output::Apply(self.handed, entry));
        }
    }
}
