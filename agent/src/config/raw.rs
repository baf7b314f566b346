//! The schema of the file: every key, its type and its place. No rule between two keys is checked here.

use super::{
    constraints::{RawCapacity, RawConstraints},
    diagnostic::Mistakes,
    reader::{At, Table, Value, as_integer, as_string},
    resources::RawResource,
};
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// The largest score of a preference, and of a stickiness.
pub(super) const SCORE_MAX: i64 = 1_000_000;

/// The whole file.
#[derive(Debug, Default)]
pub(super) struct Raw {
    pub cluster: RawCluster,
    pub this: RawThis,
    pub voters: Vec<RawVoter>,
    pub groups: Vec<RawGroup>,
}

/// `[cluster]`
#[derive(Debug, Default)]
pub(super) struct RawCluster {
    pub name: Option<At<String>>,
    pub key_file: Option<At<String>>,
    pub profile: Option<At<String>>,
    pub interval: Option<At<String>>,
    pub lease: Option<At<String>>,
    pub port: Option<At<i64>>,
}

/// `[this]`
#[derive(Debug, Default)]
pub(super) struct RawThis {
    pub name: Option<At<String>>,
    pub data_dir: Option<At<String>>,
    pub run_dir: Option<At<String>>,
    pub bpffs: Option<At<String>>,
    pub metrics: Option<At<String>>,
    pub unenforced_lease: Option<At<bool>>,
    pub realtime: Option<At<bool>>,
    pub starts_at_once: Option<At<i64>>,
}

/// `[[voter]]`
#[derive(Debug)]
pub(super) struct RawVoter {
    pub span: Range<usize>,
    pub id: Option<At<i64>>,
    pub name: Option<At<String>>,
    pub role: Option<At<String>>,
    pub backplane: Option<At<Vec<At<String>>>>,
    pub hook: Option<At<Vec<At<String>>>>,
    pub front: Option<At<Vec<At<String>>>>,
    /// Whether there is a `front` at all, be it of a wrong type.
    pub front_given: bool,
    pub capacity: Option<RawCapacity>,
}

/// `[[group]]`
#[derive(Debug)]
pub(super) struct RawGroup {
    pub span: Range<usize>,
    pub name: Option<At<String>>,
    pub nodes: Option<At<Vec<At<String>>>>,
    pub prefer: Vec<(At<String>, At<i64>)>,
    pub stickiness: Option<At<i64>>,
    pub failback: Option<At<bool>>,
    pub drain_timeout: Option<At<String>>,
    pub vips: Vec<RawVip>,
    pub haproxies: Vec<RawHaproxy>,
    pub resources: Vec<RawResource>,
    pub migration_threshold: Option<At<i64>>,
    pub failure_timeout: Option<At<String>>,
    pub constraints: RawConstraints,
}

/// `[[group.vip]]`
#[derive(Debug)]
pub(super) struct RawVip {
    pub span: Range<usize>,
    pub address: Option<At<String>>,
    pub device: Option<RawByNode>,
}

/// `[[group.haproxy]]`
#[derive(Debug)]
pub(super) struct RawHaproxy {
    pub config: Option<RawByNode>,
    pub binary: Option<At<String>>,
    pub managed: Option<At<String>>,
    pub unit: Option<At<String>>,
    pub socket: Option<At<String>>,
    pub backends_min: Option<At<i64>>,
    pub peers: Option<At<String>>,
    pub on_failure: Option<At<String>>,
    pub restarts: Option<At<i64>>,
    pub restart_window: Option<At<String>>,
    pub drain: Option<At<String>>,
}

/// A text for all nodes, or one a node: a VIP's device, a file.
#[derive(Debug)]
pub(super) enum RawByNode {
    Everywhere(At<String>),
    PerNode(Range<usize>, Vec<(At<String>, At<String>)>),
}

impl Raw {
    /// Reads the schema out of a parsed file; everything that does not fit is noted in `m`.
    pub fn read(entries: &DeTable<'_>, m: &mut Mistakes<'_>) -> Self {
        let mut root = Table::root(entries);
        let cluster = root.table(m, "cluster");
        if cluster.is_none() && root.any("cluster").is_none() {
            m.error_nowhere("the file has no section [cluster]", "add [cluster] with at least `name` and `key_file`");
        }
        let raw = Self {
            cluster: cluster.map(|t| RawCluster::read(t, m)).unwrap_or_default(),
            this: root.table(m, "this").map(|t| RawThis::read(t, m)).unwrap_or_default(),
            voters: root.tables(m, "voter", "voter").into_iter().map(|t| RawVoter::read(t, m)).collect(),
            groups: root.tables(m, "group", "group").into_iter().map(|t| RawGroup::read(t, m)).collect(),
        };
        root.finish(m);
        raw
    }
}

impl RawCluster {
    fn read(mut t: Table<'_, '_>, m: &mut Mistakes<'_>) -> Self {
        let raw = Self {
            name: t.required(m, "name", "give the cluster a name, the same on all machines: `name = \"lb\"`"),
            key_file: t.required(
                m,
                "key_file",
                "make a key by `baton keygen FILE`, copy it to all machines, and name it here",
            ),
            profile: t.string(m, "profile"),
            interval: t.string(m, "interval"),
            lease: t.string(m, "lease"),
            port: t.integer(m, "port", 1, 65_535),
        };
        t.finish(m);
        raw
    }
}

impl RawThis {
    pub fn read(mut t: Table<'_, '_>, m: &mut Mistakes<'_>) -> Self {
        let raw = Self {
            name: t.string(m, "name"),
            data_dir: t.string(m, "data_dir"),
            run_dir: t.string(m, "run_dir"),
            bpffs: t.string(m, "bpffs"),
            metrics: t.string(m, "metrics"),
            unenforced_lease: t.boolean(m, "unenforced_lease"),
            realtime: t.boolean(m, "realtime"),
            starts_at_once: t.integer(m, "starts_at_once", 1, 256),
        };
        t.finish(m);
        raw
    }
}

