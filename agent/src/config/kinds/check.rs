//! `kind = "check"`: something that must hold where the group is: an address that answers, a port, a page, a command.

use serde::Serialize;
use std::net::IpAddr;

use super::{Kind, SECOND, Times, USUAL};
use crate::{
    cluster::ids::{MILLISECOND, Nanos},
    config::{
        cluster::check_duration,
        diagnostic::Mistakes,
        haproxy::choice,
        reader::{At, Table},
        resources,
    },
};

const ATTEMPTS: u32 = 3;
const ATTEMPTS_MAX: i64 = 100;
const INTERVAL: Nanos = SECOND;
const TIMEOUT: Nanos = SECOND;
/// Of one attempt, and between two of them.
const TIMES: (Nanos, Nanos) = (10 * MILLISECOND, 3_600 * SECOND);
/// What a page is looked through for.
const CONTAINS_BYTES_MAX: usize = 1 << 10;

/// The keys of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What is asked.
    pub probe: Probe,
    /// So many attempts in a row must fail before the check does.
    pub attempts: u32,
    /// Between two attempts, ns.
    pub interval_ns: Nanos,
    /// How long an attempt may take, ns.
    pub timeout_ns: Nanos,
    /// What a failure says about.
    pub scope: Scope,
}

impl Check {
    /// Its own times say how long a look takes at most: all attempts, and what lies between them.
    pub(super) fn times(&self) -> Times {
        let attempts = Nanos::from(self.attempts);
        let longest = attempts.saturating_mul(self.timeout_ns.saturating_add(self.interval_ns)).saturating_add(SECOND);
        Times { start: longest, stop: USUAL.stop, monitor: longest, interval: USUAL.interval }
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// An echo request is answered.
    Ping(IpAddr),
    /// A connection is accepted, "host:port".
    Tcp(String),
    /// A page is there.
    Http(Http),
    /// A command exits with 0.
    Command(Vec<String>),
}

/// What is asked by HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Http {
    /// "host:port", with the port.
    pub address: String,
    /// What the header `Host` says: as in the URL.
    pub host: String,
    /// The path, and what follows it.
    pub path: String,
    /// The status that is well; none: 200 to 399.
    pub status: Option<u16>,
    /// What the page must have in it.
    pub contains: Option<String>,
}

/// What a failure of a check says about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The group, where it runs.
    #[default]
    Group,
    /// The node: a standby whose check fails may not take the group over.
    Node,
}

pub(super) fn read(t: &mut Table<'_, '_>, m: &mut Mistakes<'_>) -> Option<Kind> {
    let known = ["ping", "tcp", "http", "command"];
    let given: Vec<(&str, std::ops::Range<usize>)> =
        known.iter().filter_map(|key| Some((*key, t.any(key)?.span))).collect();
    let help = "write one of `ping = \"192.0.2.1\"`, `tcp = \"192.0.2.1:443\"`, `http = \"http://192.0.2.1/health\"`, `command = [\"/usr/local/bin/check\"]`";
    if given.is_empty() {
        m.error(&t.span().clone(), "the check does not say what is asked", help);
    }
    if let Some((second, at)) = given.get(1) {
        m.error(at, format!("the check asks by `{second}` and by `{}`", given[0].0), "make it two resources");
    }
    let status = t.integer(m, "status", 100, 599).map(|s| s.with(u16::try_from(s.value).unwrap_or(200)));
    let contains = t.string(m, "contains");
    if given.first().is_none_or(|(word, _)| *word != "http") {
        for (key, at) in
            [("status", status.as_ref().map(|s| &s.span)), ("contains", contains.as_ref().map(|c| &c.span))]
        {
            if let Some(at) = at {
                m.error(at, format!("`{key}` is for a check by `http`"), "remove it");
            }
        }
    }
    if let Some(given) = contains.as_ref().filter(|c| c.value.is_empty() || c.value.len() > CONTAINS_BYTES_MAX) {
        m.error(&given.span, "`contains` must have 1 to 1,024 bytes", "write a word that a good page has in it");
    }
    let attempts = t.integer(m, "attempts", 1, ATTEMPTS_MAX).and_then(|n| u32::try_from(n.value).ok());
    let mut time = |key, m: &mut Mistakes<'_>| t.string(m, key).and_then(|d| check_duration(&d, key, TIMES, m));
    let (interval, timeout) = (time("interval", m), time("timeout", m));
    let scope = choice(&t.string(m, "scope"), "scope", &[("group", Scope::Group), ("node", Scope::Node)], m);
    let probe = match given.first()?.0 {
        "ping" => t.string(m, "ping").and_then(|a| ping(&a, m)).map(Probe::Ping),
        "tcp" => t.string(m, "tcp").and_then(|a| resources::host_port(&a, "tcp", m)).map(Probe::Tcp),
        "http" => t.string(m, "http").and_then(|url| http(&url, m)).map(|(address, host, path)| {
            let (status, contains) = (status.map(|s| s.value), contains.map(|c| c.value));
            Probe::Http(Http { address, host, path, status, contains })
        }),
        _ => resources::command(t, "command", "/usr/local/bin/check", m).map(Probe::Command),
    };
    Some(Kind::Check(Check {
        probe: probe?,
        attempts: attempts.unwrap_or(ATTEMPTS),
        interval_ns: interval.unwrap_or(INTERVAL),
        timeout_ns: timeout.unwrap_or(TIMEOUT),
        scope,
    }))
}

fn ping(given: &At<String>, m: &mut Mistakes<'_>) -> Option<IpAddr> {
    let parsed: Option<IpAddr> = given.value.parse().ok();
    if parsed.is_none_or(|a| a.is_unspecified() || a.is_multicast()) {
        let message = format!("`ping` is \"{}\", which is no address of a machine", given.value.escape_debug());
        m.error(&given.span, message, "write an address, not a name: `ping = \"192.0.2.1\"`");
        return None;
    }
    parsed
}

/// "host:port", the host as given, and the path of a URL.
fn http(given: &At<String>, m: &mut Mistakes<'_>) -> Option<(String, String, String)> {
    let help = "write `http = \"http://192.0.2.1:8080/health\"`; for https use a command";
    let url = given.value.as_str();
    let mut wrong = |why: &str| {
        m.error(&given.span, format!("`http` is \"{}\", {why}", url.escape_debug()), help);
        None
    };
    if !url.bytes().all(|b| b.is_ascii_graphic()) {
        return wrong("which has characters that no URL has");
    }
    let Some(rest) = url.strip_prefix("http://") else { return wrong("which does not begin with http://") };
    let rest = rest.split('#').next().unwrap_or_default();
    let split = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(split);
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    if host.contains('@') {
        return wrong("which has a user in it");
    }
    // A colon outside of brackets begins the port.
    let bare = host.rsplit_once(']').map_or(host, |(_, after)| after);
    let address = if bare.contains(':') { host.to_owned() } else { format!("{host}:80") };
    if resources::split_host_port(&address).is_none() {
        return wrong("which names no host and port");
    }
    Some((address, host.to_owned(), path))
}
