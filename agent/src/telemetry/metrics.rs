//! Metrics: a [`Snapshot`] turned into Prometheus' text.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, LabelSetEncoder, MetricEncoder, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use super::{
    history::Stats,
    log2::{Log2, seconds},
    record::cause_label,
    text,
};
pub use super::{snapshot::*, text::Format};

/// The text of a scrape.
pub fn render(snapshot: &Snapshot, stats: &Stats, format: Format) -> Result<String, fmt::Error> {
    let mut registry = <Registry>::with_prefix("baton");
    registry.register_collector(Box::new(Scrape { snapshot: snapshot.clone(), stats: stats.clone() }));
    text::encode(&registry, format)
}

#[derive(Debug)]
struct Scrape {
    snapshot: Snapshot,
    stats: Stats,
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.encode_agent(&mut out)?;
        self.encode_lease(&mut out)?;
        self.encode_peers(&mut out)?;
        self.encode_links(&mut out)?;
        self.encode_groups(&mut out)?;
        self.encode_switches(&mut out)?;
        self.encode_failovers(&mut out)
    }
}

impl Scrape {
    fn encode_agent(&self, out: &mut Out<'_>) -> fmt::Result {
        let s = &self.snapshot;
        let leader = s.leader.as_deref().unwrap_or_default();
        let info = [("version", env!("CARGO_PKG_VERSION")), ("cluster", &*s.cluster), ("node", &*s.node)];
        out.gauges("build_info", "The running agent, always 1", None, [(&info[..], 1.0)])?;
        out.gauge("quorum", "Whether a majority of voters is alive and a leader is known", flag(s.quorum))?;
        out.gauges(
            "leader_info",
            "The raft leader that this agent knows, always 1; no sample without one",
            None,
            s.leader.iter().map(|_| ([("leader", leader)], 1.0)),
        )?;
        out.gauge(
            "is_leader",
            "Whether this machine is the raft leader",
            flag(!leader.is_empty() && leader == s.node),
        )?;
        out.gauge("raft_term", "The raft term", s.term as f64)?;
        out.gauge("raft_applied_index", "The newest log entry applied here", s.applied as f64)?;
        out.gauge("gate_applied_index", "The newest log entry that the gate here reflects", s.gate_index as f64)?;
        out.counter("entries_refused", "Log entries that their compare-and-set refused", s.entries_refused)?;
        out.counters(
            "datagrams_discarded",
            "Datagrams on the heartbeat port that were thrown away",
            s.discarded.iter().map(|(r, n)| ([("reason", *r)], *n)),
        )?;
        out.counters(
            "requests_rejected",
            "RPC connections and requests that were thrown away",
            s.rejected.iter().map(|(r, n)| ([("reason", *r)], *n)),
        )?;
        out.counter("pulses_late", "Pulses that were late by more than half an interval", s.pulses_late)?;
        out.gauges(
            "pulse_lateness_max",
            "The worst lateness of a pulse since the agent's start",
            Some(Unit::Seconds),
            [(&NONE[..], seconds(s.pulse_late_max_ns))],
        )
    }

    fn encode_lease(&self, out: &mut Out<'_>) -> fmt::Result {
        let lease = &self.snapshot.lease;
        let held = lease.margin_ns.is_some_and(|m| m > 0);
        out.gauge("lease_held", "Whether this machine holds a lease", flag(held))?;
        out.gauge("lease_enforced", "Whether the kernel enforces the lease", flag(lease.enforced))?;
        let margin = lease.margin_ns.map(|m| (&NONE[..], m as f64 / 1e9));
        out.gauges(
            "lease_margin",
            "How long the lease lasts if nobody acknowledges any more; negative after its end",
            Some(Unit::Seconds),
            margin,
        )?;
        out.counter("lease_lapses", "Leases that ended though nobody had promised against them", lease.lapsed)
    }

    fn encode_peers(&self, out: &mut Out<'_>) -> fmt::Result {
        let peers = || self.snapshot.peers.iter();
        let by = |f: fn(&PeerMetrics) -> f64| peers().map(move |p| ([("peer", &*p.name)], f(p)));
        out.gauges("peer_alive", "Whether the voter's heartbeats arrive", None, by(|p| flag(p.alive)))?;
        out.gauges(
            "peer_lease_held",
            "Whether the voter says that it holds a lease",
            None,
            by(|p| flag(p.holds_lease)),
        )?;
        let seen = peers().filter_map(|p| Some(([("peer", &*p.name)], seconds(p.last_seen_ns?))));
        out.gauges("peer_last_seen_age", "How long ago the voter's last heartbeat arrived", Some(Unit::Seconds), seen)
    }

