//! What a client saw in a window of time, computed from its records.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use anyhow::{Result, bail};
use baton::cluster::ids::Nanos;
use hdrhistogram::Histogram;

use super::{
    netstat::Tcp,
    record::{Event, Kind, NOBODY, Reason, Record},
};

const SECOND: Nanos = 1_000_000_000;
const MICROSECOND: Nanos = 1_000;
/// Latencies above this are recorded as this: an hour, in microseconds.
const HIGHEST_US: u64 = 3_600_000_000;

/// One second of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    /// Requests answered.
    pub answered: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Connections that broke.
    pub broken: u64,
    /// The slowest answered request, in nanoseconds.
    pub slowest_ns: Nanos,
}

/// What a client saw.
#[derive(Clone, Debug)]
pub struct Report {
    /// Requests answered.
    pub answered: u64,
    /// Requests without an answer, or with a wrong one; a new connection that could not be made counts here too.
    pub failed: u64,
    /// Connections that were made and then ended by a reset, a time-out, or a close in the middle of a request.
    pub broken: u64,
    /// Connections that could not be made.
    pub unopened: u64,
    /// Connections that the server closed in order, while idle, without having announced it.
    pub idle_closed: u64,
    /// Connections that the server closed in order after it had announced it, and that were opened anew.
    pub reopened: u64,
    /// Connections made.
    pub opened: u64,
    /// Why requests failed and connections broke.
    pub reasons: BTreeMap<Reason, u64>,
    /// The slowest answered request of a long-lived connection, from its sending, in nanoseconds.
    pub slowest_kept_ns: Nanos,
    /// The slowest answered request over a new connection, from connect(2), in nanoseconds.
    pub slowest_fresh_ns: Nanos,
    /// The longest time in which no request at all was answered, the window's ends included, in nanoseconds.
    pub gap_ns: Nanos,
    /// Latencies in microseconds.
    pub latency_us: Histogram<u64>,
    /// Second by second.
    pub seconds: Vec<Second>,
    /// Answers by node, long-lived and new connections apart.
    pub by: BTreeMap<(Kind, u8), u64>,
    /// What the client's TCP counted in the window.
    pub tcp: Tcp,
    /// How late the load's own thread was at worst with a request, in nanoseconds: above it, latencies may be its own.
    pub late_ns: Nanos,
}

impl Report {
    /// The report of what happened in `from..to`.
    pub fn of(records: &[Record], from: Nanos, to: Nanos) -> Result<Self> {
        let mut report = Self::empty()?;
        let mut last = from;
        for record in records.iter().filter(|r| (from..to).contains(&r.at)) {
            let second = ((record.at - from) / SECOND) as usize;
            if report.seconds.len() <= second {
                report.seconds.resize(second + 1, Second::default());
            }
            report.add(record, second);
            if matches!(record.event, Event::Answered { .. }) {
                report.gap_ns = report.gap_ns.max(record.at.saturating_sub(last));
                last = last.max(record.at);
            }
        }
        report.gap_ns = report.gap_ns.max(to.saturating_sub(last));
        Ok(report)
    }

    fn empty() -> Result<Self> {
        Ok(Self {
            answered: 0,
            failed: 0,
            broken: 0,
            unopened: 0,
            idle_closed: 0,
            reopened: 0,
            opened: 0,
            reasons: BTreeMap::new(),
            slowest_kept_ns: 0,
            slowest_fresh_ns: 0,
            gap_ns: 0,
            latency_us: Histogram::new_with_bounds(1, HIGHEST_US, 3)?,
            seconds: Vec::new(),
            by: BTreeMap::new(),
            tcp: Tcp::default(),
            late_ns: 0,
        })
    }

    fn add(&mut self, record: &Record, second: usize) {
        match record.event {
            Event::Opened => self.opened += 1,
            Event::Unopened(reason) => {
                self.unopened += 1;
                *self.reasons.entry(reason).or_default() += 1;
            }
            Event::Answered { took_ns, by } => {
                self.answered += 1;
                self.latency_us.saturating_record((took_ns / MICROSECOND).max(1));
                let slowest = match record.kind {
                    Kind::Kept => &mut self.slowest_kept_ns,
                    Kind::Fresh => &mut self.slowest_fresh_ns,
                };
                *slowest = (*slowest).max(took_ns);
                *self.by.entry((record.kind, by)).or_default() += 1;
                self.seconds[second].answered += 1;
                self.seconds[second].slowest_ns = self.seconds[second].slowest_ns.max(took_ns);
            }
            Event::Failed(reason) => {
                self.failed += 1;
                self.seconds[second].failed += 1;
                *self.reasons.entry(reason).or_default() += 1;
            }
            Event::Broken(reason) => {
                self.broken += 1;
                self.seconds[second].broken += 1;
                *self.reasons.entry(reason).or_default() += 1;
            }
            Event::IdleClosed => self.idle_closed += 1,
            Event::Reopened => self.reopened += 1,
        }
    }

