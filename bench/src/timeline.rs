//! The time line of one change of owner, put together from what the agents recorded and what the client saw.
//!
//! All machines of a lab share one CLOCK_BOOTTIME, so stamps of different agents, of their gates and of the client's
//! kernel can be subtracted from each other.

use baton::{
    cluster::ids::{Epoch, Nanos},
    telemetry::record::{PhaseName, Record},
};

/// What is measured, from the decision on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Span {
    /// The new owner knows of the decision.
    Known,
    /// Its gate is open.
    GateOpen,
    /// All VIPs stand on their devices.
    Added,
    /// All VIPs are announced.
    Announced,
    /// The gate let a client's packet in.
    FirstPacket,
    /// The client's kernel received an answer of the new owner.
    FirstAnswer,
}

impl Span {
    /// All of them, in the usual order.
    pub const ALL: [Self; 6] =
        [Self::Known, Self::GateOpen, Self::Added, Self::Announced, Self::FirstPacket, Self::FirstAnswer];

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Known => "known_to_the_new_owner",
            Self::GateOpen => "gate_open",
            Self::Added => "addresses_added",
            Self::Announced => "announced",
            Self::FirstPacket => "first_packet",
            Self::FirstAnswer => "first_answer",
        }
    }

    /// What people read.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Known => "the new owner knows",
            Self::GateOpen => "its gate is open",
            Self::Added => "addresses added",
            Self::Announced => "all announced",
            Self::FirstPacket => "first packet let in",
            Self::FirstAnswer => "first answer at the client",
        }
    }
}

/// When what was reached, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// The first instant at which any voter had the change committed.
    pub decided: Nanos,
    reached: Vec<(Span, Nanos)>,
}

impl Timeline {
    /// The change of `epoch`, from the records of all voters; `None` while the new owner's own record is not told or
    /// lacks the commit. `answered`: when the client's kernel received the new owner's first answer.
    pub fn of(records: &[Record], epoch: Epoch, new_owner: &str, answered: Option<Nanos>) -> Option<Self> {
        let about = || records.iter().filter(|r| r.epoch == epoch && r.to.as_deref() == Some(new_owner));
        let own = about().find(|r| r.recorded_by == new_owner)?;
        let committed = own.at(PhaseName::Committed)?;
        let decided = about().filter_map(|r| r.at(PhaseName::Committed)).min()?;
        let phases = [
            (Span::GateOpen, PhaseName::GateOpen),
            (Span::Added, PhaseName::AddressAdded),
            (Span::Announced, PhaseName::Announced),
            (Span::FirstPacket, PhaseName::FirstPacket),
        ];
        let recorded = phases.into_iter().filter_map(|(span, phase)| Some((span, own.at(phase)?)));
        let mut reached: Vec<_> = [(Span::Known, committed)].into_iter().chain(recorded).collect();
        reached.extend(answered.map(|at| (Span::FirstAnswer, at)));
        Some(Self { decided, reached })
    }

    /// From the decision to `span`, in nanoseconds, if it was reached.
    pub fn since_decision(&self, span: Span) -> Option<Nanos> {
        self.reached.iter().find(|(s, _)| *s == span).map(|(_, at)| at.saturating_sub(self.decided))
    }

    /// The last instant of all.
    pub fn end(&self) -> Nanos {
        self.reached.iter().map(|(_, at)| *at).max().unwrap_or(self.decided)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton::{cluster::entry::Cause, telemetry::record::Phase};

    fn record(by: &str, epoch: Epoch, phases: &[(PhaseName, Nanos)]) -> Record {
        let phase = |(phase, at_ns): &(PhaseName, Nanos)| Phase {
            phase: *phase,
            at_ns: *at_ns,
            took_ns: 0,
            detail: String::new(),
        };
        Record {
            seq: 1,
            recorded_by: by.into(),
            group: Some("web".into()),
            epoch,
            cause: Cause::Silent,
            from: Some("lb1".into()),
            to: Some("lb2".into()),
            wall_ns: 0,
            total_ns: 0,
            phases: phases.iter().map(phase).collect(),
        }
    }

    #[test]
    fn the_decision_is_the_earliest_commit_of_that_epoch() {
        use PhaseName::{AddressAdded, Announced, Committed, FirstPacket, GateOpen};
        let own = [(Committed, 130), (GateOpen, 140), (AddressAdded, 160), (Announced, 170), (FirstPacket, 250)];
        let records = [
            record("arb", 7, &[(Committed, 5)]),
            record("arb", 8, &[(Committed, 100)]),
            record("lb1", 8, &[(Committed, 9_000)]),
            record("lb2", 8, &own),
        ];
        let line = Timeline::of(&records, 8, "lb2", Some(300)).unwrap();
        let spans = Span::ALL.map(|span| line.since_decision(span).unwrap());
        assert_eq!((line.decided, spans, line.end()), (100, [30, 40, 60, 70, 150, 200], 300));
    }

    #[test]
    fn what_was_not_reached_has_no_span() {
        let records = [record("lb2", 8, &[(PhaseName::Committed, 130)])];
        let line = Timeline::of(&records, 8, "lb2", None).unwrap();
        assert_eq!((line.since_decision(Span::Known), line.since_decision(Span::FirstAnswer)), (Some(0), None));
        assert_eq!(line.end(), 130);
    }

    #[test]
    fn a_record_of_another_machine_alone_is_no_time_line() {
        let records = [record("arb", 8, &[(PhaseName::Committed, 100)]), record("lb2", 8, &[])];
        assert_eq!(Timeline::of(&records, 8, "lb2", None), None);
        assert_eq!(Timeline::of(&records[..1], 8, "lb2", None), None);
        assert_eq!(Timeline::of(&records, 8, "lb1", None), None);
    }
}
