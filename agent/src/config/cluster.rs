//! Checks `[cluster]` and `[this]`: timing, paths, the key.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{
    diagnostic::{Mistakes, did_you_mean},
    duration,
    key::ClusterKey,
    raw::{RawCluster, RawThis},
    reader::At,
};
use crate::cluster::{
    ids::{MILLISECOND, Nanos},
    timing::Timing,
};

/// The profiles and their timing.
const PROFILES: [(&str, Timing); 3] = [("default", Timing::DEFAULT), ("quick", Timing::QUICK), ("fast", Timing::FAST)];
/// The bounds of an interval.
const INTERVAL: (Nanos, Nanos) = (MILLISECOND / 2, 1_000 * MILLISECOND);
/// The bounds of a lease.
const LEASE: (Nanos, Nanos) = (2 * MILLISECOND, 10_000 * MILLISECOND);
/// A lease lasts at least this many intervals: one lost beat must not end it.
const INTERVALS_MIN: u64 = 3;
/// The UDP and TCP port on the backplane, unless the file says otherwise.
const PORT: u16 = 7420;
/// How many groups with resources start at once, unless the file says otherwise.
const STARTS_AT_ONCE: usize = 16;
/// Names are at most this long (as DNS labels are).
pub(super) const NAME_MAX: usize = 63;

/// The checked `[cluster]`.
pub(super) struct ClusterPart {
    pub name: String,
    pub timing: Timing,
    pub port: u16,
    pub key: Option<ClusterKey>,
}

/// Checks `[cluster]`. What is missing or wrong gets a harmless stand-in; it is noted in `m`.
pub(super) fn check_cluster(raw: &RawCluster, file: &Path, m: &mut Mistakes<'_>) -> ClusterPart {
    if let Some(name) = &raw.name {
        check_name(name, "the cluster's name", m);
    }
    ClusterPart {
        name: raw.name.as_ref().map(|n| n.value.clone()).unwrap_or_default(),
        timing: check_timing(raw, m),
        port: raw.port.as_ref().and_then(|p| u16::try_from(p.value).ok()).unwrap_or(PORT),
        key: raw.key_file.as_ref().and_then(|k| read_key(k, file, m)),
    }
}

/// Letters, digits, `-`, `_` and `.`, at most [`NAME_MAX`].
pub(super) fn check_name(name: &At<String>, what: &str, m: &mut Mistakes<'_>) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let good = !name.value.is_empty() && name.value.len() <= NAME_MAX && name.value.chars().all(fits);
    if !good {
        let help = format!("use 1 to {NAME_MAX} letters, digits, \"-\", \"_\" and \".\"");
        m.error(&name.span, format!("{what} is \"{}\", which is not a name", name.value.escape_debug()), help);
    }
    good
}

fn check_timing(raw: &RawCluster, m: &mut Mistakes<'_>) -> Timing {
    let interval = raw.interval.as_ref().map(|d| check_duration(d, "interval", INTERVAL, m));
    let lease = raw.lease.as_ref().map(|d| check_duration(d, "lease", LEASE, m));
    if let (Some(profile), Some(other)) = (&raw.profile, raw.interval.as_ref().or(raw.lease.as_ref())) {
        let help = "keep either `profile`, or both `interval` and `lease`";
        m.error(
            &other.span,
            format!("the timing is set twice: profile \"{}\" has an interval and a lease", profile.value),
            help,
        );
    }
    if let Some(profile) = &raw.profile {
        let Some((_, timing)) = PROFILES.iter().find(|(name, _)| *name == profile.value) else {
            let names = PROFILES.map(|(name, _)| name);
            let hint = did_you_mean(&profile.value, names);
            let help = "write \"default\" (10ms beats, 50ms lease), \"quick\" (4ms, 16ms) or \"fast\" (1ms, 4ms)";
            m.error(&profile.span, format!("there is no profile \"{}\"{hint}", profile.value), help);
            return Timing::DEFAULT;
        };
        return *timing;
    }
    match (&raw.interval, &raw.lease) {
        (Some(given), None) => {
            m.error(&given.span, "`interval` is set, but `lease` is not", "set both, or a `profile`")
        }
        (None, Some(given)) => {
            m.error(&given.span, "`lease` is set, but `interval` is not", "set both, or a `profile`")
        }
        _ => (),
    }
    let (Some(Some(interval)), Some(Some(lease))) = (interval, lease) else {
        return Timing::DEFAULT;
    };
    if lease < INTERVALS_MIN * interval
        && let Some(place) = &raw.lease
    {
        let message = format!(
            "the lease of {} is shorter than {INTERVALS_MIN} intervals of {}",
            duration::show(lease),
            duration::show(interval)
        );
        let help = format!(
            "one lost beat would end it: set `lease` to at least {}, or `interval` to at most {}",
            duration::show(INTERVALS_MIN * interval),
            duration::show(lease / INTERVALS_MIN)
        );
        m.error(&place.span, message, help);
    }
    Timing::of(interval, lease)
}

