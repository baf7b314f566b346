//! Both texts on a full snapshot; promtool judges the classic one.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use super::*;
use crate::{
    cluster::entry::Cause,
    telemetry::{
        record::PhaseName,
        run::{GroupRun, ResourceState, RunState},
    },
};

fn full() -> (Snapshot, Stats) {
    let mut h = Log2::default();
    for n in [900, 5_000, 70_000, 3_000_000_000] {
        h.add(n);
    }
    let link = LinkMetrics { received: 10, lost: 1, rtt: h, interarrival: h, ..LinkMetrics::default() };
    let peer = |name: &str| PeerMetrics {
        name: name.into(),
        alive: true,
        last_seen_ns: Some(1_000_000),
        links: vec![link; 2],
        ..PeerMetrics::default()
    };
    let run = GroupRun {
        blocked: Some("data could not be stopped".into()),
        resources: vec![ResourceState {
            name: "data".into(),
            kind: "script".into(),
            state: RunState::Blocked,
            since: 0,
            failures: 2,
            last_error: None,
        }],
    };
    let group = GroupMetrics {
        name: "web".into(),
        owner: Some("lb1".into()),
        epoch: 3,
        serving: true,
        vips: 2,
        gate_drops: vec![("ingress", 4), ("egress", 0)],
        steering: vec![("to_peer", 7)],
        draining_on: Some("lb2".into()),
        stopped: true,
        run: Some(run),
    };
    let snapshot = Snapshot {
        cluster: "lb".into(),
        node: "lb1".into(),
        quorum: true,
        leader: Some("lb2".into()),
        lease: LeaseMetrics { margin_ns: Some(45_000_000), lapsed: 0, enforced: true },
        peers: vec![peer("lb2"), peer("arbiter")],
        groups: vec![group],
        maintenance: vec![("node", "lb2".into())],
        discarded: vec![("forged", 2), ("malformed", 3)],
        rejected: vec![("rpc_handshake", 1)],
        ..Snapshot::default()
    };
    let mut stats = Stats { total: h, ..Stats::default() };
    stats.failovers.insert(Cause::Silent, 2);
    stats.phases.insert(PhaseName::Silent, h);
    stats.phases.insert(PhaseName::Announced, h);
    (snapshot, stats)
}

fn promtool(text: &str) -> (bool, String) {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("promtool is part of Debian's prometheus package");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    (out.status.success(), format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
}

#[test]
fn promtool_finds_nothing_to_complain_of() {
    let (snapshot, stats) = full();
    for (snapshot, stats) in [(snapshot, stats), (Snapshot::default(), Stats::default())] {
        let text = render(&snapshot, &stats, Format::Classic).unwrap();
        let (good, complaints) = promtool(&text);
        assert!(good && complaints.is_empty(), "{complaints}\n{text}");
    }
    let (good, _) = promtool("# TYPE a counter\na 1\n");
    assert!(!good, "promtool would notice");
}

#[test]
fn the_numbers_are_in_the_text() {
    let (snapshot, stats) = full();
    let text = render(&snapshot, &stats, Format::Classic).unwrap();
    for line in [
        "baton_heartbeats_lost_total{peer=\"arbiter\",link=\"1\"} 1",
        "baton_heartbeat_rtt_seconds_count{peer=\"lb2\",link=\"0\"} 4",
        "baton_heartbeat_rtt_seconds_bucket{le=\"+Inf\",peer=\"lb2\",link=\"0\"} 4",
        "baton_failovers_total{cause=\"silent\"} 2",
        "baton_failover_phase_duration_seconds_count{phase=\"announced\"} 4",
        "baton_group_owner_info{group=\"web\",owner=\"lb1\"} 1.0",
        "baton_gate_dropped_packets_total{group=\"web\",place=\"ingress\"} 4",
        "baton_lease_margin_seconds 0.045",
        "baton_datagrams_discarded_total{reason=\"forged\"} 2",
        "baton_quorum 1.0",
        "baton_maintenance{scope=\"cluster\",name=\"\"} 0.0",
        "baton_maintenance{scope=\"node\",name=\"lb2\"} 1.0",
        "baton_group_stopped{group=\"web\"} 1.0",
        "baton_group_blocked{group=\"web\"} 1.0",
        "baton_resource_state{group=\"web\",resource=\"data\",state=\"blocked\"} 1.0",
        "baton_resource_failures{group=\"web\",resource=\"data\"} 2.0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
    assert!(!text.contains("# EOF"));
}

#[test]
fn open_metrics_ends_as_it_must() {
    let (snapshot, stats) = full();
    let text = render(&snapshot, &stats, Format::OpenMetrics).unwrap();
    assert!(text.ends_with("# EOF\n"));
    assert!(
        text.contains("# TYPE baton_failovers counter\n")
            && text.contains("# UNIT baton_lease_margin_seconds seconds\n")
    );
}
