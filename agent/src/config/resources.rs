//! Checks `[[group.resource]]`: the keys that all kinds share, and in which order resources start. The rest is the kind's own
//! (`kinds`).

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::Path,
};

use super::{
    cluster::{check_duration, check_name},
    diagnostic::{Mistakes, did_you_mean},
    haproxy::choice,
    kinds::{self, Kind},
    model::{OnFailed, Resource},
    reader::{At, Table, as_string},
};
use crate::cluster::ids::{MILLISECOND, Nanos};
use toml::de::DeValue;

/// What addresses are called among the resources of a group, for `requires`.
pub const ADDRESSES: &str = "vip";
/// What its HAProxys are called there.
pub const HAPROXY: &str = "haproxy";
/// As many resources as one group may have: what is longer is better several groups.
const RESOURCES_MAX: usize = 64;
const TIMEOUT: (Nanos, Nanos) = (100 * MILLISECOND, 24 * 3_600_000 * MILLISECOND);
const INTERVAL: (Nanos, Nanos) = (100 * MILLISECOND, 24 * 3_600_000 * MILLISECOND);

/// `[[group.resource]]`, its kind's keys read already.
#[derive(Debug)]
pub(super) struct RawResource {
    span: Range<usize>,
    name: Option<At<String>>,
    kind: Option<Kind>,
    requires: Option<At<Vec<At<String>>>>,
    on_failure: Option<At<String>>,
    start_timeout: Option<At<String>>,
    stop_timeout: Option<At<String>>,
    monitor_timeout: Option<At<String>>,
    monitor_interval: Option<At<String>>,
}

impl RawResource {
    pub fn read(mut t: Table<'_, '_>, m: &mut Mistakes<'_>) -> Self {
        let name = t.required(m, "name", "name the resource, as no other of the group is: `name = \"data\"`");
        let kind = t.required(m, "kind", "say what it is: `kind = \"script\"`");
        let mut raw = Self {
            span: t.span().clone(),
            name,
            kind: None,
            requires: t.strings(m, "requires", "[\"data\"]"),
            on_failure: t.string(m, "on_failure"),
            start_timeout: t.string(m, "start_timeout"),
            stop_timeout: t.string(m, "stop_timeout"),
            monitor_timeout: t.string(m, "monitor_timeout"),
            monitor_interval: t.string(m, "monitor_interval"),
        };
        match &kind {
            Some(kind) => raw.kind = kinds::read(kind, &mut t, m),
            // Which keys there may be is not known.
            None => t.ask_all(),
        }
        t.finish(m);
        raw
    }
}

/// Checks the resources of one group, in the file's order.
pub(super) fn check(raw: &[RawResource], m: &mut Mistakes<'_>) -> Vec<Resource> {
    if let Some(surplus) = raw.get(RESOURCES_MAX) {
        let message = format!("the group has {} resources", raw.len());
        m.error(
            &surplus.span,
            message,
            format!("at most {RESOURCES_MAX} are possible: make several groups, one after the other"),
        );
    }
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for name in raw.iter().filter_map(|r| r.name.as_ref()) {
        check_name(name, "the resource's name", m);
        if name.value == ADDRESSES || name.value == HAPROXY {
            let message = format!(
                "\"{}\" is what the group's own {} called in `requires`",
                name.value,
                if name.value == ADDRESSES { "addresses are" } else { "HAProxy is" }
            );
            m.error(&name.span, message, "give the resource another name");
        } else if !seen.insert(&name.value) {
            m.error(
                &name.span,
                format!("two resources of the group are called \"{}\"", name.value),
                "give each a name of its own",
            );
        }
    }
    let mut checked = Vec::new();
    let mut above: Option<&str> = None;
    for r in raw {
        let requires = check_requires(r, above, &seen, m);
        above = r.name.as_ref().map(|n| n.value.as_str());
        let (Some(name), Some(kind)) = (&r.name, &r.kind) else { continue };
        let usual = kind.times();
        let time = |given: &Option<At<String>>, key, bounds, usual, m: &mut Mistakes<'_>| {
            given.as_ref().and_then(|d| check_duration(d, key, bounds, m)).unwrap_or(usual)
        };
        checked.push(Resource {
            name: name.value.clone(),
            kind: kind.clone(),
            requires,
            on_failure: choice(
                &r.on_failure,
                "on_failure",
                &[("restart", OnFailed::Restart), ("move", OnFailed::Move), ("ignore", OnFailed::Ignore)],
                m,
            ),
            start_timeout_ns: time(&r.start_timeout, "start_timeout", TIMEOUT, usual.start, m),
            stop_timeout_ns: time(&r.stop_timeout, "stop_timeout", TIMEOUT, usual.stop, m),
            monitor_timeout_ns: time(&r.monitor_timeout, "monitor_timeout", TIMEOUT, usual.monitor, m),
            monitor_interval_ns: time(&r.monitor_interval, "monitor_interval", INTERVAL, usual.interval, m),
        });
    }
    check_cycles(raw, &checked, m);
    checked
}

