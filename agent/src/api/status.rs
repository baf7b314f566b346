//! The status report: all that `baton status`, `/status` and the page show, and the warnings that follow from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    cluster::{
        entry::{Cause, DrainSummary},
        ids::{Epoch, Incarnation, Index, Nanos, Role, VoterId},
        placement::Unfit,
        timing::majority,
    },
    telemetry::run::{GroupRun, RunState},
};

/// The cluster as one agent sees it now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The cluster's name.
    pub cluster: String,
    /// This machine's name.
    pub node: String,
    /// This machine's number.
    pub id: VoterId,
    /// Node or arbiter.
    pub role: Role,
    /// The version of the running agent.
    pub version: String,
    /// This agent's incarnation.
    pub incarnation: Incarnation,
    /// How long this agent has run.
    pub uptime_ns: Nanos,
    /// The interval of the heartbeats.
    pub interval_ns: Nanos,
    /// The length of a lease.
    pub lease_ns: Nanos,
    /// Whether a majority of voters is alive and a leader is known.
    pub quorum: bool,
    /// The raft leader, by name.
    pub leader: Option<String>,
    /// The raft term.
    pub term: u64,
    /// The newest entry that is applied here.
    pub applied: Index,
    /// The newest entry that the gate here reflects.
    pub gate_index: Index,
    /// This machine's lease.
    pub lease: LeaseStatus,
    /// All voters, by number, this machine included.
    pub voters: Vec<VoterStatus>,
    /// All groups, by name.
    pub groups: Vec<GroupStatus>,
    /// Whether the cluster is in maintenance.
    #[serde(default)]
    pub maintenance: bool,
    /// This node's front devices.
    pub fronts: Vec<FrontStatus>,
    /// What an operator should know; [`StatusReport::find_warnings`] adds those that follow from the rest.
    pub warnings: Vec<String>,
}

/// This machine's lease.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// Whether it holds one now.
    pub held: bool,
    /// How long it will last from now on if nobody acknowledges any more.
    pub remaining_ns: Nanos,
    /// Whether the gate enforces it in the kernel.
    pub enforced: bool,
    /// How often it lapsed though nobody had promised against it.
    pub lapsed: u64,
}

/// How alive a voter is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Life {
    /// No heartbeat since this agent started.
    #[default]
    NeverSeen,
    /// Heartbeats arrive and the agent makes progress.
    Alive,
    /// Heartbeats arrive, but the agent behind them makes no progress.
    Wedged,
    /// Heartbeats stopped.
    Silent,
}

/// One voter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VoterStatus {
    /// Its number.
    pub id: VoterId,
    /// Its name.
    pub name: String,
    /// Node or arbiter.
    pub role: Role,
    /// Whether it is this machine.
    pub me: bool,
    /// How alive it is; this machine itself is alive.
    pub life: Life,
    /// How long ago its last heartbeat arrived; `None`: never, or this machine.
    pub last_seen_ns: Option<Nanos>,
    /// Its incarnation on record; 0: never started.
    pub incarnation: Incarnation,
    /// Whether it says that it holds a lease; `None`: not heard of.
    pub holds_lease: Option<bool>,
    /// Whether an operator put it on standby.
    pub standby: bool,
    /// Whether an operator put it into maintenance.
    #[serde(default)]
    pub maintenance: bool,
    /// Whether its configuration says the same as this machine's; `None`: not heard of.
    pub same_configuration: Option<bool>,
    /// Whether its front links are up; `None`: not heard of, or an arbiter.
    pub front_up: Option<bool>,
    /// The links to it, in the configuration's order; empty for this machine.
    pub links: Vec<LinkStatus>,
}