    fn encode_links(&self, out: &mut Out<'_>) -> fmt::Result {
        let numbers: Vec<String> =
            (0..self.snapshot.peers.iter().map(|p| p.links.len()).max().unwrap_or(0)).map(|n| n.to_string()).collect();
        let links: Vec<([(&str, &str); 2], &LinkMetrics)> = self
            .snapshot
            .peers
            .iter()
            .flat_map(|p| p.links.iter().zip(&numbers).map(|(l, n)| ([("peer", &*p.name), ("link", &**n)], l)))
            .collect();
        let counts: [(&str, &str, CountOf); 6] = [
            ("heartbeats_received", "Heartbeats that arrived in order", |l| l.received),
            ("heartbeats_lost", "Heartbeats that never came", |l| l.lost),
            ("heartbeats_reordered", "Heartbeats that came after a later one", |l| l.reordered),
            ("heartbeats_replayed", "Heartbeats that came twice", |l| l.replayed),
            ("acknowledgements_sent", "Acknowledgements that the kernel sent to the voter", |l| l.acknowledged),
            ("acknowledgements_received", "Acknowledgements that came from the voter", |l| l.acknowledgements),
        ];
        for (name, help, f) in counts {
            out.counters(name, help, links.iter().map(|(labels, l)| (labels, f(l))))?;
        }
        out.histograms(
            "heartbeat_rtt",
            "Round trips of heartbeats, measured in the kernel",
            links.iter().map(|(labels, l)| (labels, &l.rtt)),
        )?;
        out.histograms(
            "heartbeat_interarrival",
            "Times between two arrivals of heartbeats, measured in the kernel",
            links.iter().map(|(labels, l)| (labels, &l.interarrival)),
        )
    }

    fn encode_groups(&self, out: &mut Out<'_>) -> fmt::Result {
        let groups = || self.snapshot.groups.iter();
        let by = |f: fn(&GroupMetrics) -> f64| groups().map(move |g| ([("group", &*g.name)], f(g)));
        out.gauges(
            "group_epoch",
            "The group's epoch: it grows at every change of owner",
            None,
            by(|g| g.epoch as f64),
        )?;
        out.gauges("group_vips", "How many VIPs the group has", None, by(|g| g.vips as f64))?;
        out.gauges("group_serving", "Whether this node passes the group's packets", None, by(|g| flag(g.serving)))?;
        out.gauges("group_owned", "Whether the log names an owner", None, by(|g| flag(g.owner.is_some())))?;
        let owners = groups().filter_map(|g| Some(([("group", &*g.name), ("owner", g.owner.as_deref()?)], 1.0)));
        out.gauges("group_owner_info", "The group's owner by the log, always 1; no sample without one", None, owners)?;
        let drops =
            groups().flat_map(|g| g.gate_drops.iter().map(|(place, n)| ([("group", &*g.name), ("place", *place)], *n)));
        out.counters("gate_dropped_packets", "Packets of the group's VIPs that the gate dropped", drops)?;
        let steered =
            groups().flat_map(|g| g.steering.iter().map(|(what, n)| ([("group", &*g.name), ("what", *what)], *n)));
        out.counters("steering_packets", "Packets of planned moves, by what this node did with them", steered)?;
        let drains = groups().filter_map(|g| Some(([("group", &*g.name), ("node", g.draining_on.as_deref()?)], 1.0)));
        out.gauges(
            "group_drain_info",
            "The node that still serves flows from before the last move, always 1",
            None,
            drains,
        )
    }

