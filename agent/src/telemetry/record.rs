//! One failover as the flight recorder keeps it: who, why, and when each phase was reached.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::{
    cluster::{
        entry::Cause,
        ids::{Epoch, Nanos},
    },
    config::duration,
    telemetry::wall::wall,
};

/// The phases of a failover. Also the `phase` label of the duration metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseName {
    /// The last heartbeat of the old owner arrived.
    LastBeat,
    /// The hold on the old owner ran out without a new acknowledgement.
    Silent,
    /// The leader began a round.
    Round,
    /// This voter raised its floor.
    FloorRaised,
    /// A voter promised.
    Promised,
    /// The leader proposed the conclusion.
    Proposed,
    /// A resource failed on the owner.
    ResourceFailed,
    /// The old owner had given the group up, by the log.
    Released,
    /// A planned move began.
    Prepared,
    /// Its target can receive.
    Ready,
    /// The owner forwards new flows.
    Diverted,
    /// The change of owner was committed, and applied here.
    Committed,
    /// The gate here closed.
    GateClosed,
    /// Open flows go on here, although another node owns the group.
    Draining,
    /// Nothing runs here any more.
    Stopped,
    /// The gate here opened.
    GateOpen,
    /// The VIPs stand on their devices.
    AddressAdded,
    /// The VIPs were announced.
    Announced,
    /// A resource was started.
    ResourceStarted,
    /// Everything runs.
    Started,
    /// Something could not be started.
    StartFailed,
    /// The first packet of a client passed the gate.
    FirstPacket,
}

impl PhaseName {
    /// The name in metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LastBeat => "last_beat",
            Self::Silent => "silent",
            Self::Round => "round",
            Self::FloorRaised => "floor_raised",
            Self::Promised => "promised",
            Self::Proposed => "proposed",
            Self::Released => "released",
            Self::Committed => "committed",
            Self::GateClosed => "gate_closed",
            Self::ResourceFailed => "resource_failed",
            Self::Prepared => "prepared",
            Self::Ready => "ready",
            Self::Diverted => "diverted",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::GateOpen => "gate_open",
            Self::AddressAdded => "address_added",
            Self::Announced => "announced",
            Self::ResourceStarted => "resource_started",
            Self::Started => "started",
            Self::StartFailed => "start_failed",
            Self::FirstPacket => "first_packet",
        }
    }

    /// What people read.
    const fn sentence(self) -> &'static str {
        match self {
            Self::LastBeat => "last heartbeat",
            Self::Silent => "found silent",
            Self::Round => "round began",
            Self::FloorRaised => "floor raised here",
            Self::Promised => "promised",
            Self::Proposed => "conclusion proposed",
            Self::Released => "released by its owner",
            Self::Committed => "new owner committed",
            Self::GateClosed => "gate closed here",
            Self::ResourceFailed => "a resource failed here",
            Self::Prepared => "move began",
            Self::Ready => "target ready",
            Self::Diverted => "new flows forwarded from here",
            Self::Draining => "open flows go on here",
            Self::Stopped => "stopped here",
            Self::GateOpen => "gate open here",
            Self::AddressAdded => "addresses added",
            Self::Announced => "announced",
            Self::ResourceStarted => "resource started",
            Self::Started => "all started",
            Self::StartFailed => "start failed",
            Self::FirstPacket => "first packet of a client",
        }
    }
}

/// One phase of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// Which.
    pub phase: PhaseName,
    /// When, on this machine's CLOCK_BOOTTIME, in nanoseconds.
    pub at_ns: Nanos,
    /// Nanoseconds since the phase before it; 0 for the first.
    pub took_ns: Nanos,
    /// Who promised, which resource, why it failed; often empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// One failover (or planned move, or first start) of one group, as seen from one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// A number that grows with each record of this machine, over restarts of the agent too.
    pub seq: u64,
    /// Which node recorded it.
    pub recorded_by: String,
    /// The group; `None`: a round about `from` that ended without moving anything.
    pub group: Option<String>,
    /// The epoch that began.
    pub epoch: Epoch,
    /// Why.
    pub cause: Cause,
    /// The old owner, or the node that the round was about.
    pub from: Option<String>,
    /// The new owner; `None`: nobody could take it.
    pub to: Option<String>,
    /// The wall clock at the first phase, in nanoseconds since 1970 (as this machine knew it).
    pub wall_ns: u64,
    /// From the first phase to the last.
    pub total_ns: Nanos,
    /// The phases in the order of time.
    pub phases: Vec<Phase>,
}