/// One backplane link to one voter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// The voter's address on it.
    pub address: String,
    /// The hook that measures: "tcx", "clsact", "xdp" or "none".
    pub hook: String,
    /// Whether heartbeats arrive on it.
    pub up: bool,
    /// How long ago the last one did.
    pub last_seen_ns: Option<Nanos>,
    /// Round trip, median.
    pub rtt_p50_ns: Option<Nanos>,
    /// Round trip, 99th percentile.
    pub rtt_p99_ns: Option<Nanos>,
    /// Heartbeats received.
    pub received: u64,
    /// Heartbeats that never came.
    pub lost: u64,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// Its owner by the log.
    pub owner: Option<String>,
    /// Its epoch.
    pub epoch: Epoch,
    /// Why the owner is the owner; `None`: it never had one.
    pub cause: Option<Cause>,
    /// A planned move under way: its target.
    pub moving_to: Option<String>,
    /// The node that still serves flows from before the last planned move.
    #[serde(default)]
    pub draining_on: Option<String>,
    /// The last planned move that this agent saw.
    #[serde(default)]
    pub last_move: Option<MoveStatus>,
    /// Whether this node passes its packets now.
    pub serving_here: bool,
    /// Why it is served here or not, in words.
    pub why: String,
    /// Whether an operator stopped it.
    #[serde(default)]
    pub stopped: bool,
    /// Whether an operator put the group itself into maintenance.
    #[serde(default)]
    pub maintenance: bool,
    /// Its resources that an operator took out of Baton's hands.
    #[serde(default)]
    pub unmanaged: Vec<String>,
    /// How its resources run, on each node that has said so.
    #[serde(default)]
    pub runs: Vec<NodeRun>,
    /// Its VIPs.
    pub vips: Vec<VipStatus>,
    /// The nodes that could take it now, the owner apart.
    pub candidates: Vec<String>,
    /// What stands against the other voters.
    #[serde(default)]
    pub against: BTreeMap<String, Vec<Unfit>>,
}

/// A group's resources on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRun {
    /// The node.
    pub node: String,
    /// Its resources there.
    #[serde(flatten)]
    pub run: GroupRun,
}

/// A planned move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveStatus {
    /// The node that had the group; `None` until it changed owner.
    pub from: Option<String>,
    /// The target.
    pub to: String,
    /// The epoch that it began, or would have.
    pub epoch: Epoch,
    /// How far it came.
    pub stage: MoveStage,
    /// Whether open flows go on.
    pub steers: bool,
    /// From its begin until the target could receive, ns; 0 until then.
    pub prepared_ns: Nanos,
    /// From then until the change of owner, ns; 0 until then.
    pub moved_ns: Nanos,
    /// What became of the flows on the old owner, once they have ended and it has said so.
    pub drained: Option<DrainSummary>,
}

/// How far a planned move came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MoveStage {
    /// The target prepares.
    Preparing,
    /// The target is ready.
    Ready,
    /// The group changed owner, and open flows drain.
    Draining,
    /// It is over.
    Done,
    /// It was given up before the group changed owner.
    Abandoned,
}

/// One VIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipStatus {
    /// Address and prefix length.
    pub address: String,
    /// Its device on this node; empty if it cannot run here.
    pub device: String,
    /// Whether it stands on the device now.
    pub present: bool,
}

/// One front device of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontStatus {
    /// The device.
    pub device: String,
    /// Whether its link is up.
    pub up: bool,
    /// How the gate is attached: "tcx", "clsact" or "none".
    pub gate: String,
}

impl GroupStatus {
    fn switch_warnings(&self) -> Vec<String> {
        let name = &self.name;
        let mut found: Vec<String> =
            self.blocked().map(|(node, why)| format!("{name} is blocked on {node}: {why}")).collect();
        if self.stopped {
            found.push(format!("{name} was stopped by an operator; `baton group start {name}` starts it"));
        }
        if self.maintenance {
            found.push(format!(
                "{name} is in maintenance: it is not moved, and what fails of it is only reported; `baton maintenance off --group \
                 {name}` ends it"
            ));
        }
        found.extend(self.unmanaged.iter().map(|r| {
            format!(
                "{r} of {name} is unmanaged: nobody starts or stops it; `baton resource manage {name} {r}` ends that"
            )
        }));
        for NodeRun { node, run } in &self.runs {
            found.extend(run.resources.iter().filter(|r| r.state == RunState::Failed).map(|r| {
                let why = r.last_error.as_deref().unwrap_or("see the log there");
                format!("{} of {name} has failed on {node}: {why}", r.name)
            }));
        }
        found
    }

    /// Where it can be neither stopped nor given up, and why.
    pub fn blocked(&self) -> impl Iterator<Item = (&str, &str)> {
        self.runs.iter().filter_map(|r| Some((&*r.node, r.run.blocked.as_deref()?)))
    }

    /// What an operator shall see first, in a few words each.
    pub fn remarks(&self) -> Vec<String> {
        let mut found: Vec<String> = self.blocked().map(|(node, _)| format!("BLOCKED on {node}")).collect();
        if self.stopped {
            found.push("stopped".to_owned());
        }
        if self.maintenance {
            found.push("maintenance".to_owned());
        }
        found.extend(self.unmanaged.iter().map(|resource| format!("{resource} unmanaged")));
        found
    }
}

