//! `kind = "ocf"`: anything that an OCF resource agent runs.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;
use toml::de::DeValue;

use super::Kind;
use crate::config::{
    diagnostic::{Mistakes, did_you_mean},
    haproxy::choice,
    reader::{At, Table, Value},
};

/// Where agents are, unless the configuration says otherwise.
pub const OCF_ROOT: &str = "/usr/lib/ocf";

/// The keys of a resource that an OCF agent runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ocf {
    /// Who made the agent: "heartbeat".
    pub provider: String,
    /// The agent: "IPaddr2".
    pub agent: String,
    /// Where agents are.
    pub ocf_root: PathBuf,
    /// What the agent is told.
    pub parameters: BTreeMap<String, String>,
    /// What it shall be on the owner.
    pub role: OcfRole,
    /// Which times the configuration sets; the others are the agent's own advice.
    pub given: GivenTimes,
}

/// What a resource shall be on the owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OcfRole {
    /// Started.
    #[default]
    Started,
    /// Started, then promoted.
    Promoted,
}

/// Which times of its operations the configuration sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GivenTimes {
    /// `start_timeout`.
    pub start: bool,
    /// `stop_timeout`.
    pub stop: bool,
    /// `monitor_timeout`.
    pub monitor: bool,
    /// `monitor_interval`.
    pub interval: bool,
}

impl Ocf {
    /// The agent's program.
    pub fn path(&self) -> PathBuf {
        self.ocf_root.join("resource.d").join(&self.provider).join(&self.agent)
    }

    /// The agent's whole name: "ocf:heartbeat:IPaddr2".
    pub fn full_name(&self) -> String {
        format!("ocf:{}:{}", self.provider, self.agent)
    }
}

pub(super) fn read(t: &mut Table<'_, '_>, m: &mut Mistakes<'_>) -> Option<Kind> {
    let example = "name the agent: `agent = \"ocf:heartbeat:IPaddr2\"`";
    let agent = t.required(m, "agent", example);
    let parameters = t.any("parameters").map(|v| read_parameters(&v, m)).unwrap_or_default();
    let root = t.string(m, "ocf_root");
    let role = t.string(m, "role");
    let role = choice(&role, "role", &[("started", OcfRole::Started), ("promoted", OcfRole::Promoted)], m);
    let given = GivenTimes {
        start: t.any("start_timeout").is_some(),
        stop: t.any("stop_timeout").is_some(),
        monitor: t.any("monitor_timeout").is_some(),
        interval: t.any("monitor_interval").is_some(),
    };
    if let Some(root) = root.as_ref().filter(|r| !r.value.starts_with('/') || r.value.contains('\0')) {
        let message = format!("`ocf_root` is \"{}\", not an absolute path", root.value.escape_debug());
        m.error(&root.span, message, format!("write a whole path, such as \"{OCF_ROOT}\""));
    }
    let (provider, agent) = split(&agent?, m)?;
    let ocf_root = root.map_or_else(|| PathBuf::from(OCF_ROOT), |r| PathBuf::from(r.value));
    Some(Kind::Ocf(Ocf { provider, agent, ocf_root, parameters, role, given }))
}

/// "ocf:heartbeat:IPaddr2" in its parts.
fn split(agent: &At<String>, m: &mut Mistakes<'_>) -> Option<(String, String)> {
    let plain = |s: &&str| {
        !s.is_empty() && !s.starts_with('.') && s.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let parts: Vec<&str> = agent.value.split(':').collect();
    let (class, rest) = match parts.as_slice() {
        [class, rest @ ..] if rest.len() == 2 => (*class, rest),
        _ => ("", parts.as_slice()),
    };
    if let ("ocf", [provider, name]) = (class, rest)
        && plain(provider)
        && plain(name)
    {
        return Some(((*provider).to_owned(), (*name).to_owned()));
    }
    let help = match parts[0] {
        "systemd" | "service" => "a systemd unit is a resource of `kind = \"systemd\"`".to_owned(),
        "lsb" => "an init script is a resource of `kind = \"script\"`".to_owned(),
        "stonith" => "fence devices are no resources, and are to come".to_owned(),
        "ocf" if parts.len() == 2 => format!("name its provider, too: \"ocf:heartbeat:{}\"", parts[1]),
        _ if parts.len() == 1 && plain(&parts[0]) => format!("write it in full: \"ocf:heartbeat:{}\"", parts[0]),
        _ => "write it like \"ocf:heartbeat:IPaddr2\"; they are in /usr/lib/ocf/resource.d".to_owned(),
    };
    let hint = did_you_mean(class, ["ocf"]);
    m.error(
        &agent.span,
        format!("`agent` is \"{}\", which names no OCF agent{hint}", agent.value.escape_debug()),
        help,
    );
    None
}

fn read_parameters(v: &Value<'_, '_>, m: &mut Mistakes<'_>) -> BTreeMap<String, String> {
    let DeValue::Table(entries) = v.value else {
        m.error(
            &v.span,
            "`parameters` must be a table",
            "write `parameters = { ip = \"192.0.2.10\", cidr_netmask = 24 }`",
        );
        return BTreeMap::new();
    };
    let mut parameters = BTreeMap::new();
    for (name, value) in Table::root(entries).entries() {
        let text = match value.value {
            DeValue::String(s) => Some(s.to_string()),
            DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix()).ok().map(|n| n.to_string()),
            DeValue::Boolean(b) => Some(b.to_string()),
            _ => None,
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.value.is_empty() || !name.value.chars().all(plain) {
            let message = format!("\"{}\" is no name of a parameter", name.value.escape_debug());
            m.error(&name.span, message, "use letters, digits and \"_\"");
        } else if let Some(text) = text.filter(|t| !t.contains('\0')) {
            parameters.insert(name.value, text);
        } else {
            let message = format!("the parameter `{}` must be a string, a whole number, or true or false", name.value);
            m.error(&value.span, message, "put it in double quotes");
        }
    }
    parameters
}
