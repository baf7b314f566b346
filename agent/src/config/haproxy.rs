//! Checks `[[group.haproxy]]`: which file on which node, who starts it, and what its death means.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    path::{Path, PathBuf},
};

use super::{
    cluster::check_duration,
    diagnostic::{Mistakes, did_you_mean},
    groups::node_named,
    model::{DrainMode, Haproxy, Managed, OnFailure, Voter},
    raw::{RawByNode, RawHaproxy},
    reader::At,
};
use crate::cluster::ids::{Nanos, VoterId};

const BINARY: &str = "/usr/sbin/haproxy";
const UNIT: &str = "haproxy.service";
const BACKENDS_MIN: u32 = 1;
const RESTARTS: u32 = 3;
const RESTART_WINDOW: Nanos = 60 * SECOND;
const SECOND: Nanos = 1_000_000_000;
/// A window below holds no restart of a HAProxy that takes a second to start; one above a day forgets nothing.
const WINDOW_BOUNDS: (Nanos, Nanos) = (SECOND, 86_400 * SECOND);

/// What runs where already: one HAProxy serves one group.
#[derive(Default)]
pub(super) struct Run(HashMap<(VoterId, PathBuf), String>);

/// Checks one HAProxy of a group.
pub(super) fn check(
    r: &RawHaproxy,
    group: &str,
    nodes: &[VoterId],
    voters: &BTreeMap<VoterId, Voter>,
    run: &mut Run,
    m: &mut Mistakes<'_>,
) -> Haproxy {
    let config = check_config(r, group, nodes, voters, run, m);
    let managed = check_managed(r, m);
    let on_failure =
        choice(&r.on_failure, "on_failure", &[("move", OnFailure::Move), ("restart", OnFailure::Restart)], m);
    let drain = choice(&r.drain, "drain", &[("soft", DrainMode::Soft), ("leave", DrainMode::Leave)], m);
    let number =
        |given: &Option<At<i64>>, default| given.as_ref().and_then(|n| u32::try_from(n.value).ok()).unwrap_or(default);
    let restart_window = r.restart_window.as_ref().and_then(|w| check_duration(w, "restart_window", WINDOW_BOUNDS, m));
    let socket = r.socket.as_ref().map(|s| absolute(s, "socket", "/run/haproxy/admin.sock", m));
    if let Some(peers) = r.peers.as_ref().filter(|p| p.value.is_empty() || p.value.contains(char::is_whitespace)) {
        let message = format!("`peers` is \"{}\", which is no name of a section", peers.value);
        m.error(
            &peers.span,
            message,
            "name a section `peers` of HAProxy's configuration, or leave the key out for all",
        );
    }
    Haproxy {
        config,
        binary: r.binary.as_ref().map_or_else(|| PathBuf::from(BINARY), |b| absolute(b, "binary", BINARY, m)),
        managed,
        socket,
        backends_min: number(&r.backends_min, BACKENDS_MIN),
        peers: r.peers.as_ref().map(|p| p.value.clone()),
        on_failure,
        restarts: number(&r.restarts, RESTARTS),
        restart_window: restart_window.unwrap_or(RESTART_WINDOW),
        drain,
    }
}