impl Record {
    /// When a phase was first reached.
    pub fn at(&self, name: PhaseName) -> Option<Nanos> {
        self.phases.iter().find(|p| p.phase == name).map(|p| p.at_ns)
    }

    /// A text of several lines for people: a head line, then one line a phase.
    pub fn render(&self) -> String {
        let mut out = self.head();
        for p in &self.phases {
            let since_start = p.at_ns - self.phases.first().map_or(p.at_ns, |f| f.at_ns);
            // Writing to a String cannot fail.
            _ = write!(out, "\n  {:>10}  {:>+10}  {}", offset(since_start), plus(p.took_ns), p.phase.sentence());
            if !p.detail.is_empty() {
                _ = write!(out, " ({})", p.detail);
            }
        }
        out
    }

    fn head(&self) -> String {
        let cause = cause_sentence(self.cause);
        let nobody = "nobody";
        let from = self.from.as_deref().unwrap_or(nobody);
        let what = match &self.group {
            Some(group) => format!("{group} epoch {}: {from} -> {}", self.epoch, self.to.as_deref().unwrap_or(nobody)),
            None => format!("a round about {from} that moved nothing"),
        };
        format!(
            "#{} {} {what}, because {cause}; {} in all, seen by {}",
            self.seq,
            wall(self.wall_ns),
            duration::show(round_us(self.total_ns)),
            self.recorded_by
        )
    }
}

fn offset(nanos: Nanos) -> String {
    duration::show(round_us(nanos))
}

fn plus(nanos: Nanos) -> String {
    format!("+{}", duration::show(round_us(nanos)))
}

/// To whole microseconds: below that the stamps mean nothing.
const fn round_us(nanos: Nanos) -> Nanos {
    (nanos + 500) / 1_000 * 1_000
}

/// Why, in words.
pub fn cause_sentence(cause: Cause) -> &'static str {
    match cause {
        Cause::Initial => "it had no owner yet",
        Cause::Silent => "the owner was silent",
        Cause::NoLease => "the owner held no lease",
        Cause::Wedged => "the owner's agent made no progress",
        Cause::FrontDown => "the owner's front link went down",
        Cause::Order => "an operator ordered it",
        Cause::Standby => "the owner was put on standby",
        Cause::Shutdown => "the owner's agent was stopped",
        Cause::Resource => "a resource failed on the owner",
        Cause::Restart => "the owner restarted",
    }
}

/// The cause as a label of metrics and in JSON.
pub fn cause_label(cause: Cause) -> &'static str {
    match cause {
        Cause::Initial => "initial",
        Cause::Silent => "silent",
        Cause::NoLease => "no_lease",
        Cause::Wedged => "wedged",
        Cause::FrontDown => "front_down",
        Cause::Order => "order",
        Cause::Standby => "standby",
        Cause::Shutdown => "shutdown",
        Cause::Resource => "resource",
        Cause::Restart => "restart",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_the_names_in_json() {
        for cause in [
            Cause::Initial,
            Cause::Silent,
            Cause::NoLease,
            Cause::Wedged,
            Cause::FrontDown,
            Cause::Order,
            Cause::Standby,
            Cause::Shutdown,
            Cause::Resource,
            Cause::Restart,
        ] {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause_label(cause));
        }
        for phase in [
            PhaseName::LastBeat,
            PhaseName::FloorRaised,
            PhaseName::AddressAdded,
            PhaseName::FirstPacket,
            PhaseName::StartFailed,
            PhaseName::ResourceStarted,
        ] {
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.as_str());
        }
    }
}
