//! The shipped files for operators: alerts, dashboard and unit name only what exists.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use baton::telemetry::{
    history::Stats,
    log2::Log2,
    metrics::{Format, GroupMetrics, LeaseMetrics, LinkMetrics, PeerMetrics, Snapshot, render},
    record::PhaseName,
    run::{GroupRun, ResourceState, RunState},
};

fn shipped(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../config").join(name)).unwrap()
}

/// The names of all metrics, as their samples carry them.
fn metric_names() -> BTreeSet<String> {
    let mut h = Log2::default();
    h.add(1_000_000);
    let run = GroupRun {
        blocked: None,
        resources: vec![ResourceState {
            name: "data".into(),
            kind: "script".into(),
            state: RunState::Running,
            since: 1,
            failures: 0,
            last_error: None,
        }],
    };
    let group = GroupMetrics {
        name: "web".into(),
        owner: Some("lb1".into()),
        gate_drops: vec![("ingress", 1)],
        steering: vec![("to_peer", 1)],
        draining_on: Some("lb2".into()),
        run: Some(run),
        ..GroupMetrics::default()
    };
    let link = LinkMetrics { rtt: h, interarrival: h, ..LinkMetrics::default() };
    let peer = PeerMetrics { name: "lb2".into(), last_seen_ns: Some(1), links: vec![link], ..PeerMetrics::default() };
    let snapshot = Snapshot {
        leader: Some("lb1".into()),
        lease: LeaseMetrics { margin_ns: Some(1), ..LeaseMetrics::default() },
        peers: vec![peer],
        groups: vec![group],
        discarded: vec![("forged", 1)],
        rejected: vec![("rpc", 1)],
        ..Snapshot::default()
    };
    let mut stats = Stats { total: h, ..Stats::default() };
    stats.failovers.insert(baton::cluster::entry::Cause::Silent, 1);
    stats.phases.insert(PhaseName::Silent, h);
    let text = render(&snapshot, &stats, Format::Classic).unwrap();
    text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split(['{', ' ']).next()).map(str::to_owned).collect()
}

/// The words in a text that look like metrics of Baton.
fn named_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|w| w.starts_with("baton_") && *w != "baton_").map(str::to_owned).collect()
}

#[test]
fn promtool_accepts_the_alerts() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/alerts.yml");
    let out = Command::new("promtool")
        .args(["check", "rules"])
        .arg(&file)
        .output()
        .expect("promtool is part of Debian's prometheus package");
    assert!(out.status.success(), "{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
}

#[test]
fn alerts_dashboard_and_reference_name_only_metrics_that_exist() {
    let known = metric_names();
    assert!(known.len() > 30, "{known:?}");
    for name in ["alerts.yml", "grafana.json", "../docs/metrics.md"] {
        for metric in named_in(&shipped(name)) {
            let family = ["_bucket", "_sum", "_count"].iter().any(|s| known.contains(&format!("{metric}{s}")));
            assert!(known.contains(&metric) || family, "{name} names {metric}");
        }
    }
}

#[test]
fn the_reference_describes_every_metric() {
    let reference = named_in(&shipped("../docs/metrics.md"));
    for metric in metric_names() {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|s| metric.strip_suffix(s)).unwrap_or(&metric);
        assert!(reference.contains(family), "docs/metrics.md lacks {family}");
    }
}

#[test]
fn the_dashboard_is_json_with_panels() {
    let dashboard: serde_json::Value = serde_json::from_str(&shipped("grafana.json")).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() >= 10);
}

#[test]
fn the_configuration_reference_names_every_key_of_the_example() {
    let reference = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md")).unwrap();
    for line in shipped("lb-pair.toml").lines().filter(|l| !l.starts_with('#')) {
        if let Some((key, _)) = line.split_once(" = ") {
            assert!(reference.contains(&format!("`{key}`")), "docs/configuration.md lacks `{key}`");
        }
    }
}