    /// Requests that were begun and ended in one way or the other.
    pub fn requests(&self) -> u64 {
        self.answered + self.failed
    }

    /// Connections that were lost: broken, or closed while idle without notice.
    pub fn lost(&self) -> u64 {
        self.broken + self.idle_closed
    }

    /// The slowest answered request, in nanoseconds.
    pub fn slowest_ns(&self) -> Nanos {
        self.slowest_kept_ns.max(self.slowest_fresh_ns)
    }

    /// The nodes that answered requests of this kind.
    pub fn nodes(&self, kind: Kind) -> BTreeSet<usize> {
        let nodes = self.by.keys().filter(|(k, by)| *k == kind && *by != NOBODY);
        nodes.map(|(_, by)| usize::from(*by)).collect()
    }

    /// An error that says what was lost, unless nothing was: no request, no connection, no SYN.
    pub fn nothing_lost(&self) -> Result<()> {
        let lost = self.failed + self.lost() + self.unopened + self.tcp.syn_retransmits;
        if lost > 0 || self.answered == 0 {
            bail!("the client lost something: {self}");
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |ns: Nanos| ns as f64 / 1e6;
        write!(
            f,
            "{} requests answered, {} failed; {} connections made, {} broken, {} not made, {} closed idle, {} reopened; \
             {} SYNs and {} segments sent again; slowest {:.1} ms kept, {:.1} ms new; p50 {:.2} ms, p99 {:.2} ms; gap \
             {:.1} ms; the load itself late by {:.1} ms",
            self.answered,
            self.failed,
            self.opened,
            self.broken,
            self.unopened,
            self.idle_closed,
            self.reopened,
            self.tcp.syn_retransmits,
            self.tcp.retransmits,
            ms(self.slowest_kept_ns),
            ms(self.slowest_fresh_ns),
            self.latency_us.value_at_quantile(0.5) as f64 / 1e3,
            self.latency_us.value_at_quantile(0.99) as f64 / 1e3,
            ms(self.gap_ns),
            ms(self.late_ns)
        )?;
        for (reason, count) in &self.reasons {
            write!(f, "; {reason}: {count}")?;
        }
        for ((kind, by), count) in &self.by {
            let kind = if *kind == Kind::Kept { "kept" } else { "new" };
            write!(f, "; {kind} by node {by}: {count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    fn record(ms: Nanos, event: Event) -> Record {
        Record { at: ms * MS, kind: Kind::Kept, event }
    }

    fn answered(ms: Nanos, took: Nanos) -> Record {
        record(ms, Event::Answered { took_ns: took * MS, by: 1 })
    }

    #[test]
    fn a_window_counts_what_lies_in_it() {
        let records = [
            answered(1, 900),
            answered(10, 2),
            answered(20, 5),
            record(21, Event::Broken(Reason::Reset)),
            record(21, Event::Failed(Reason::Reset)),
            answered(1_100, 3),
        ];
        let report = Report::of(&records, 5 * MS, 1_200 * MS).unwrap();
        assert_eq!((report.answered, report.failed, report.broken, report.requests()), (3, 1, 1, 4));
        assert_eq!((report.slowest_ns(), report.gap_ns), (5 * MS, 1_080 * MS));
        assert_eq!(report.seconds.len(), 2);
        assert_eq!(
            (report.seconds[0].answered, report.seconds[1].answered, report.seconds[1].slowest_ns),
            (2, 1, 3 * MS)
        );
        assert_eq!(report.nodes(Kind::Kept), BTreeSet::from([1]));
        assert_eq!(report.latency_us.len(), 3);
        let said = report.nothing_lost().unwrap_err().to_string();
        assert!(said.contains("1 failed") && said.contains("reset: 2"), "{said}");
    }

    #[test]
    fn silence_is_a_gap_and_no_success() {
        let report = Report::of(&[], 0, 7 * MS).unwrap();
        assert_eq!(report.gap_ns, 7 * MS);
        assert!(report.nothing_lost().is_err());
        assert!(Report::of(&[answered(3, 1)], 0, 7 * MS).unwrap().nothing_lost().is_ok());
        let mut resent = Report::of(&[answered(3, 1)], 0, 7 * MS).unwrap();
        resent.tcp.syn_retransmits = 1;
        assert!(resent.nothing_lost().is_err());
    }
}
