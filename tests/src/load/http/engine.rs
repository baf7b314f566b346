//! The load's loop: what is due, what is ready, what took too long.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::Result;
use baton::{clock, cluster::ids::Nanos};
use mio::{Events, Poll, Token};

use super::{
    PATIENCE, Shared, Spec,
    connection::{Connection, Found},
};
use crate::load::{
    netstat::Tcp,
    record::{Event, Kind, Reason},
};

/// Between two looks at counters and at requests that take too long.
const SWEEP_NS: Nanos = 100_000_000;
/// A connection that broke is opened anew after this.
const REOPEN_NS: Nanos = 20_000_000;
/// New connections that may be open at once: far above what a service in order leaves open.
const FRESH_MAX: usize = 4096;

/// What is due at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// The long-lived connection with this number is opened, or asks; of its so many-eth life.
    Kept(usize, u32),
    /// A new connection is opened.
    Fresh,
    /// Counters are read and late requests given up.
    Sweep,
}

/// A long-lived connection, through all its lives.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    token: Option<Token>,
    /// Times that it was opened anew: what was due in an earlier life is void.
    life: u32,
    /// Whether it ever had an answer.
    answered: bool,
}

pub(super) struct Engine {
    spec: Spec,
    shared: Arc<Shared>,
    poll: Poll,
    events: Events,
    due: BinaryHeap<Reverse<(Nanos, Due)>>,
    connections: HashMap<Token, Connection>,
    kept: Vec<Kept>,
    fresh: usize,
    next: usize,
    /// The worst lateness since the last sweep.
    worst: Option<(Nanos, Nanos)>,
}

impl Engine {
    pub(super) fn new(spec: Spec, shared: Arc<Shared>) -> Result<Self> {
        let now = clock::now();
        shared.log().tcp.push((now, Tcp::here()?));
        let mut due = BinaryHeap::from([Reverse((now + SWEEP_NS, Due::Sweep))]);
        let ramp = spec.ramp.as_nanos() as Nanos;
        for slot in 0..spec.kept {
            due.push(Reverse((now + ramp * slot as Nanos / spec.kept as Nanos, Due::Kept(slot, 0))));
        }
        if spec.fresh_per_second > 0 {
            due.push(Reverse((now + ramp, Due::Fresh)));
        }
        let kept = vec![Kept::default(); spec.kept];
        let (poll, events) = (Poll::new()?, Events::with_capacity(1024));
        let connections = HashMap::new();
        Ok(Self { spec, shared, poll, events, due, connections, kept, fresh: 0, next: 0, worst: None })
    }

