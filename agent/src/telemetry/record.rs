//! One failover as the flight recorder keeps it: who, why, and when each phase was reached.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::{
    cluster::{
        entry::Cause,
        ids::{Epoch, GroupId, Nanos, VoterId},
    },
    config::duration,
};

/// What the executor and the shell report; the core's part comes as [`crate::cluster::command::Fact`]s.
///
/// Each is sent with the instant at which it happened, which may be earlier than the call: the kernel stamps its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The last valid heartbeat of a voter arrived; sent when the voter is found silent.
    LastBeat {
        /// The voter.
        node: VoterId,
    },
    /// The gate map says that this node owns the group.
    GateOpen {
        /// The group.
        group: GroupId,
        /// The epoch.
        epoch: Epoch,
    },
    /// The gate map says that this node does not own the group any more.
    GateClosed {
        /// The group.
        group: GroupId,
        /// The epoch that ended here.
        epoch: Epoch,
    },
    /// All VIPs of the group stand on their devices.
    AddressesAdded {
        /// The group.
        group: GroupId,
        /// The epoch.
        epoch: Epoch,
        /// How many.
        count: usize,
    },
    /// The first gratuitous ARP or unsolicited NA of each VIP has been sent.
    Announced {
        /// The group.
        group: GroupId,
        /// The epoch.
        epoch: Epoch,
    },
    /// A resource of the group runs.
    ResourceStarted {
        /// The group.
        group: GroupId,
        /// The epoch.
        epoch: Epoch,
        /// The resource's name.
        resource: String,
    },
    /// All of the group runs here.
    Started {
        /// The group.
        group: GroupId,
        /// The epoch.
        epoch: Epoch,
    },
    /// The group could not be started here.
    StartFailed {
        /// The group.
        group: GroupId,
        /// The epoch.
        epoch: Epoch,
        /// Why.
        reason: String,
    },
    /// Nothing of the group runs here any more.
    Stopped {
        /// The group.
        group: GroupId,
        /// The epoch that ended here.
        epoch: Epoch,
    },
    /// The gate passed the first packet of a client at this epoch.
    FirstPacket {
        /// The group.
        group: GroupId,
        /// The epoch.
        epoch: Epoch,
    },
}

impl Mark {
    /// The phase that it reaches, and what there is to say about it.
    pub(super) fn phase(&self) -> (PhaseName, String) {
        match self {
            Self::LastBeat { .. } => (PhaseName::LastBeat, String::new()),
            Self::GateOpen { .. } => (PhaseName::GateOpen, String::new()),
            Self::GateClosed { .. } => (PhaseName::GateClosed, String::new()),
            Self::AddressesAdded { count, .. } => (PhaseName::AddressAdded, format!("{count} VIPs")),
            Self::Announced { .. } => (PhaseName::Announced, String::new()),
            Self::ResourceStarted { resource, .. } => (PhaseName::ResourceStarted, resource.clone()),
            Self::Started { .. } => (PhaseName::Started, String::new()),
            Self::StartFailed { reason, .. } => (PhaseName::StartFailed, reason.clone()),
            Self::Stopped { .. } => (PhaseName::Stopped, String::new()),
            Self::FirstPacket { .. } => (PhaseName::FirstPacket, String::new()),
        }
    }

    /// The group and epoch that it is about; `None` for what is about a node.
    pub(super) fn place(&self) -> Option<(&GroupId, Epoch)> {
        match self {
            Self::LastBeat { .. } => None,
            Self::GateOpen { group, epoch }
            | Self::GateClosed { group, epoch }
            | Self::AddressesAdded { group, epoch, .. }
            | Self::Announced { group, epoch }
            | Self::ResourceStarted { group, epoch, .. }
            | Self::Started { group, epoch }
            | Self::StartFailed { group, epoch, .. }
            | Self::Stopped { group, epoch }
            | Self::FirstPacket { group, epoch } => Some((group, *epoch)),
        }
    }
}

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
    /// The old owner had given the group up, by the log.
    Released,
    /// The change of owner was committed, and applied here.
    Committed,
    /// The gate here closed.
    GateClosed,
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
        format!("#{} {} {what}, because {cause}; {} in all, seen by {}", self.seq, wall(self.wall_ns), duration::show(round_us(self.total_ns)), self.recorded_by)
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

/// A wall-clock instant as `2026-01-31 12:34:56.789Z` (proleptic Gregorian, UTC).
pub fn wall(nanos: u64) -> String {
    let (seconds, millis) = (nanos / 1_000_000_000, nanos / 1_000_000 % 1_000);
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{millis:03}Z", clock / 3_600, clock / 60 % 60, clock % 60)
}

/// Year, month and day of a day counted from 1970-01-01, by eras of 400 years that begin on the first of March.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_is_right() {
        assert_eq!(wall(0), "1970-01-01 00:00:00.000Z");
        assert_eq!(wall(951_782_400_000_000_000), "2000-02-29 00:00:00.000Z");
        assert_eq!(wall(1_735_689_599_999_000_000), "2024-12-31 23:59:59.999Z");
        assert_eq!(wall(4_107_542_400_000_000_000), "2100-03-01 00:00:00.000Z");
    }

    #[test]
    fn labels_are_the_names_in_json() {
        for cause in [Cause::Initial, Cause::Silent, Cause::NoLease, Cause::Wedged, Cause::FrontDown, Cause::Order, Cause::Standby, Cause::Shutdown, Cause::Resource, Cause::Restart] {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause_label(cause));
        }
        for phase in [PhaseName::LastBeat, PhaseName::FloorRaised, PhaseName::AddressAdded, PhaseName::FirstPacket, PhaseName::StartFailed, PhaseName::ResourceStarted] {
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.as_str());
        }
    }
}
