//! What the driver tells of itself: the status report and the numbers of a scrape.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::driver::Driver;
use crate::{
    api::status::{
        FrontStatus, GroupStatus, LeaseStatus, Life, LinkStatus, MoveStatus, NodeRun, StatusReport, VipStatus,
        VoterStatus,
    },
    cluster::{
        command::GateRole,
        entry::{Scope, Switch},
        ids::{GroupId, Incarnation, Nanos, Role, VoterId},
        state::{GroupState, Held},
        timing::majority,
    },
    config::{Config, Group, Voter},
    kernel::{Hook, Mechanism, PeerView},
    telemetry::{
        log2::Log2,
        metrics::{GroupMetrics, LeaseMetrics, LinkMetrics, PeerMetrics, Snapshot},
    },
};

/// What does not change while the agent runs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The configuration.
    pub config: Arc<Config>,
    /// The other voters.
    pub peers: Vec<VoterId>,
    /// This agent's incarnation.
    pub incarnation: Incarnation,
    /// When it started.
    pub started: Nanos,
    /// The device of each backplane link.
    pub backplane: Vec<String>,
}

impl Driver {
    /// The status report.
    pub(super) fn status(&self, now: Nanos) -> StatusReport {
        let config = &self.facts.config;
        let raft = self.quorum.view();
        let voters: Vec<VoterStatus> = config.shared.voters.values().map(|v| self.voter_status(now, v)).collect();
        let alive = voters.iter().filter(|v| v.life == Life::Alive).count();
        let lease_end = self.kernel.tables().lease_end();
        let mut report = StatusReport {
            cluster: config.shared.name.clone(),
            node: config.this.name.to_string(),
            id: self.me,
            role: self.role(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            incarnation: self.facts.incarnation,
            uptime_ns: now.saturating_sub(self.facts.started),
            interval_ns: self.timing.interval_ns,
            lease_ns: self.timing.lease_ns,
            quorum: raft.leader.is_some() && alive >= majority(voters.len()),
            leader: raft.leader.map(|l| self.name(l)),
            term: raft.term,
            applied: self.core.state().applied,
            gate_index: self.kernel.tables().gate_index(),
            lease: LeaseStatus {
                held: lease_end > now,
                remaining_ns: lease_end.saturating_sub(now),
                enforced: self.kernel.enforced(),
                lapsed: self.pulse.lapses.load(Relaxed),
            },
            voters,
            groups: config.shared.groups.values().map(|g| self.group_status(now, g)).collect(),
            maintenance: self.core.state().switches.contains(&Switch::Maintenance(Scope::Cluster)),
            fronts: self.front_statuses(),
            warnings: config.warnings.clone(),
        };
        report.warnings.extend(self.kernel.hooks().iter().filter_map(|hook| {
            let why = hook.fallback.as_ref()?;
            Some(format!("{} is attached by tc instead of XDP: {why}", hook.device.name))
        }));
        report.warnings.extend(self.gate_warnings());
        report.find_warnings();
        report
    }

    /// What stands beside or before the gate: other people's programs on the front.
    fn gate_warnings(&self) -> Vec<String> {
        let mut found = Vec::new();
        match self.kernel.bypasses() {
            Ok(bypasses) => found.extend(bypasses.iter().map(|(device, program)| {
                format!(
                    "XDP program {program} on {} is not Baton's: what it answers or redirects never meets the gate",
                    device.name
                )
            })),
            Err(error) => found.push(format!("whether an XDP program bypasses the gate cannot be told: {error}")),
        }
        let gates = self.kernel.hooks().iter().filter(|hook| hook.program.starts_with("gate_"));
        found.extend(gates.filter(|hook| hook.is_first() == Some(false)).map(|hook| {
            let device = &hook.device.name;
            format!(
                "{} is not the first tc program on {device}: one before it may take packets past the gate",
                hook.program
            )
        }));
        found
    }

    fn role(&self) -> Role {
        self.facts.config.me().map_or(Role::Arbiter, |me| me.role)
    }

    fn name(&self, voter: VoterId) -> String {
        self.facts.config.shared.name_of(voter).to_string()
    }

    /// How long a voter may say nothing before it counts as silent in the status.
    fn patience(&self) -> Nanos {
        self.timing.hold_ns().max(5 * self.timing.interval_ns)
    }

    fn life(&self, now: Nanos, row: &PeerView) -> Life {
        if row.last_seen == 0 {
            Life::NeverSeen
        } else if now.saturating_sub(row.last_seen) > self.patience() {
            Life::Silent
        } else if now.saturating_sub(row.token_since) > self.timing.wedge_ns {
            Life::Wedged
        } else {
            Life::Alive
        }
    }

    fn voter_status(&self, now: Nanos, voter: &Voter) -> VoterStatus {
        let me = voter.id == self.me;
        let row = self.kernel.tables().peer_view(voter.id);
        let heard = !me && row.last_seen != 0;
        let on_record = self.core.state().voters.get(&voter.id);
        let front_up = if me {
            Some(self.network.fronts_up())
        } else {
            self.core.report_of(voter.id).map(|report| report.front_up)
        };
        VoterStatus {
            id: voter.id,
            name: voter.name.to_string(),
            role: voter.role,
            me,
            life: if me { Life::Alive } else { self.life(now, &row) },
            last_seen_ns: heard.then(|| now.saturating_sub(row.last_seen)),
            incarnation: on_record.map_or(0, |v| v.incarnation),
            holds_lease: if me {
                Some(self.kernel.tables().lease_end() > now)
            } else {
                heard.then_some(row.holds_lease)
            },
            standby: on_record.is_some_and(|v| v.standby),
            maintenance: self.core.state().in_maintenance(voter.id),
            same_configuration: heard.then_some(row.digest == self.facts.config.digest as u32),
            front_up: front_up.filter(|_| voter.role == Role::Node),
            links: if me { Vec::new() } else { self.link_statuses(now, voter) },
        }
    }

    fn link_statuses(&self, now: Nanos, voter: &Voter) -> Vec<LinkStatus> {
        let tables = self.kernel.tables();
        let rows = voter.links.iter().enumerate();
        rows.map(|(number, link)| {
            let row = tables.link_view(voter.id, number).unwrap_or_default();
            let rtt = Log2 { buckets: row.rtt, sum_ns: Some(row.rtt_sum) };
            let device = self.facts.backplane.get(number);
            let hook = self
                .kernel
                .hooks()
                .iter()
                .find(|h| Some(&h.device.name) == device && matches!(h.program, "beat_ingress" | "beat_xdp"));
            LinkStatus {
                address: link.address.to_string(),
                hook: hook.map_or("none", mechanism).to_owned(),
                up: row.last_seen != 0 && now.saturating_sub(row.last_seen) <= self.patience(),
                last_seen_ns: (row.last_seen != 0).then(|| now.saturating_sub(row.last_seen)),
                rtt_p50_ns: rtt.quantile(0.5),
                rtt_p99_ns: rtt.quantile(0.99),
                received: row.received,
                lost: row.lost,
            }
        })
        .collect()
    }

    fn group_status(&self, now: Nanos, group: &Group) -> GroupStatus {
        let state = self.core.state().groups.get(&group.id);
        let serving = self.serving(now, &group.id);
        let explanation = self.core.explain(&group.id);
        let owner = state.and_then(|s| s.owner);
        let candidates = explanation.iter().flat_map(|e| &e.candidates);
        let against = candidates.clone().filter(|c| !c.against.is_empty());
        GroupStatus {
            name: group.id.to_string(),
            owner: owner.map(|o| self.name(o)),
            epoch: state.map_or(0, |s| s.epoch),
            cause: state.filter(|s| s.since != 0).map(|s| s.cause),
            moving_to: state.and_then(|s| s.movement).map(|m| self.name(m.to)),
            draining_on: state.and_then(|s| s.drain).map(|node| self.name(node)),
            last_move: self.moves.last(&group.id).map(|m| MoveStatus {
                from: m.from.map(|from| self.name(from)),
                to: self.name(m.to),
                epoch: m.epoch,
                stage: m.stage,
                steers: m.steers,
                prepared_ns: m.ready_ns,
                moved_ns: m.diverted_ns,
                drained: m.drained,
            }),
            serving_here: serving,
            why: self.why(now, group, state, serving),
            stopped: self.core.state().stopped(&group.id),
            maintenance: self.core.state().switches.contains(&Switch::Maintenance(Scope::Group(group.id.clone()))),
            unmanaged: self.core.state().unmanaged(&group.id).into_iter().collect(),
            runs: self.node_runs(&group.id),
            vips: group.vips.iter().map(|vip| self.vip_status(vip)).collect(),
            candidates: candidates
                .filter(|c| c.against.is_empty() && Some(c.node) != owner)
                .map(|c| self.name(c.node))
                .collect(),
            against: against.map(|c| (self.name(c.node), c.against.clone())).collect(),
        }
    }

    /// How the group's resources run on the nodes of which that is known: this one.
    fn node_runs(&self, group: &GroupId) -> Vec<NodeRun> {
        let run = self.runs.get(group).map(|run| NodeRun { node: self.name(self.me), run: run.clone() });
        run.into_iter().collect()
    }

    /// Whether the gate passes the group's packets at this instant.
    fn serving(&self, now: Nanos, group: &GroupId) -> bool {
        let tables = self.kernel.tables();
        let open = self.slots.of(group).is_some_and(|slot| matches!(tables.gate_state(slot).1, GateRole::Owner { .. }));
        open && tables.lease_end() > now
    }

    fn why(&self, now: Nanos, group: &Group, state: Option<&GroupState>, serving: bool) -> String {
        let Some(state) = state else {
            return "the log does not know the group yet: there was no leader since it was configured".to_owned();
        };
        match state.owner {
            Some(owner) if owner == self.me && serving => "this node is its owner and holds a lease".to_owned(),
            Some(owner) if owner == self.me => {
                if self.kernel.tables().lease_end() <= now {
                    "this node is its owner but holds no lease: a majority of voters does not acknowledge it".to_owned()
                } else {
                    "this node is its owner, but its gate is closed: the group is being given up or is still stopping"
                        .to_owned()
                }
            }
            Some(owner) => format!("{} is its owner", self.name(owner)),
            None if self.core.state().held(&group.id).is_some() => {
                let held = self.core.state().held(&group.id).map_or_else(String::new, |why| self.held(why));
                format!("nobody shall own it: {held}")
            }
            None => {
                let against = self.core.explain(&group.id).map(|e| e.candidates).unwrap_or_default();
                let against: Vec<String> = against
                    .iter()
                    .filter(|c| !c.against.is_empty())
                    .map(|c| {
                        let reasons: Vec<String> = c.against.iter().map(ToString::to_string).collect();
                        format!("{}: {}", self.name(c.node), reasons.join(", "))
                    })
                    .collect();
                if against.is_empty() { "the leader is about to assign it".to_owned() } else { against.join("; ") }
            }
        }
    }

    /// A switch in words, with the names of nodes.
    fn held(&self, why: Held) -> String {
        match why {
            Held::Owner(node) => format!("{} is in maintenance", self.name(node)),
            Held::Stopped | Held::Cluster | Held::Group => why.to_string(),
        }
    }

    fn vip_status(&self, vip: &crate::config::Vip) -> VipStatus {
        let device = vip.device.get(&self.me).cloned().unwrap_or_default();
        VipStatus {
            address: format!("{}/{}", vip.address, vip.prefix),
            present: self.network.has(&device, vip.address),
            device,
        }
    }

    fn front_statuses(&self) -> Vec<FrontStatus> {
        let gate = |device: &str| {
            let hook = self.kernel.hooks().iter().find(|h| h.device.name == device && h.program == "gate_ingress");
            hook.map_or("none", mechanism).to_owned()
        };
        let fronts = self.network.fronts();
        fronts.map(|(device, up)| FrontStatus { device: device.to_owned(), up, gate: gate(device) }).collect()
    }

    /// The numbers of a scrape.
    pub(super) fn metrics(&self, now: Nanos) -> Snapshot {
        let config = &self.facts.config;
        let tables = self.kernel.tables();
        let status = self.status(now);
        let lease_end = tables.lease_end();
        let mut discarded =
            [("forged", 0), ("malformed", 0), ("other_cluster", 0), ("stray", 0), ("outdated", 0), ("miswired", 0)];
        for link in 0..self.facts.backplane.len() {
            let Some(c) = tables.counters_view(link) else { continue };
            let counts = [c.forged, c.malformed, c.other_cluster, c.stray, c.outdated, c.miswired];
            discarded.iter_mut().zip(counts).for_each(|(sum, count)| sum.1 += count);
        }
        Snapshot {
            cluster: config.shared.name.clone(),
            node: config.this.name.to_string(),
            quorum: status.quorum,
            leader: status.leader,
            term: status.term,
            applied: status.applied,
            gate_index: status.gate_index,
            lease: LeaseMetrics {
                margin_ns: (lease_end != 0).then(|| lease_end.cast_signed() - now.cast_signed()),
                lapsed: status.lease.lapsed,
                enforced: status.lease.enforced,
            },
            peers: status.voters.iter().filter(|v| !v.me).map(|v| self.peer_metrics(v)).collect(),
            groups: status.groups.iter().map(|g| self.group_metrics(g)).collect(),
            discarded: discarded.to_vec(),
            rejected: self.channel.counters().all(),
            pulse_late_max_ns: self.pulse.late_max.load(Relaxed),
            pulses_late: self.pulse.late.load(Relaxed),
            entries_refused: self.entries_refused,
            maintenance: self.maintenances(),
        }
    }

    /// What is in maintenance: the kind of scope, and its name.
    fn maintenances(&self) -> Vec<(&'static str, String)> {
        let scopes = self.core.state().switches.iter().filter_map(|switch| match switch {
            Switch::Maintenance(scope) => Some(scope),
            Switch::Stopped(_) | Switch::Unmanaged(..) => None,
        });
        let named = scopes.map(|scope| match scope {
            Scope::Cluster => ("cluster", String::new()),
            Scope::Node(node) => ("node", self.name(*node)),
            Scope::Group(group) => ("group", group.to_string()),
        });
        named.collect()
    }

    fn peer_metrics(&self, voter: &VoterStatus) -> PeerMetrics {
        let tables = self.kernel.tables();
        let links = (0..voter.links.len()).filter_map(|link| tables.link_view(voter.id, link));
        PeerMetrics {
            name: voter.name.clone(),
            alive: voter.life == Life::Alive,
            holds_lease: voter.holds_lease == Some(true),
            last_seen_ns: voter.last_seen_ns,
            links: links
                .map(|row| LinkMetrics {
                    received: row.received,
                    lost: row.lost,
                    reordered: row.reordered,
                    replayed: row.replayed,
                    acknowledged: row.answered,
                    acknowledgements: row.acknowledged,
                    rtt: Log2 { buckets: row.rtt, sum_ns: Some(row.rtt_sum) },
                    interarrival: Log2 { buckets: row.gap, sum_ns: Some(row.gap_sum) },
                })
                .collect(),
        }
    }

    fn group_metrics(&self, group: &GroupStatus) -> GroupMetrics {
        let slot = self.slots.of(&GroupId::new(&group.name));
        let counters = slot.and_then(|slot| self.kernel.tables().gate_counters(slot));
        GroupMetrics {
            name: group.name.clone(),
            owner: group.owner.clone(),
            epoch: group.epoch,
            serving: group.serving_here,
            vips: group.vips.len(),
            draining_on: group.draining_on.clone(),
            stopped: group.stopped,
            run: self.runs.get(&GroupId::new(&group.name)).cloned(),
            steering: counters.map_or_else(Vec::new, |row| {
                vec![
                    ("to_peer", row.steered),
                    ("from_peer", row.taken),
                    ("sent_back", row.bounced),
                    ("new_to_peer", row.new_steered),
                    ("drained", row.drained),
                    ("no_path", row.no_path),
                    ("refused", row.dropped_backplane),
                ]
            }),
            gate_drops: counters.map_or_else(Vec::new, |row| {
                vec![("ingress", row.dropped_ingress), ("egress", row.dropped_egress), ("other", row.dropped_other)]
            }),
        }
    }
}

fn mechanism(hook: &Hook) -> &'static str {
    match hook.mechanism {
        Mechanism::Tcx => "tcx",
        Mechanism::Clsact => "clsact",
        Mechanism::Xdp => "xdp",
    }
}
