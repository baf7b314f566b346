//! For unit tests: one core of a formed cluster of two nodes and an arbiter, and the view that it is shown.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    command::Command,
    core::{Core, GroupSettings, Mutations, Settings},
    entry::{Cause, Entry},
    ids::{GroupId, Index, MILLISECOND, Nanos, Role, VoterId},
    message::{Message, Report},
    timing::Timing,
    view::{PeerView, RaftView, View},
};

pub(super) const A: VoterId = VoterId(1);
pub(super) const B: VoterId = VoterId(2);
pub(super) const ARBITER: VoterId = VoterId(3);

/// The group of the bench.
pub(super) fn web() -> GroupId {
    GroupId::new("web")
}

/// One core under test.
pub(super) struct Bench {
    pub(super) core: Core,
    pub(super) now: Nanos,
    pub(super) view: View,
    /// Peers whose beats arrive and are acknowledged at each [`Bench::pass_ms`].
    pub(super) beating: BTreeSet<VoterId>,
    /// Peers whose beats show no progress.
    pub(super) wedged: BTreeSet<VoterId>,
    me: VoterId,
    sequence: u64,
}

impl Bench {
    /// A core that has applied everything up to A's ownership of the group at epoch 1 (log index 5).
    pub(super) fn new(me: VoterId) -> Self {
        Self::with(me, Mutations::default())
    }

    pub(super) fn with(me: VoterId, mutations: Mutations) -> Self {
        let mut bench = Self::unstarted(me, mutations);
        for entry in formation() {
            bench.apply(&entry);
        }
        bench.pass_ms(100);
        for from in bench.others() {
            bench.report(from, |_| {});
        }
        bench.settle();
        bench.stopped(0);
        bench.settle();
        bench
    }

    /// A core that knows nothing yet.
    pub(super) fn unstarted(me: VoterId, mutations: Mutations) -> Self {
        let voters = vec![(A, Role::Node), (B, Role::Node), (ARBITER, Role::Arbiter)];
        let role = if me == ARBITER { Role::Arbiter } else { Role::Node };
        let settings = Settings {
            me,
            role,
            voters,
            groups: vec![GroupSettings::anywhere("web")],
            rooms: BTreeMap::new(),
            timing: Timing::QUICK,
            incarnation: 1,
            adopted: BTreeMap::new(),
            mutations,
        };
        Self::of(settings)
    }

    pub(super) fn of(settings: Settings) -> Self {
        let me = settings.me;
        let now = 5_000 * MILLISECOND;
        let others: BTreeSet<_> = settings.voters.iter().map(|(v, _)| *v).filter(|v| *v != me).collect();
        let peer = PeerView {
            floor: Index::MAX,
            incarnation: 1,
            holds_lease: true,
            gate_index: 100,
            log_index: 5,
            leader: Some(B),
            term: 1,
            ..PeerView::default()
        };
        let view = View {
            peers: others.iter().map(|v| (*v, peer)).collect(),
            lease_end: Nanos::MAX,
            front_up: true,
            raft: RaftView { leader: Some(B), term: 1, log_index: 5 },
            ..View::default()
        };
        let core = Core::new(settings, now);
        Self { core, now, view, beating: others, wedged: BTreeSet::new(), me, sequence: 0 }
    }

    fn others(&self) -> Vec<VoterId> {
        self.view.peers.keys().copied().collect()
    }

    pub(super) fn peer(&mut self, id: VoterId) -> &mut PeerView {
        self.view.peers.get_mut(&id).unwrap()
    }

    pub(super) fn apply(&mut self, entry: &Entry) -> Index {
        let index = self.core.state().applied + 1;
        self.core.on_applied(self.now, index, Some(entry));
        index
    }

    pub(super) fn apply_all(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.apply(entry);
        }
    }

    /// The executor says that it stopped the group.
    pub(super) fn stopped(&mut self, epoch: u64) {
        self.core.on_stopped(self.now, &web(), epoch);
    }

    /// A report of `from`, as it would be in a healthy cluster but for `change`.
    pub(super) fn report(&mut self, from: VoterId, change: impl FnOnce(&mut Report)) {
        self.sequence += 1;
        let applied = self.core.state().applied;
        let incarnation = self.view.peers[&from].incarnation;
        let mut report = Report {
            incarnation,
            sequence: self.sequence,
            applied,
            ready: true,
            front_up: true,
            same_configuration: true,
            knows_release_to: true,
            ..Report::default()
        };
        change(&mut report);
        self.core.on_message(self.now, from, Message::Report(report));
    }

    /// One step, with nothing carried out.
    pub(super) fn step(&mut self) -> Vec<Command> {
        without_reports(self.core.step(self.now, &self.view))
    }

    /// Steps until nothing comes, carrying out what the view shows. Returns all commands but reports.
    pub(super) fn settle(&mut self) -> Vec<Command> {
        let mut all = Vec::new();
        for _ in 0..20 {
            let commands = self.core.step(self.now, &self.view);
            if commands.is_empty() {
                return all;
            }
            for command in &commands {
                if let Command::SetFloor { peer, floor } = command {
                    self.peer(*peer).floor = *floor;
                }
            }
            all.extend(without_reports(commands));
        }
        panic!("the core of {} never settles: {all:?}", self.me);
    }

    /// Lets time go by, with beats each millisecond from those that beat; steps only at the core's own deadlines.
    pub(super) fn pass_ms(&mut self, ms: u64) -> Vec<Command> {
        let mut all = Vec::new();
        for _ in 0..ms {
            self.now += MILLISECOND;
            let now = self.now;
            for (id, peer) in &mut self.view.peers {
                if self.beating.contains(id) {
                    peer.last_seen = now;
                    if !self.wedged.contains(id) {
                        peer.token_since = now;
                    }
                    if peer.gate_index >= peer.floor {
                        peer.last_acknowledged = now;
                    }
                }
            }
            if self.core.next_deadline().is_some_and(|at| at <= now) {
                all.extend(self.settle());
            }
        }
        all
    }
}

/// The entries that form the bench's cluster.
pub(super) fn formation() -> [Entry; 5] {
    let voters = vec![(A, Role::Node), (B, Role::Node), (ARBITER, Role::Arbiter)];
    let barrier = |voter| Entry::Barrier { voter, incarnation: 1 };
    [
        Entry::Configure { voters, groups: vec![web()], lease_ns: Timing::QUICK.lease_ns },
        barrier(A),
        barrier(B),
        barrier(ARBITER),
        Entry::Assign { group: web(), epoch: 0, to: A, cause: Cause::Initial },
    ]
}

fn without_reports(commands: Vec<Command>) -> Vec<Command> {
    let is_report = |c: &Command| matches!(c, Command::Send { message: Message::Report(_), .. });
    commands.into_iter().filter(|c| !is_report(c)).collect()
}

/// The messages among the commands.
pub(super) fn messages(commands: &[Command]) -> Vec<(VoterId, Message)> {
    let sent = |c: &Command| match c {
        Command::Send { to, message } => Some((*to, message.clone())),
        _ => None,
    };
    commands.iter().filter_map(sent).collect()
}

/// The proposals among the commands.
pub(super) fn proposals(commands: &[Command]) -> Vec<Entry> {
    let proposed = |c: &Command| match c {
        Command::Propose(entry) => Some(entry.clone()),
        _ => None,
    };
    commands.iter().filter_map(proposed).collect()
}