    fn encode_switches(&self, out: &mut Out<'_>) -> fmt::Result {
        let groups = || self.snapshot.groups.iter();
        let scopes = self.snapshot.maintenance.iter();
        let cluster = (!scopes.clone().any(|(scope, _)| *scope == "cluster"))
            .then_some(([("scope", "cluster"), ("name", "")], 0.0));
        let on = scopes.map(|(scope, name)| ([("scope", *scope), ("name", &**name)], 1.0));
        out.gauges(
            "maintenance",
            "Whether the cluster is in maintenance; and 1 for each node or group that is",
            None,
            cluster.into_iter().chain(on),
        )?;
        let stopped = groups().map(|g| ([("group", &*g.name)], flag(g.stopped)));
        out.gauges("group_stopped", "Whether an operator stopped the group", None, stopped)?;
        let runs = || groups().filter_map(|g| Some((&*g.name, g.run.as_ref()?)));
        out.gauges(
            "group_blocked",
            "Whether the group can be neither stopped nor given up on this node",
            None,
            runs().map(|(group, run)| ([("group", group)], flag(run.blocked.is_some()))),
        )?;
        let resources = || runs().flat_map(|(group, run)| run.resources.iter().map(move |r| (group, r)));
        out.gauges(
            "resource_state",
            "What the resource does on this node, always 1",
            None,
            resources()
                .map(|(group, r)| ([("group", group), ("resource", &*r.name), ("state", r.state.as_str())], 1.0)),
        )?;
        out.gauges(
            "resource_failures",
            "Failures of the resource on this node that are not forgotten",
            None,
            resources().map(|(group, r)| ([("group", group), ("resource", &*r.name)], f64::from(r.failures))),
        )
    }

    fn encode_failovers(&self, out: &mut Out<'_>) -> fmt::Result {
        let stats = &self.stats;
        out.counters(
            "failovers",
            "Changes of owner that this agent saw",
            stats.failovers.iter().map(|(cause, n)| ([("cause", cause_label(*cause))], *n)),
        )?;
        out.counter("fruitless_rounds", "Rounds about a node that moved nothing", stats.fruitless_rounds)?;
        out.histograms(
            "failover_phase_duration",
            "How long each phase of a failover took, from the phase before it",
            stats.phases.iter().map(|(phase, h)| ([("phase", phase.as_str())], h)),
        )?;
        let total = (stats.total.count() > 0).then_some((&NONE[..], &stats.total));
        out.histograms("failover_duration", "How long a failover took, from its first phase to its last", total)?;
        out.counter("recorder_dropped", "Facts and marks that found the flight recorder's queue full", stats.dropped)?;
        out.counter("recorder_unwritten", "Failover records that were not written to the file", stats.unwritten)
    }
}

/// Takes one count out of a link's.
type CountOf = fn(&LinkMetrics) -> u64;

/// No labels.
const NONE: [(&str, &str); 0] = [];

/// Labels and their values.
struct Labels<'l>(&'l [(&'l str, &'l str)]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}

/// The encoder, one call a family; a family without samples is left out.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.gauges(name, help, None, [(&NONE[..], value)])
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.counters(name, help, [(&NONE[..], value)])
    }

    fn gauges<'l, L: AsRef<[(&'l str, &'l str)]>>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        samples: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        self.family(name, help, unit, MetricType::Gauge, samples, |v, e| ConstGauge::new(*v).encode(e))
    }

    fn counters<'l, L: AsRef<[(&'l str, &'l str)]>>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        self.family(name, help, None, MetricType::Counter, samples, |v, e| ConstCounter::new(*v).encode(e))
    }

    /// Histograms of seconds.
    fn histograms<'l, 'h, L: AsRef<[(&'l str, &'l str)]>>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, &'h Log2)>,
    ) -> fmt::Result {
        self.family(name, help, Some(Unit::Seconds), MetricType::Histogram, samples, |h, mut e| {
            e.encode_histogram::<NoLabelSet>(h.sum_seconds(), h.count(), &h.exposition(), None)
        })
    }

    fn family<'l, L: AsRef<[(&'l str, &'l str)]>, T>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        kind: MetricType,
        samples: impl IntoIterator<Item = (L, T)>,
        write: impl Fn(&T, MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        for (labels, value) in samples {
            if labels.as_ref().is_empty() {
                // It is the only one, and has no braces.
                return write(&value, family);
            }
            write(&value, family.encode_family(&Labels(labels.as_ref()))?)?;
        }
        Ok(())
    }
}

/// A flag as a sample.
fn flag(on: bool) -> f64 {
    f64::from(u8::from(on))
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
