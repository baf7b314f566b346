//! A small world for the scenarios: hosts with a kernel's floors and leases, links that can be cut, and one agreed log.
//!
//! Simpler than raft: an entry is committed as soon as its proposer reaches a leader that reaches a majority. Clocks agree.

use std::collections::{BTreeMap, BTreeSet};

use rand::{SeedableRng, rngs::SmallRng};

use crate::cluster::{
    command::{Command, Fact},
    core::{Core, GroupSettings, Mutations, Settings},
    entry::Entry,
    ids::{Epoch, GroupId, Index, MILLISECOND, Nanos, Role, VoterId},
    message::Message,
    placement::Room,
    state::State,
    timing::{Timing, majority},
    view::PeerView,
};

mod work;

/// How far time goes at once.
pub(super) const TICK: Nanos = MILLISECOND / 2;

pub(super) struct Host {
    pub(super) core: Core,
    /// The agent runs.
    pub(super) up: bool,
    /// The machine runs: its kernel acknowledges and enforces.
    pub(super) powered: bool,
    /// The agent beats, but its core does nothing.
    pub(super) wedged: bool,
    pub(super) front_up: bool,
    pub(super) failing: BTreeSet<GroupId>,
    /// What the core asked for, all of it, but reports.
    pub(super) done: Vec<(Nanos, Command)>,
    peers: BTreeMap<VoterId, PeerView>,
    acks: BTreeMap<VoterId, Nanos>,
    pub(super) lease_end: Nanos,
    pub(super) gates: BTreeMap<GroupId, Epoch>,
    gate_index: Index,
    incarnation: u64,
    started_at: Nanos,
    token_at: Nanos,
    /// Entries of the log that this host has applied.
    applied: usize,
    known: (Option<VoterId>, u64),
    inbox: Vec<(Nanos, VoterId, Message)>,
    reports: Vec<(Nanos, GroupId, Epoch, Report)>,
}

#[derive(Clone, Copy)]
enum Report {
    Started,
    Failed,
    Stopped,
    Received,
    Drained,
}

pub(super) struct Lab {
    pub(super) now: Nanos,
    pub(super) hosts: BTreeMap<VoterId, Host>,
    pub(super) log: Vec<(u64, Option<Entry>)>,
    /// Entries that wait to be appended, possibly for ever: their fate is unknown to whoever proposed them.
    limbo: Vec<(Nanos, Entry)>,
    pub(super) term: u64,
    leader: Option<VoterId>,
    cut: BTreeSet<(VoterId, VoterId)>,
    settings: Settings,
    pub(super) overlaps: Vec<String>,
    /// Random delays, duplicates and losses of messages; an executor and a log that lag.
    pub(super) chaos: bool,
    pub(super) rng: SmallRng,
}

pub(super) fn v(id: u8) -> VoterId {
    VoterId(id)
}

pub(super) fn g() -> GroupId {
    GroupId::new("web")
}

impl Lab {
    /// Two nodes (1, 2) and an arbiter (3), one group.
    pub(super) fn new() -> Self {
        Self::with(&[Role::Node, Role::Node, Role::Arbiter], vec![GroupSettings::anywhere("web")], 0)
    }

    pub(super) fn with(roles: &[Role], groups: Vec<GroupSettings>, seed: u64) -> Self {
        let voters: Vec<_> = (1..).map(VoterId).zip(roles.iter().copied()).collect();
        let timing = Timing::QUICK;
        let mutations = Mutations::default();
        let (me, role, incarnation, adopted) = (v(1), Role::Node, 1, BTreeMap::new());
        let rooms = BTreeMap::new();
        let settings = Settings { me, role, voters, groups, rooms, timing, incarnation, adopted, mutations };
        let mut lab = Self {
            now: 1_000_000_000,
            hosts: BTreeMap::new(),
            log: Vec::new(),
            limbo: Vec::new(),
            term: 0,
            leader: None,
            cut: BTreeSet::new(),
            settings,
            overlaps: Vec::new(),
            chaos: false,
            rng: SmallRng::seed_from_u64(seed),
        };
        for (id, _) in lab.settings.voters.clone() {
            lab.boot(id);
        }
        lab
    }

    /// Starts all cores anew, with this room.
    pub(super) fn rooms(&mut self, rooms: BTreeMap<VoterId, Room>) {
        self.settings.rooms = rooms;
        self.mutate(Mutations::default());
    }