/// The file on each node of the group.
fn check_config(
    r: &RawHaproxy,
    group: &str,
    nodes: &[VoterId],
    voters: &BTreeMap<VoterId, Voter>,
    run: &mut Run,
    m: &mut Mistakes<'_>,
) -> BTreeMap<VoterId, PathBuf> {
    let example = "/etc/haproxy/haproxy.cfg";
    let nodes = nodes.iter().filter_map(|id| voters.get(id));
    let mut files = BTreeMap::new();
    let mut spans = Vec::new();
    match &r.config {
        None => {}
        Some(RawByNode::Everywhere(file)) => {
            let path = absolute(file, "config", example, m);
            spans = nodes.map(|node| (node, file.span.clone())).collect();
            files.extend(spans.iter().map(|(node, _)| (node.id, path.clone())));
        }
        Some(RawByNode::PerNode(span, table)) => {
            for (name, file) in table {
                node_named(name, voters, m);
                absolute(file, "config", example, m);
            }
            for node in nodes {
                match table.iter().find(|(name, _)| *name.value == *node.name) {
                    Some((_, file)) => {
                        files.insert(node.id, PathBuf::from(&file.value));
                        spans.push((node, file.span.clone()));
                    }
                    None => m.error(
                        span,
                        format!("HAProxy has no configuration on node \"{}\"", node.name),
                        format!("add `{} = \"{example}\"`", node.name),
                    ),
                }
            }
        }
    }
    let mut said: Vec<Range<usize>> = Vec::new();
    for (node, span) in spans {
        let Some(file) = files.get(&node.id) else { continue };
        let before = run.0.insert((node.id, file.clone()), group.to_owned());
        if let Some(other) = before
            && !said.contains(&span)
        {
            let message = format!("{} runs for group \"{other}\" on node \"{}\" already", file.display(), node.name);
            let help = "one HAProxy serves one group: put the VIPs into one group, or give this one a file of its own";
            m.error(&span, message, help);
            said.push(span);
        }
    }
    files
}

fn check_managed(r: &RawHaproxy, m: &mut Mistakes<'_>) -> Managed {
    let by_systemd = choice_of(&r.managed, "managed", &[("process", false), ("systemd", true)], false, m);
    if !by_systemd {
        if let Some(unit) = &r.unit {
            let help = "add `managed = \"systemd\"` if systemd starts HAProxy, or remove `unit`";
            m.error(&unit.span, "`unit` is for a HAProxy that systemd starts", help);
        }
        return Managed::Process;
    }
    for (given, key) in
        [(r.restarts.as_ref().map(|n| &n.span), "restarts"), (span(&r.restart_window), "restart_window")]
    {
        if let Some(given) = given {
            let help = "set `Restart=` and `StartLimitBurst=` in the unit instead";
            m.error(given, format!("`{key}` has no effect on a HAProxy that systemd starts"), help);
        }
    }
    let unit = r.unit.as_ref().map_or(UNIT, |u| u.value.as_str());
    let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if let Some(given) = r.unit.as_ref().filter(|_| !unit.ends_with(".service") || !unit.chars().all(plain)) {
        let message = format!("`unit` is \"{unit}\", which is no name of a service");
        m.error(&given.span, message, format!("write the unit's whole name, such as \"{UNIT}\""));
    }
    Managed::Systemd(unit.to_owned())
}

fn span(given: &Option<At<String>>) -> Option<&Range<usize>> {
    given.as_ref().map(|g| &g.span)
}

/// One of a few words; the default of its type when it is left out.
pub(super) fn choice<T: Copy + Default>(
    given: &Option<At<String>>,
    key: &str,
    words: &[(&'static str, T)],
    m: &mut Mistakes<'_>,
) -> T {
    choice_of(given, key, words, T::default(), m)
}

fn choice_of<T: Copy>(
    given: &Option<At<String>>,
    key: &str,
    words: &[(&'static str, T)],
    default: T,
    m: &mut Mistakes<'_>,
) -> T {
    let Some(given) = given else { return default };
    match words.iter().find(|(word, _)| *word == given.value) {
        Some((_, meaning)) => *meaning,
        None => {
            let known = || words.iter().map(|(word, _)| *word);
            let hint = did_you_mean(&given.value, known());
            let help = known().map(|w| format!("`{key} = \"{w}\"`")).collect::<Vec<_>>().join(" or ");
            m.error(&given.span, format!("`{key}` cannot be \"{}\"{hint}", given.value), format!("write {help}"));
            default
        }
    }
}

pub(super) fn absolute(given: &At<String>, key: &str, example: &str, m: &mut Mistakes<'_>) -> PathBuf {
    if !Path::new(&given.value).is_absolute() {
        let message = format!("`{key}` is \"{}\", not an absolute path", given.value);
        m.error(&given.span, message, format!("write a whole path, such as \"{example}\""));
    }
    PathBuf::from(&given.value)
}