impl RawVoter {
    fn read(mut t: Table<'_, '_>, m: &mut Mistakes<'_>) -> Self {
        let raw = Self {
            span: t.span().clone(),
            id: t.integer(m, "id", 1, 8),
            name: t.required(m, "name", "name the machine, as `[this] name` or its host name says"),
            role: t.required(
                m,
                "role",
                "write `role = \"node\"` for a machine with VIPs, `role = \"arbiter\"` for one that only votes",
            ),
            backplane: t.strings(m, "backplane", "[\"10.0.0.1\"]"),
            hook: t.strings(m, "hook", "[\"auto\"]"),
            front: t.strings(m, "front", "[\"eth0\"]"),
            front_given: t.any("front").is_some(),
            capacity: RawCapacity::of(&mut t, m),
        };
        if t.any("id").is_none() {
            t.missing(m, "id", "give each voter a number of its own from 1 to 8, and never give it to another machine");
        }
        if t.any("backplane").is_none() {
            t.missing(
                m,
                "backplane",
                "list this machine's address on each backplane link: `backplane = [\"10.0.0.1\"]`",
            );
        }
        t.finish(m);
        raw
    }
}

impl RawGroup {
    fn read(mut t: Table<'_, '_>, m: &mut Mistakes<'_>) -> Self {
        let raw = Self {
            span: t.span().clone(),
            name: t.required(m, "name", "name the group: `name = \"web\"`"),
            nodes: t.strings(m, "nodes", "[\"lb1\", \"lb2\"]"),
            prefer: t.any("prefer").map(|v| read_prefer(&v, m)).unwrap_or_default(),
            stickiness: t.integer(m, "stickiness", 0, SCORE_MAX),
            failback: t.boolean(m, "failback"),
            drain_timeout: t.string(m, "drain_timeout"),
            vips: t.tables(m, "vip", "group.vip").into_iter().map(|t| RawVip::read(t, m)).collect(),
            haproxies: t.tables(m, "haproxy", "group.haproxy").into_iter().map(|t| RawHaproxy::read(t, m)).collect(),
            resources: t.tables(m, "resource", "group.resource").into_iter().map(|t| RawResource::read(t, m)).collect(),
            migration_threshold: t.integer(m, "migration_threshold", 1, 1_000),
            failure_timeout: t.string(m, "failure_timeout"),
            constraints: RawConstraints::read(&mut t, m),
        };
        t.finish(m);
        raw
    }
}

fn read_prefer(v: &Value<'_, '_>, m: &mut Mistakes<'_>) -> Vec<(At<String>, At<i64>)> {
    let DeValue::Table(entries) = v.value else {
        m.error(&v.span, "`prefer` must be a table of scores", "write `prefer = { lb1 = 100 }`");
        return Vec::new();
    };
    let mut scores = Vec::new();
    for (node, score) in Table::root(entries).entries() {
        let what = format!("the score of `{}`", node.value);
        if let Some(score) = as_integer(m, &what, &score, -SCORE_MAX, SCORE_MAX) {
            scores.push((node, score));
        }
    }
    scores
}

impl RawVip {
    fn read(mut t: Table<'_, '_>, m: &mut Mistakes<'_>) -> Self {
        let raw = Self {
            span: t.span().clone(),
            address: t.required(
                m,
                "address",
                "write the address with its prefix length: `address = \"192.0.2.10/24\"`",
            ),
            device: t.any("device").and_then(|v| RawByNode::read(&v, "device", ["eth0", "ens3"], m)),
        };
        t.finish(m);
        raw
    }
}

impl RawHaproxy {
    fn read(mut t: Table<'_, '_>, m: &mut Mistakes<'_>) -> Self {
        let example = "/etc/haproxy/haproxy.cfg";
        let raw = Self {
            config: t.any("config").and_then(|v| RawByNode::read(&v, "config", [example, "/etc/haproxy/lb2.cfg"], m)),
            binary: t.string(m, "binary"),
            managed: t.string(m, "managed"),
            unit: t.string(m, "unit"),
            socket: t.string(m, "socket"),
            backends_min: t.integer(m, "backends_min", 0, 10_000),
            peers: t.string(m, "peers"),
            on_failure: t.string(m, "on_failure"),
            restarts: t.integer(m, "restarts", 0, 1_000),
            restart_window: t.string(m, "restart_window"),
            drain: t.string(m, "drain"),
        };
        if t.any("config").is_none() {
            t.missing(m, "config", &format!("name HAProxy's own configuration: `config = \"{example}\"`"));
        }
        t.finish(m);
        raw
    }
}

impl RawByNode {
    fn read(v: &Value<'_, '_>, key: &str, examples: [&str; 2], m: &mut Mistakes<'_>) -> Option<Self> {
        match v.value {
            DeValue::String(s) => Some(Self::Everywhere(v.with(s.to_string()))),
            DeValue::Table(entries) => {
                let mut values = Vec::new();
                for (node, value) in Table::root(entries).entries() {
                    if let Some(value) = as_string(m, &format!("`{key}`"), &node.value, &value) {
                        values.push((node, value));
                    }
                }
                Some(Self::PerNode(v.span.clone(), values))
            }
            _ => {
                let [one, two] = examples;
                let help = format!(
                    "write `{key} = \"{one}\"`, or one a node: `{key} = {{ lb1 = \"{one}\", lb2 = \"{two}\" }}`"
                );
                m.error(&v.span, format!("`{key}` must be a string, or a table of strings by node"), help);
                None
            }
        }
    }
}