    pub(super) fn mutate(&mut self, mutations: Mutations) {
        self.settings.mutations = mutations;
        for id in self.ids() {
            self.hosts.remove(&id);
            self.boot(id);
        }
    }

    pub(super) fn ids(&self) -> Vec<VoterId> {
        self.settings.voters.iter().map(|(v, _)| *v).collect()
    }

    /// Starts the agent of `id` anew (and the machine, if it was off).
    pub(super) fn boot(&mut self, id: VoterId) {
        let old = self.hosts.remove(&id);
        let incarnation = old.as_ref().map_or(1, |h| h.incarnation + 1);
        let role = self.settings.voters.iter().find(|(v, _)| *v == id).unwrap().1;
        let settings = Settings { me: id, role, incarnation, ..self.settings.clone() };
        let peer = |old: Option<PeerView>| PeerView { floor: u64::MAX, ..old.unwrap_or_default() };
        let others = self.ids().into_iter().filter(|v| *v != id);
        let peers =
            others.map(|v| (v, peer(old.as_ref().map(|h| PeerView { last_acknowledged: 0, ..h.peers[&v] })))).collect();
        let host = Host {
            core: Core::new(settings, self.now),
            up: true,
            powered: true,
            wedged: false,
            front_up: true,
            failing: BTreeSet::new(),
            done: Vec::new(),
            peers,
            acks: BTreeMap::new(),
            lease_end: 0,
            gates: BTreeMap::new(),
            gate_index: 0,
            incarnation,
            started_at: self.now,
            token_at: self.now,
            applied: 0,
            known: (None, old.as_ref().map_or(0, |h| h.known.1)),
            inbox: Vec::new(),
            reports: Vec::new(),
        };
        self.hosts.insert(id, host);
        if self.leader == Some(id) {
            self.leader = None;
        }
    }

    /// Kills the agent; the kernel goes on.
    pub(super) fn kill(&mut self, id: VoterId) {
        self.host(id).up = false;
    }

    /// Switches the machine off.
    pub(super) fn power_off(&mut self, id: VoterId) {
        let host = self.host(id);
        host.up = false;
        host.powered = false;
        host.gates.clear();
    }

    pub(super) fn host(&mut self, id: VoterId) -> &mut Host {
        self.hosts.get_mut(&id).unwrap()
    }

    pub(super) fn core(&self, id: u8) -> &Core {
        &self.hosts[&v(id)].core
    }

    /// Cuts or mends the one-way link.
    pub(super) fn cut(&mut self, from: u8, to: u8, cut: bool) {
        if cut {
            self.cut.insert((v(from), v(to)));
        } else {
            self.cut.remove(&(v(from), v(to)));
        }
    }

    /// Cuts or mends everything to and from `id`.
    pub(super) fn isolate(&mut self, id: u8, cut: bool) {
        for other in self.ids().into_iter().filter(|o| *o != v(id)) {
            self.cut(id, other.0, cut);
            self.cut(other.0, id, cut);
        }
    }

    fn linked(&self, a: VoterId, b: VoterId) -> bool {
        a == b || (!self.cut.contains(&(a, b)) && !self.cut.contains(&(b, a)))
    }

    fn lives(&self, id: VoterId) -> bool {
        self.hosts[&id].up && !self.hosts[&id].wedged
    }

    fn reaches_majority(&self, id: VoterId) -> bool {
        let reached = self.ids().into_iter().filter(|v| self.lives(*v) && self.linked(id, *v)).count();
        self.lives(id) && reached >= majority(self.settings.voters.len())
    }

    pub(super) fn leader(&self) -> Option<VoterId> {
        self.leader.filter(|l| self.reaches_majority(*l))
    }

    pub(super) fn state(&self) -> State {
        let newest = self.hosts.values().filter(|h| h.up).max_by_key(|h| h.core.state().applied);
        newest.map(|h| h.core.state().clone()).unwrap_or_default()
    }

    /// The node that serves the group now: gate open, lease valid.
    pub(super) fn server(&self) -> Option<VoterId> {
        self.servers(&g()).first().copied()
    }

    fn servers(&self, group: &GroupId) -> Vec<VoterId> {
        let serves = |h: &Host| h.powered && h.gates.contains_key(group) && h.lease_end > self.now;
        self.hosts.iter().filter(|(_, h)| serves(h)).map(|(id, _)| *id).collect()
    }

