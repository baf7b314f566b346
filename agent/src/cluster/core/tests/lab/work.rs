//! What a host does in a tick: messages, reports of the executor, steps, and the commands that come of them.

use rand::Rng;

use super::{Lab, Report, TICK};
use crate::cluster::{
    command::{Command, GateRole},
    entry::{DrainSummary, Entry},
    ids::{MILLISECOND, Nanos, VoterId},
    message::Message,
    view::{RaftView, View},
};

impl Lab {
    /// Lets one host do what there is to do; returns whether it did anything.
    pub(super) fn work(&mut self, id: VoterId) -> bool {
        let now = self.now;
        if !self.lives(id) {
            return false;
        }
        let mut worked = self.replicate(id);
        let host = self.host(id);
        let (due, later) = std::mem::take(&mut host.inbox).into_iter().partition(|(at, ..)| *at <= now);
        host.inbox = later;
        let due: Vec<(Nanos, VoterId, Message)> = due;
        for (_, from, message) in due {
            worked = true;
            self.host(id).core.on_message(now, from, message);
        }
        let host = self.host(id);
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut host.reports).into_iter().partition(|r| r.0 <= now);
        host.reports = later;
        for (_, group, epoch, report) in due {
            worked = true;
            match report {
                Report::Started => host.core.on_started(now, &group, epoch),
                Report::Failed => host.core.on_start_failed(now, &group, epoch),
                Report::Received => host.core.on_received(now, &group, epoch),
                Report::Drained => host.core.on_drained(now, &group, epoch, DrainSummary::default()),
                Report::Stopped => host.core.on_stopped(now, &group, epoch),
            }
        }
        for step in 0.. {
            let view = self.view(id);
            let commands = self.host(id).core.step(now, &view);
            if commands.is_empty() {
                break;
            }
            assert!(step < 20, "core {id} never settles: {commands:?}");
            worked = true;
            for command in commands {
                self.carry_out(id, command);
                self.audit();
            }
        }
        let deadline = self.hosts[&id].core.next_deadline();
        assert!(deadline.is_none_or(|at| at > now), "core {id} wants to be stepped at once for ever");
        worked
    }

    fn view(&self, id: VoterId) -> View {
        let host = &self.hosts[&id];
        View {
            peers: host.peers.clone(),
            lease_end: host.lease_end,
            punctual_since: host.started_at,
            front_up: host.front_up,
            steers: u16::MAX,
            configuration_differs: false,
            raft: RaftView { leader: host.known.0, term: host.known.1, log_index: host.applied as u64 },
        }
    }

    /// Applies what the leader has told the host.
    fn replicate(&mut self, id: VoterId) -> bool {
        let Some(leader) = self.leader().filter(|l| self.linked(*l, id)) else {
            return false;
        };
        let now = self.now;
        let term = self.term;
        let lag = self.chaos && self.rng.random_bool(0.9);
        let log = self.log.clone();
        let host = self.host(id);
        let told = host.known == (Some(leader), term);
        host.known = (Some(leader), term);
        if lag || host.applied == log.len() {
            return !told;
        }
        let all = log.len();
        for (at, (_, entry)) in log.iter().enumerate().skip(host.applied) {
            host.core.on_applied(now, at as u64 + 1, entry.as_ref());
        }
        host.applied = all;
        true
    }

    pub(super) fn append_limbo(&mut self) {
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.limbo).into_iter().partition(|(at, _)| *at <= now);
        self.limbo = later;
        if self.leader().is_some() {
            let term = self.term;
            self.log.extend(due.into_iter().map(|(_, e)| (term, Some(e))));
        }
    }

    fn carry_out(&mut self, id: VoterId, command: Command) {
        let now = self.now;
        let chaos = self.chaos;
        let lag = if chaos { self.rng.random_range(0..40) * TICK } else { 0 };
        if !matches!(command, Command::Send { message: Message::Report(_), .. }) {
            self.host(id).done.push((now, command.clone()));
        }
        match command {
            Command::SetFloor { peer, floor } => self.host(id).peers.get_mut(&peer).unwrap().floor = floor,
            Command::SetGate { group, epoch, role: GateRole::Owner { .. } } => {
                self.host(id).gates.insert(group, epoch);
            }
            Command::SetGate { group, epoch, .. } => {
                let host = self.host(id);
                if host.gates.get(&group) == Some(&epoch) {
                    host.gates.remove(&group);
                }
            }
            Command::SetGateIndex(index) => self.host(id).gate_index = index,
            Command::Start { group, epoch, .. } => {
                let host = self.host(id);
                let report = if host.failing.contains(&group) { Report::Failed } else { Report::Started };
                host.reports.push((now + lag, group, epoch, report));
            }
            Command::Stop { group, epoch } => self.host(id).reports.push((now + lag, group, epoch, Report::Stopped)),
            Command::Receive { group, movement } => {
                self.host(id).reports.push((now + lag, group, movement, Report::Received));
            }
            Command::Drain { group, epoch } => {
                self.host(id).reports.push((now + 500 * MILLISECOND + lag, group, epoch, Report::Drained));
            }
            Command::Send { to, message } => self.send(id, to, message, lag),
            Command::Propose(entry) => self.propose(id, entry),
            Command::Elect => self.elect(id),
            Command::Halt(why) => panic!("core {id} halts: {why}"),
            Command::Announce { .. }
            | Command::Export { .. }
            | Command::StepAside { .. }
            | Command::Resume
            | Command::Record(_) => {}
        }
    }

    fn send(&mut self, from: VoterId, to: VoterId, message: Message, lag: Nanos) {
        if !self.linked(from, to) || !self.hosts[&to].up {
            return;
        }
        let now = self.now;
        if self.chaos {
            if self.rng.random_bool(0.1) {
                return;
            }
            if self.rng.random_bool(0.1) {
                let late = now + self.rng.random_range(0..400) * TICK;
                self.host(to).inbox.push((late, from, message.clone()));
            }
        }
        self.host(to).inbox.push((now + lag, from, message));
    }

    fn propose(&mut self, id: VoterId, entry: Entry) {
        let now = self.now;
        let reached = self.leader().is_some_and(|l| self.linked(l, id));
        if self.chaos && self.rng.random_bool(0.3) {
            let late = now + self.rng.random_range(0..200) * TICK;
            self.limbo.push((late, entry.clone()));
            if self.rng.random_bool(0.5) {
                self.host(id).core.on_proposal_failed(now, &entry);
            }
            return;
        }
        if let (true, Some(leader)) = (reached, self.leader()) {
            let entry = self.host(leader).core.complete(now, entry);
            self.log.push((self.term, Some(entry)));
        } else {
            self.host(id).core.on_proposal_failed(now, &entry);
        }
    }

    fn elect(&mut self, id: VoterId) {
        let complete = self.hosts[&id].applied == self.log.len() || self.leader().is_none();
        if self.reaches_majority(id) && complete {
            self.term += 1;
            self.leader = Some(id);
            self.log.push((self.term, None));
            let term = self.term;
            for other in self.ids() {
                if self.lives(other) && self.linked(id, other) {
                    self.host(other).known = (Some(id), term);
                }
            }
        }
    }
}