pub(super) fn check_duration(
    given: &At<String>,
    key: &str,
    bounds: (Nanos, Nanos),
    m: &mut Mistakes<'_>,
) -> Option<Nanos> {
    let (low, high) = bounds;
    let range = format!("from {} to {}", duration::show(low), duration::show(high));
    let Some(nanos) = duration::parse(&given.value) else {
        m.error(
            &given.span,
            format!("`{key}` is \"{}\", which is no duration", given.value),
            format!("write a number and a unit, {range}: \"10ms\""),
        );
        return None;
    };
    if !(low..=high).contains(&nanos) {
        m.error(
            &given.span,
            format!("`{key}` is {}, out of range", duration::show(nanos)),
            format!("choose a duration {range}"),
        );
        return None;
    }
    Some(nanos)
}

fn read_key(key_file: &At<String>, file: &Path, m: &mut Mistakes<'_>) -> Option<ClusterKey> {
    // A relative path starts where the configuration is, not where somebody happens to stand.
    let path = file.parent().unwrap_or(Path::new("")).join(&key_file.value);
    match ClusterKey::read(&path) {
        Ok(key) => Some(key),
        Err(error) => {
            use std::error::Error as _;
            let cause = error.source().map_or_else(String::new, |s| format!(": {s}"));
            let text = format!("{error}{cause}");
            let (message, help) = match text.split_once("; ") {
                Some((message, help)) => (message.to_owned(), help.to_owned()),
                None => (text, format!("make one by `baton keygen {}`, and copy it to all machines", path.display())),
            };
            m.error(&key_file.span, message, help);
            None
        }
    }
}

/// The checked `[this]`, without who this machine is.
pub(super) struct ThisPart {
    pub data_dir: PathBuf,
    pub run_dir: PathBuf,
    pub bpffs: PathBuf,
    pub metrics: Option<SocketAddr>,
    pub unenforced_lease: bool,
    pub realtime: bool,
    pub starts_at_once: usize,
}

/// Checks `[this]`.
pub(super) fn check_this(raw: &RawThis, m: &mut Mistakes<'_>) -> ThisPart {
    let metrics = raw.metrics.as_ref().and_then(|given| {
        let parsed = given.value.parse::<SocketAddr>().ok().filter(|a| a.port() != 0);
        if parsed.is_none() {
            let message = format!("`metrics` is \"{}\", which is no address with a port", given.value);
            m.error(&given.span, message, "write an IP address and a port: \"127.0.0.1:9420\" or \"[::1]:9420\"");
        }
        parsed
    });
    if let Some(unenforced) = raw.unenforced_lease.as_ref().filter(|u| u.value) {
        let message = "the lease of this machine is not enforced in the kernel";
        m.warning(&unenforced.span, message, "a stopped agent goes on serving: use it for trials only");
    }
    ThisPart {
        data_dir: check_path(raw.data_dir.as_ref(), "data_dir", "/var/lib/baton", m),
        run_dir: check_path(raw.run_dir.as_ref(), "run_dir", super::RUN_DIR, m),
        bpffs: check_path(raw.bpffs.as_ref(), "bpffs", "/sys/fs/bpf", m),
        metrics,
        unenforced_lease: raw.unenforced_lease.as_ref().is_some_and(|u| u.value),
        realtime: raw.realtime.as_ref().is_none_or(|r| r.value),
        starts_at_once: raw
            .starts_at_once
            .as_ref()
            .and_then(|n| usize::try_from(n.value).ok())
            .unwrap_or(STARTS_AT_ONCE),
    }
}

fn check_path(given: Option<&At<String>>, key: &str, default: &str, m: &mut Mistakes<'_>) -> PathBuf {
    let Some(given) = given else {
        return PathBuf::from(default);
    };
    let path = PathBuf::from(&given.value);
    if !path.is_absolute() {
        m.error(
            &given.span,
            format!("`{key}` is \"{}\", not an absolute path", given.value),
            format!("write a whole path, such as \"{default}\""),
        );
    }
    path
}