    fn audit(&mut self) {
        for group in self.settings.groups.clone() {
            let servers = self.servers(&group.id);
            if servers.len() > 1 {
                self.overlaps.push(format!("{} ms: {servers:?} both serve {}", self.now / MILLISECOND, group.id));
            }
        }
    }

    pub(super) fn run_ms(&mut self, ms: u64) {
        let end = self.now + ms * MILLISECOND;
        while self.now < end {
            self.tick();
        }
    }

    /// Runs until the condition holds; fails after `limit_ms` of the lab's time.
    pub(super) fn until(&mut self, limit_ms: u64, what: &str, condition: impl Fn(&Lab) -> bool) {
        let end = self.now + limit_ms * MILLISECOND;
        while !condition(self) {
            assert!(self.now < end, "within {limit_ms} ms: {what}; state {:#?}", self.state());
            self.tick();
        }
    }

    pub(super) fn tick(&mut self) {
        self.now += TICK;
        self.append_limbo();
        if self.now.is_multiple_of(self.settings.timing.interval_ns) {
            for id in self.ids() {
                self.beat(id);
            }
        }
        for _ in 0..60 {
            let mut quiet = true;
            for id in self.ids() {
                quiet &= !self.work(id);
            }
            if quiet {
                return;
            }
        }
        let done = self.hosts.iter().map(|(id, h)| (id, h.done.iter().rev().take(12).collect::<Vec<_>>()));
        assert!(self.chaos, "the cores never settle: {:?}", done.collect::<Vec<_>>());
    }

    fn beat(&mut self, id: VoterId) {
        let now = self.now;
        let (lease_ns, voters) = (self.settings.timing.lease_ns, self.settings.voters.len());
        let log_index = self.hosts[&id].applied as u64;
        let host = self.host(id);
        if !host.up {
            return;
        }
        if !host.wedged {
            host.token_at = now;
        }
        let (holds_lease, gate_index, incarnation, known) =
            (host.lease_end > now, host.gate_index, host.incarnation, host.known);
        let token_at = host.token_at;
        for to in self.ids().into_iter().filter(|o| *o != id) {
            if self.cut.contains(&(id, to)) || !self.hosts[&to].powered {
                continue;
            }
            let peer = self.host(to).peers.get_mut(&id).unwrap();
            let floor = peer.floor;
            *peer = PeerView {
                last_seen: now,
                incarnation,
                holds_lease,
                gate_index,
                log_index,
                token_since: token_at,
                leader: known.0,
                term: known.1,
                ..*peer
            };
            if gate_index >= floor {
                peer.last_acknowledged = now;
                if !self.cut.contains(&(to, id)) {
                    self.host(id).acks.insert(to, now);
                }
            }
        }
        let host = self.host(id);
        let mut stamps: Vec<Nanos> = host.acks.values().copied().chain([now]).collect();
        stamps.sort_unstable_by(|a, b| b.cmp(a));
        if let Some(stamp) = stamps.get(majority(voters) - 1) {
            host.lease_end = host.lease_end.max(stamp + lease_ns);
        }
        self.audit();
    }

    /// When `id` last was asked for what `wanted` picks.
    pub(super) fn last(&self, id: u8, wanted: impl Fn(&Command) -> bool) -> Option<Nanos> {
        self.hosts[&v(id)].done.iter().rev().find(|(_, c)| wanted(c)).map(|(at, _)| *at)
    }

    /// Whether `id` recorded the fact.
    pub(super) fn recorded(&self, id: u8, fact: &Fact) -> bool {
        self.last(id, |c| *c == Command::Record(fact.clone())).is_some()
    }

    pub(super) fn assert_safe(&self) {
        assert!(self.overlaps.is_empty(), "{:?}", self.overlaps);
    }

    /// Ends all faults, and whatever lags.
    pub(super) fn mend(&mut self) {
        self.chaos = false;
        self.cut.clear();
        for id in self.ids() {
            if !self.hosts[&id].up {
                self.boot(id);
            }
            let host = self.host(id);
            host.wedged = false;
            host.front_up = true;
        }
    }

    /// Takes every node off standby, by the log itself.
    pub(super) fn all_online(&mut self) {
        let nodes = self.settings.voters.iter().filter(|(_, role)| *role == Role::Node);
        let entries = nodes.map(|(node, _)| (self.term, Some(Entry::Standby { node: *node, on: false })));
        self.log.extend(entries);
    }

    /// Whether every group has a server.
    pub(super) fn all_served(&self) -> bool {
        self.settings.groups.iter().all(|g| self.servers(&g.id).len() == 1)
    }
}
