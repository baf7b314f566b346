//! `kind = "process"`: a program that stays in the foreground, and that Baton supervises itself.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;

use super::Kind;
use crate::{
    cluster::ids::{MILLISECOND, Nanos},
    config::{
        bytes,
        cluster::check_duration,
        diagnostic::{Mistakes, did_you_mean},
        haproxy::absolute,
        reader::{At, Table},
        resources,
    },
};

/// Less leaves a program no time to react; a day is for ever.
const KILL_AFTER: (Nanos, Nanos) = (10 * MILLISECOND, 86_400_000 * MILLISECOND);
/// A program that runs at all needs more than this.
const MEMORY_MIN: u64 = 1 << 20;
/// The kernel's own bound of numbers of processes.
const PIDS_MAX: i64 = 4 << 20;
/// Signals that a program may take as a wish to end.
const SIGNALS: [(&str, i32); 8] = [
    ("SIGTERM", libc::SIGTERM),
    ("SIGINT", libc::SIGINT),
    ("SIGQUIT", libc::SIGQUIT),
    ("SIGHUP", libc::SIGHUP),
    ("SIGUSR1", libc::SIGUSR1),
    ("SIGUSR2", libc::SIGUSR2),
    ("SIGWINCH", libc::SIGWINCH),
    ("SIGKILL", libc::SIGKILL),
];

/// The keys of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Process {
    /// The program by its whole path, and its arguments; never empty.
    pub command: Vec<String>,
    /// Its environment, beside what Baton sets.
    pub environment: BTreeMap<String, String>,
    /// The user that it runs as; none: root.
    pub user: Option<String>,
    /// The group, if not the user's own.
    pub group: Option<String>,
    /// Where it starts.
    pub directory: PathBuf,
    /// The number of the signal that asks it to end.
    pub stop_signal: i32,
    /// How long it may take to end before it is killed, ns; none: most of `stop_timeout`.
    pub kill_after_ns: Option<Nanos>,
    /// What says that it is ready.
    pub ready: Option<Ready>,
    /// Where its output goes; none: into the run directory.
    pub log: Option<PathBuf>,
    /// How much memory it and its children may have, bytes.
    pub memory: Option<u64>,
    /// How many processes and threads there may be of it.
    pub pids: Option<u32>,
}

/// What says that a process is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ready {
    /// It accepts connections, "host:port".
    Tcp(String),
    /// A command exits with 0.
    Command(Vec<String>),
    /// It says so itself (sd_notify(3)).
    Notify,
}

pub(super) fn read(t: &mut Table<'_, '_>, m: &mut Mistakes<'_>) -> Option<Kind> {
    let command = resources::command(t, "command", "/usr/sbin/service", m);
    let environment = resources::environment(t, m);
    let user = account(t, "user", "postgres", m);
    let group_at = t.any("group").map(|v| v.span.clone());
    let group = account(t, "group", "postgres", m);
    if let (Some(at), None) = (group_at, &user) {
        m.error(&at, "`group` is for a process with a `user`", "add `user = \"…\"`, or remove `group`");
    }
    let directory = t
        .string(m, "directory")
        .map_or_else(|| PathBuf::from("/"), |d| absolute(&d, "directory", "/var/lib/service", m));
    let stop_signal = t.string(m, "stop_signal").map_or(libc::SIGTERM, |s| signal(&s, m));
    let kill_after_ns = t.string(m, "kill_after").and_then(|d| check_duration(&d, "kill_after", KILL_AFTER, m));
    let ready = ready(t, m);
    let log = t.string(m, "log").map(|l| absolute(&l, "log", "/var/log/service.log", m));
    let memory = t.string(m, "memory").and_then(|given| memory(&given, m));
    let pids = t.integer(m, "pids", 1, PIDS_MAX).and_then(|n| u32::try_from(n.value).ok());
    Some(Kind::Process(Process {
        command: command?,
        environment,
        user,
        group,
        directory,
        stop_signal,
        kill_after_ns,
        ready,
        log,
        memory,
        pids,
    }))
}

fn account(t: &mut Table<'_, '_>, key: &'static str, example: &str, m: &mut Mistakes<'_>) -> Option<String> {
    let given = t.string(m, key)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@$".contains(c);
    if given.value.is_empty() || given.value.starts_with('-') || !given.value.chars().all(plain) {
        let message = format!("`{key}` is \"{}\", which is no name of a {key}", given.value.escape_debug());
        m.error(&given.span, message, format!("write a name or a number: `{key} = \"{example}\"`"));
    }
    Some(given.value)
}

fn signal(given: &At<String>, m: &mut Mistakes<'_>) -> i32 {
    SIGNALS.iter().find(|(word, _)| *word == given.value).map_or_else(
        || {
            let words = || SIGNALS.iter().map(|(word, _)| *word);
            let hint = did_you_mean(&given.value, words());
            let known = words().collect::<Vec<_>>().join(", ");
            m.error(
                &given.span,
                format!("`stop_signal` cannot be \"{}\"{hint}", given.value),
                format!("write one of {known}"),
            );
            libc::SIGTERM
        },
        |(_, number)| *number,
    )
}

fn memory(given: &At<String>, m: &mut Mistakes<'_>) -> Option<u64> {
    let parsed = bytes::parse(&given.value);
    if parsed.is_none_or(|bytes| bytes < MEMORY_MIN) {
        let wrong = if parsed.is_some() { "too little for any program" } else { "no amount of memory" };
        let help = "write a whole number and KiB, MiB, GiB or TiB: `memory = \"512MiB\"`";
        m.error(&given.span, format!("`memory` is \"{}\", which is {wrong}", given.value.escape_debug()), help);
        return None;
    }
    parsed
}

/// `ready = { tcp = "127.0.0.1:5432" }`, `{ command = [...] }` or `{ notify = true }`.
fn ready(t: &mut Table<'_, '_>, m: &mut Mistakes<'_>) -> Option<Ready> {
    let span = t.any("ready")?.span;
    let mut t = t.table(m, "ready")?;
    let tcp = t.any("tcp").is_some();
    let command = t.any("command").is_some();
    let notify = t.any("notify").is_some();
    let help =
        "write one of `{ tcp = \"127.0.0.1:5432\" }`, `{ command = [\"/usr/bin/pg_isready\"] }`, `{ notify = true }`";
    let found = match (tcp, command, notify) {
        (true, false, false) => t.string(m, "tcp").and_then(|a| resources::host_port(&a, "tcp", m)).map(Ready::Tcp),
        (false, true, false) => resources::command(&mut t, "command", "/usr/bin/pg_isready", m).map(Ready::Command),
        (false, false, true) => t.boolean(m, "notify").and_then(|n| n.value.then_some(Ready::Notify)),
        (false, false, false) => {
            m.error(&span, "`ready` does not say what is waited for", help);
            None
        }
        _ => {
            m.error(&span, "`ready` says more than one thing", help);
            None
        }
    };
    t.finish(m);
    found
}