fn check_requires(r: &RawResource, above: Option<&str>, names: &BTreeSet<&str>, m: &mut Mistakes<'_>) -> Vec<String> {
    let Some(given) = &r.requires else {
        return above.map(str::to_owned).into_iter().collect();
    };
    let mut requires = Vec::new();
    for name in &given.value {
        let own = r.name.as_ref().is_some_and(|n| n.value == name.value);
        let special = name.value == ADDRESSES || name.value == HAPROXY;
        if own {
            m.error(&name.span, "the resource requires itself", "name others that must run before it, or `[]`");
        } else if !special && !names.contains(name.value.as_str()) {
            let hint = did_you_mean(&name.value, names.iter().copied());
            m.error(
                &name.span,
                format!("no resource of the group is called \"{}\"{hint}", name.value),
                format!("name resources of this group, or \"{ADDRESSES}\" for its addresses"),
            );
        } else if !requires.contains(&name.value) {
            requires.push(name.value.clone());
        }
    }
    requires
}

/// Resources that wait for one another would never start.
fn check_cycles(raw: &[RawResource], resources: &[Resource], m: &mut Mistakes<'_>) {
    let mut started: BTreeSet<&str> = BTreeSet::from([ADDRESSES, HAPROXY]);
    loop {
        let before = started.len();
        for r in resources {
            if r.requires
                .iter()
                .all(|name| started.contains(name.as_str()) || !resources.iter().any(|o| o.name == *name))
            {
                started.insert(&r.name);
            }
        }
        if started.len() == before {
            break;
        }
    }
    let stuck: Vec<&str> = resources.iter().map(|r| r.name.as_str()).filter(|n| !started.contains(n)).collect();
    let place = stuck.first().and_then(|name| raw.iter().find(|r| r.name.as_ref().is_some_and(|n| n.value == *name)));
    if let Some(place) = place {
        let message =
            format!("these resources require one another in a circle, so none can start: {}", stuck.join(", "));
        m.error(&place.span, message, "take one of them out of another's `requires`");
    }
}

/// `environment = { NAME = "value" }`.
pub(super) fn environment(t: &mut Table<'_, '_>, m: &mut Mistakes<'_>) -> BTreeMap<String, String> {
    let Some(v) = t.any("environment") else { return BTreeMap::new() };
    let DeValue::Table(entries) = v.value else {
        m.error(&v.span, "`environment` must be a table of strings", "write `environment = { LANG = \"C\" }`");
        return BTreeMap::new();
    };
    let mut environment = BTreeMap::new();
    for (name, value) in Table::root(entries).entries() {
        let Some(value) = as_string(m, "`environment`", &name.value, &value) else { continue };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.value.is_empty()
            || name.value.starts_with(|c: char| c.is_ascii_digit())
            || !name.value.chars().all(plain)
        {
            m.error(
                &name.span,
                format!("\"{}\" is no name of a variable", name.value),
                "use letters, digits and \"_\"",
            );
        } else if value.value.contains('\0') {
            m.error(&value.span, "a variable's value cannot hold a zero byte", "take it out");
        } else {
            environment.insert(name.value, value.value);
        }
    }
    environment
}

/// A command that must be there: the program by its whole path and its arguments, no shell. A single string is the program alone.
pub(super) fn command(
    t: &mut Table<'_, '_>,
    key: &'static str,
    example: &str,
    m: &mut Mistakes<'_>,
) -> Option<Vec<String>> {
    let help = format!("write the program and its arguments, no shell: `{key} = [\"{example}\", \"--flag\"]`");
    let Some(v) = t.any(key) else {
        t.missing(m, key, &help);
        return None;
    };
    let words = match v.value {
        DeValue::String(program) => vec![program.to_string()],
        _ => t.strings(m, key, &format!("[\"{example}\"]"))?.value.into_iter().map(|word| word.value).collect(),
    };
    let absolute = words.first().is_some_and(|program| Path::new(program).is_absolute());
    if !absolute || words.iter().any(|word| word.contains('\0')) {
        let given = words.first().map_or_else(String::new, |program| format!("\"{}\"", program.escape_debug()));
        m.error(&v.span, format!("`{key}` does not begin with the whole path of a program: {given}"), help);
        return None;
    }
    Some(words)
}