impl StatusReport {
    /// How many voters are alive, this machine included.
    pub fn alive(&self) -> usize {
        self.voters.iter().filter(|v| v.life == Life::Alive).count()
    }

    /// Adds the warnings that follow from the report itself. Call it once, last.
    pub fn find_warnings(&mut self) {
        let found = [
            self.quorum_warnings(),
            self.lease_warnings(),
            self.voter_warnings(),
            self.group_warnings(),
            self.front_warnings(),
        ];
        for warning in found.into_iter().flatten() {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
    }

    fn quorum_warnings(&self) -> Vec<String> {
        let (all, alive, need) = (self.voters.len(), self.alive(), majority(self.voters.len()));
        let mut found = Vec::new();
        if alive < need {
            found.push(format!("no quorum: {alive} of {all} voters are alive and {need} are needed; nothing is served and nothing moves"));
        } else if !self.quorum {
            found.push("no leader is known: nothing can move until one is elected".into());
        } else if alive == need {
            found.push(format!("one failure from an outage: {alive} of {all} voters are alive and {need} are needed"));
        }
        if all.is_multiple_of(2) {
            found.push(format!(
                "an even number of voters ({all}) survives no more deaths than {}",
                all.saturating_sub(1)
            ));
        }
        found
    }

    fn lease_warnings(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.role == Role::Node && !self.lease.enforced {
            found
                .push("the lease is not enforced in the kernel: if this agent hangs, this node goes on serving".into());
        }
        if self.role == Role::Node && !self.lease.held {
            found.push("this node holds no lease, so it passes no packet of any VIP".into());
        }
        if self.lease.lapsed > 0 {
            found.push(format!("the lease lapsed {} times though nobody had promised: the interval is too short for this machine or its network", self.lease.lapsed));
        }
        found
    }

    fn voter_warnings(&self) -> Vec<String> {
        let mut found = Vec::new();
        for v in self.voters.iter().filter(|v| !v.me) {
            match v.life {
                Life::Alive => (),
                Life::NeverSeen => found.push(format!("{} was never heard", v.name)),
                Life::Silent => found.push(format!("{} is silent", v.name)),
                Life::Wedged => found.push(format!("the agent on {} makes no progress", v.name)),
            }
            if v.same_configuration == Some(false) {
                found.push(format!(
                    "the configuration of {} differs from the one here: make the files equal but for [this]",
                    v.name
                ));
            }
            if v.life == Life::Alive && v.front_up == Some(false) {
                found.push(format!("a front link of {} is down, so it cannot take over", v.name));
            }
            let down = v.links.iter().filter(|l| !l.up).count();
            if v.life == Life::Alive && down > 0 {
                found.push(format!("{down} of {} backplane links to {} are down", v.links.len(), v.name));
            }
        }
        found.extend(self.voters.iter().filter(|v| v.maintenance).map(|v| {
            format!(
                "{} is in maintenance: nothing moves from or to it; `baton maintenance off --node {}` ends it",
                v.name, v.name
            )
        }));
        found.extend(
            self.voters
                .iter()
                .filter(|v| v.standby)
                .map(|v| format!("{} is on standby; `baton online {}` ends it", v.name, v.name)),
        );
        found
    }

    fn group_warnings(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.maintenance {
            found.push(
                "the cluster is in maintenance: nothing moves, and what fails is only reported; `baton maintenance off` ends it"
                    .to_owned(),
            );
        }
        for g in &self.groups {
            found.extend(g.switch_warnings());
            match &g.owner {
                None if g.stopped => (),
                None => found.push(format!("{} has no owner: {}", g.name, g.why)),
                Some(owner) if g.candidates.is_empty() => {
                    found.push(format!("one failure from an outage: no node could take {} over from {owner}", g.name))
                }
                Some(owner) if *owner == self.node && !g.serving_here => {
                    found.push(format!("{} is owned here, but not served: {}", g.name, g.why))
                }
                Some(_) => (),
            }
            if g.serving_here {
                let absent = g
                    .vips
                    .iter()
                    .filter(|v| !v.present)
                    .map(|v| format!("{} does not stand on {}", v.address, v.device));
                found.extend(absent);
            }
        }
        found
    }

    fn front_warnings(&self) -> Vec<String> {
        let down = self.fronts.iter().filter(|f| !f.up);
        down.map(|f| format!("the front link {} is down", f.device)).collect()
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