    /// Runs until told to stop, or to finish and nothing is on its way any more.
    pub(super) fn run(&mut self) -> Result<()> {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let finishing = self.shared.finish.load(Ordering::Relaxed);
            if finishing && !self.connections.values().any(Connection::asked) {
                break;
            }
            let now = clock::now();
            while let Some(Reverse((at, due))) = self.due.peek().copied()
                && at <= now
            {
                self.due.pop();
                self.meet(at, due, finishing)?;
            }
            let next = self.due.peek().map_or(SWEEP_NS, |Reverse((at, _))| at.saturating_sub(clock::now()));
            match self.poll.poll(&mut self.events, Some(Duration::from_nanos(next.min(SWEEP_NS)))) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            let ready: Vec<Token> = self.events.iter().map(|event| event.token()).collect();
            for token in ready {
                self.look(token);
            }
        }
        self.shared.log().tcp.push((clock::now(), Tcp::here()?));
        Ok(())
    }

    fn meet(&mut self, at: Nanos, due: Due, finishing: bool) -> Result<()> {
        match due {
            Due::Sweep => {
                self.sweep()?;
                self.due.push(Reverse((clock::now() + SWEEP_NS, Due::Sweep)));
            }
            _ if finishing => {}
            Due::Fresh => {
                let every = 1_000_000_000 / Nanos::from(self.spec.fresh_per_second);
                self.due.push(Reverse((at + every, Due::Fresh)));
                if self.fresh < FRESH_MAX {
                    self.late(at);
                    self.open(Kind::Fresh, 0);
                } else {
                    self.shared.note(Kind::Fresh, Event::Failed(Reason::TimedOut));
                }
            }
            Due::Kept(slot, life) if life == self.kept[slot].life => self.kept_due(at, slot),
            Due::Kept(..) => {}
        }
        Ok(())
    }

    fn kept_due(&mut self, at: Nanos, slot: usize) {
        let Kept { token, life, .. } = self.kept[slot];
        let Some(token) = token else {
            self.open(Kind::Kept, slot);
            return;
        };
        let every = self.spec.every.as_nanos() as Nanos;
        let now = clock::now();
        // A period that was missed is left out, as a client that waits for its answer does.
        self.due.push(Reverse(((at + every).max(now.saturating_sub(every)), Due::Kept(slot, life))));
        let Some(connection) = self.connections.get_mut(&token) else { return };
        if !connection.made || connection.asked() || connection.closing {
            return;
        }
        self.late(at);
        self.ask(token);
    }

    fn late(&mut self, at: Nanos) {
        let now = clock::now();
        if self.worst.is_none_or(|(due, sent)| now.saturating_sub(at) > sent - due) {
            self.worst = Some((at.min(now), now));
        }
    }

    fn open(&mut self, kind: Kind, slot: usize) {
        let token = Token(self.next);
        self.next += 1;
        let made = Connection::connect(self.poll.registry(), token, self.spec.target, kind, slot, clock::now());
        match made {
            Ok(connection) => {
                self.connections.insert(token, connection);
                match kind {
                    Kind::Kept => self.kept[slot].token = Some(token),
                    Kind::Fresh => self.fresh += 1,
                }
            }
            Err(error) => {
                self.unopened(kind, Reason::of(&error));
                self.again(kind, slot, REOPEN_NS);
            }
        }
    }

    fn unopened(&self, kind: Kind, reason: Reason) {
        self.shared.note(kind, Event::Unopened(reason));
        if kind == Kind::Fresh {
            self.shared.note(kind, Event::Failed(reason));
        }
    }

    /// Opens a long-lived connection anew after a while.
    fn again(&mut self, kind: Kind, slot: usize, after: Nanos) {
        if kind == Kind::Kept {
            let kept = &mut self.kept[slot];
            (kept.token, kept.life) = (None, kept.life.wrapping_add(1));
            self.due.push(Reverse((clock::now() + after, Due::Kept(slot, kept.life))));
        }
    }

    fn ask(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        self.next += 1;
        // Half of the new connections are closed by the server, the other half by the client.
        let close = connection.kind == Kind::Fresh && token.0.is_multiple_of(2);
        let question = format!("{}-{}", token.0, self.next);
        if let Err(error) = connection.ask(question, close, clock::now()) {
            self.fail(token, Reason::of(&error));
        }
    }

    fn look(&mut self, token: Token) {
        // Readiness is told once: look until nothing is found any more.
        while let Some(connection) = self.connections.get_mut(&token) {
            let (kind, slot, began) = (connection.kind, connection.slot, connection.began);
            match connection.look() {
                Ok(Found::Nothing) => return,
                Ok(Found::Opened) => {
                    self.shared.note(kind, Event::Opened);
                    match kind {
                        Kind::Fresh => self.ask(token),
                        // It asks now, and from now on at its own phase.
                        Kind::Kept => self.due.push(Reverse((clock::now(), Due::Kept(slot, self.kept[slot].life)))),
                    }
                }
                Ok(Found::Answered(by, closes)) => {
                    let took_ns = clock::now().saturating_sub(began);
                    self.shared.note(kind, Event::Answered { took_ns, by });
                    if kind == Kind::Kept && !std::mem::replace(&mut self.kept[slot].answered, true) {
                        self.shared.alive.fetch_add(1, Ordering::Relaxed);
                    }
                    if kind == Kind::Fresh && !closes {
                        self.remove(token);
                    }
                }
                Ok(Found::Closed) => {
                    let announced = connection.closing;
                    self.remove(token);
                    if kind == Kind::Kept {
                        self.shared.note(kind, if announced { Event::Reopened } else { Event::IdleClosed });
                        self.again(kind, slot, 0);
                    } else if !announced {
                        self.shared.note(kind, Event::Broken(Reason::ClosedEarly));
                        self.shared.note(kind, Event::Failed(Reason::ClosedEarly));
                    }
                }
                Err(error) => self.fail(token, Reason::of(&error)),
            }
        }
    }

    /// Counts what a connection's end cost, and opens a long-lived one anew.
    fn fail(&mut self, token: Token, reason: Reason) {
        let Some(connection) = self.remove(token) else { return };
        let (kind, slot) = (connection.kind, connection.slot);
        if !connection.made {
            self.unopened(kind, reason);
        } else {
            self.shared.note(kind, Event::Broken(reason));
            if connection.asked() {
                self.shared.note(kind, Event::Failed(reason));
            }
        }
        self.again(kind, slot, REOPEN_NS);
    }

    fn remove(&mut self, token: Token) -> Option<Connection> {
        let mut connection = self.connections.remove(&token)?;
        connection.forget(self.poll.registry());
        if connection.kind == Kind::Fresh {
            self.fresh -= 1;
        }
        Some(connection)
    }

    fn sweep(&mut self) -> Result<()> {
        let now = clock::now();
        let patience = PATIENCE.as_nanos() as Nanos;
        let waits = |c: &Connection| !c.made || c.asked() || c.closing;
        let overdue = self.connections.iter().filter(|(_, c)| waits(c) && now.saturating_sub(c.began) > patience);
        let overdue: Vec<Token> = overdue.map(|(token, _)| *token).collect();
        for token in overdue {
            self.fail(token, Reason::TimedOut);
        }
        let counters = Tcp::here()?;
        let mut log = self.shared.log();
        log.tcp.push((now, counters));
        log.late.extend(self.worst.take());
        Ok(())
    }
}
