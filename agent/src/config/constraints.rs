//! Checks what binds groups: `after`, `with`, `apart` and `needs` in `[[group]]`, `capacity` in `[[voter]]`.

use std::{collections::BTreeMap, ops::Range};

use serde::Serialize;
use toml::de::DeValue;

use super::{
    diagnostic::{Mistakes, did_you_mean},
    model::{Group, Voter},
    raw::RawGroup,
    reader::{At, Table, Value},
    size,
};
use crate::cluster::{
    ids::{GroupId, Role, VoterId},
    placement::{Amount, Constraints, Room, text},
};

/// The most that may be overcommitted, in thousandths: a hundredfold.
const OVERCOMMIT_MAX: u64 = 100_000;

/// What a node has, and by how much it may be promised more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Capacity {
    /// Processors, in thousandths; `None`: as many as are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u64>,
    /// Memory in bytes; `None`: as much as is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// How often each processor is given away, in thousandths.
    pub cpu_overcommit: u64,
    /// How often each byte is given away, in thousandths.
    pub memory_overcommit: u64,
}

impl Capacity {
    /// What may be given away in all.
    pub fn room(&self) -> Room {
        let times = |of: u64, overcommit: u64| {
            let all = u128::from(of) * u128::from(overcommit) / 1_000;
            u64::try_from(all).unwrap_or(u64::MAX)
        };
        Room {
            cpu: self.cpu.map(|c| times(c, self.cpu_overcommit)),
            memory: self.memory.map(|m| times(m, self.memory_overcommit)),
        }
    }
}

/// `capacity` in `[[voter]]`
#[derive(Debug)]
pub(super) struct RawCapacity {
    span: Range<usize>,
    value: Capacity,
}

impl RawCapacity {
    pub fn of(voter: &mut Table<'_, '_>, m: &mut Mistakes<'_>) -> Option<Self> {
        let span = voter.any("capacity")?.span;
        let mut t = voter.table_at(m, "capacity", "{ cpu = 8, memory = \"32GiB\" }")?;
        let (cpu, memory) = amounts(&mut t, m);
        let mut overcommit = |key: &'static str| {
            let value = t.any(key).and_then(|v| decimal(&v, key, m));
            let low = value.as_ref().filter(|v| !(1_000..=OVERCOMMIT_MAX).contains(&v.value));
            if let Some(v) = low {
                let message = format!("`{key}` is {}, out of range", text::thousandths(v.value));
                m.error(&v.span, message, "write how often each is given away, from 1.0 (not more than once) to 100.0");
            }
            value.map_or(1_000, |v| v.value)
        };
        let value = Capacity {
            cpu: cpu.map(|c| c.value),
            memory: memory.map(|c| c.value),
            cpu_overcommit: overcommit("cpu_overcommit"),
            memory_overcommit: overcommit("memory_overcommit"),
        };
        t.finish(m);
        Some(Self { span, value })
    }

    /// The capacity of a voter of this role.
    pub fn check(&self, role: Option<Role>, m: &mut Mistakes<'_>) -> Capacity {
        if role == Some(Role::Arbiter) {
            m.error(&self.span, "an arbiter has a `capacity`, but runs no group", "remove it");
        }
        self.value
    }
}

/// What binds a group, in `[[group]]`.
#[derive(Debug)]
pub(super) struct RawConstraints {
    after: Vec<At<String>>,
    with: Vec<At<String>>,
    apart: Vec<At<String>>,
    cpu: Option<At<u64>>,
    memory: Option<At<u64>>,
}

impl RawConstraints {
    pub fn read(group: &mut Table<'_, '_>, m: &mut Mistakes<'_>) -> Self {
        let mut names = |key| group.strings(m, key, "[\"db\"]").map(|n| n.value).unwrap_or_default();
        let (after, with, apart) = (names("after"), names("with"), names("apart"));
        let (mut cpu, mut memory) = (None, None);
        if group.any("needs").is_some()
            && let Some(mut t) = group.table_at(m, "needs", "{ cpu = 2, memory = \"4GiB\" }")
        {
            (cpu, memory) = amounts(&mut t, m);
            t.finish(m);
        }
        Self { after, with, apart, cpu, memory }
    }

    /// As they are in the file, sorted, so that the order in it means nothing.
    pub fn values(&self) -> Constraints {
        let names = |given: &[At<String>]| {
            let mut names: Vec<GroupId> = given.iter().map(|n| GroupId::new(&n.value)).collect();
            names.sort();
            names.dedup();
            names
        };
        let value = |given: &Option<At<u64>>| given.as_ref().map_or(0, |v| v.value);
        let needs = Amount { cpu: value(&self.cpu), memory: value(&self.memory) };
        Constraints { after: names(&self.after), with: names(&self.with), apart: names(&self.apart), needs }
    }
}

fn amounts(t: &mut Table<'_, '_>, m: &mut Mistakes<'_>) -> (Option<At<u64>>, Option<At<u64>>) {
    let cpu = t.any("cpu").and_then(|v| decimal(&v, "cpu", m));
    let memory = t.string(m, "memory").and_then(|given| {
        let bytes = size::parse(&given.value);
        if bytes.is_none() {
            let message = format!("`memory` is \"{}\", which is no size", given.value);
            m.error(&given.span, message, "write a number and a unit, KiB, MiB, GiB or TiB: \"4GiB\"");
        }
        bytes.map(|b| given.with(b))
    });
    (cpu, memory)
}

/// A number with up to three decimals, in thousandths.
fn decimal(v: &Value<'_, '_>, key: &str, m: &mut Mistakes<'_>) -> Option<At<u64>> {
    let number = match v.value {
        DeValue::Integer(n) => size::thousandths(n.as_str()),
        DeValue::Float(f) => size::thousandths(f.as_str()),
        _ => None,
    };
    if number.is_none() {
        let help = format!("write it without quotes, with three decimals at most: `{key} = 2` or `{key} = 0.5`");
        m.error(&v.span, format!("`{key}` must be a number, 0 or more"), help);
    }
    number.map(|n| v.with(n))
}

/// Checks the constraints of all groups against one another, and against what the nodes have.
pub(super) fn check(
    raw: &[RawGroup],
    groups: &BTreeMap<GroupId, Group>,
    voters: &BTreeMap<VoterId, Voter>,
    m: &mut Mistakes<'_>,
) {
    // A name that is wrong is no cause for further mistakes.
    let mut net = Net::default();
    for r in raw {
        let Some(name) = &r.name else { continue };
        for (key, given) in
            [("after", &r.constraints.after), ("with", &r.constraints.with), ("apart", &r.constraints.apart)]
        {
            for (position, other) in given.iter().enumerate() {
                if check_name(name, key, other, &given[..position], groups, m) {
                    net.edges.entry((key, &name.value)).or_default().push(other);
                }
            }
        }
    }
    for r in raw {
        let Some(name) = &r.name else { continue };
        for key in ["after", "with"] {
            net.check_circle(key, name, m);
        }
        net.check_followed(name, m);
        net.check_apart(name, m);
        net.check_leads(name, groups, voters, m);
        if let Some(group) = groups.get(&GroupId::new(&name.value)) {
            check_needs(&r.constraints, group, voters, m);
        }
    }
}

fn check_name(
    name: &At<String>,
    key: &str,
    other: &At<String>,
    before: &[At<String>],
    groups: &BTreeMap<GroupId, Group>,
    m: &mut Mistakes<'_>,
) -> bool {
    let wanted = &other.value;
    if *wanted == name.value {
        m.error(&other.span, format!("the group \"{wanted}\" is `{key}` itself"), "name another group, or remove it");
    } else if before.iter().any(|b| b.value == *wanted) {
        m.error(&other.span, format!("\"{wanted}\" is named twice in `{key}`"), "name it once");
    } else if groups.contains_key(&GroupId::new(wanted)) {
        return true;
    } else {
        let names = || groups.keys().map(|g| &*g.0);
        let hint = did_you_mean(wanted, names());
        let help = format!("the groups are: {}", names().collect::<Vec<_>>().join(", "));
        m.error(&other.span, format!("no group is called \"{wanted}\"{hint}"), help);
    }
    false
}

/// Who names whom, by key and name.
#[derive(Default)]
struct Net<'r> {
    edges: BTreeMap<(&'static str, &'r String), Vec<&'r At<String>>>,
}

impl<'r> Net<'r> {
    fn of(&self, key: &'static str, group: &'r String) -> &[&'r At<String>] {
        self.edges.get(&(key, group)).map_or(&[], Vec::as_slice)
    }

    /// All that is reached from a group, and by which way.
    fn reach(&self, key: &'static str, from: &'r String) -> BTreeMap<&'r String, Vec<&'r String>> {
        let mut reached: BTreeMap<&String, Vec<&String>> = BTreeMap::new();
        let mut open = vec![(from, Vec::new())];
        while let Some((group, way)) = open.pop() {
            for next in self.of(key, group) {
                if !reached.contains_key(&next.value) {
                    let way = [way.clone(), vec![&next.value]].concat();
                    reached.insert(&next.value, way.clone());
                    open.push((&next.value, way));
                }
            }
        }
        reached
    }

    /// Said once for each circle, at its first group by name.
    fn check_circle(&self, key: &'static str, name: &'r At<String>, m: &mut Mistakes<'_>) {
        let reached = self.reach(key, &name.value);
        let Some(way) = reached.get(&name.value) else {
            return;
        };
        if way.iter().any(|g| **g < name.value) {
            return;
        }
        if let Some(first) = self.of(key, &name.value).iter().find(|g| Some(&&g.value) == way.first()) {
            let steps: Vec<&str> = [&name.value].into_iter().chain(way.iter().copied()).map(String::as_str).collect();
            let message = format!("`{key}` goes round in a circle: {}", steps.join(" → "));
            m.error(&first.span, message, "take one of them out");
        }
    }

    /// Who comes after its own follower waits for it for ever: the follower waits until it is there.
    fn check_followed(&self, name: &'r At<String>, m: &mut Mistakes<'_>) {
        for first in self.of("after", &name.value) {
            if self.reach("with", &first.value).contains_key(&name.value) {
                let message = format!("\"{}\" comes after \"{}\", which is with it", name.value, first.value);
                let help = format!(
                    "\"{}\" starts only where \"{}\" is already: take one of the two out",
                    first.value, name.value
                );
                m.error(&first.span, message, help);
            }
        }
    }

    fn check_apart(&self, name: &'r At<String>, m: &mut Mistakes<'_>) {
        let with = |from: &'r String| self.reach("with", from);
        for other in self.of("apart", &name.value) {
            let here: Vec<&String> = with(&name.value).into_keys().chain([&name.value]).collect();
            let there: Vec<&String> = with(&other.value).into_keys().chain([&other.value]).collect();
            if let Some(both) = here.iter().find(|g| there.contains(g)) {
                let message =
                    format!("\"{}\" and \"{}\" must be apart, and both with \"{both}\"", name.value, other.value);
                m.error(&other.span, message, "take one of the two out: no node could satisfy both");
            }
        }
    }

    /// Whoever is with several groups needs one that they all follow; and all of them need a node that may run them all.
    fn check_leads(
        &self,
        name: &'r At<String>,
        groups: &BTreeMap<GroupId, Group>,
        voters: &BTreeMap<VoterId, Voter>,
        m: &mut Mistakes<'_>,
    ) {
        let reached = self.reach("with", &name.value);
        let (Some(first), Some(own)) = (self.of("with", &name.value).first(), groups.get(&GroupId::new(&name.value)))
        else {
            return;
        };
        let leads: Vec<&str> = reached.keys().filter(|g| self.of("with", g).is_empty()).map(|g| g.as_str()).collect();
        if leads.len() > 1 {
            let message = format!("\"{}\" is with {}, which need not be on one node", name.value, leads.join(" and "));
            m.error(&first.span, message, format!("let one of them be `with` the other: `with = [\"{}\"]`", leads[0]));
        }
        let mut shared = own.nodes.clone();
        for group in reached.keys().filter_map(|g| groups.get(&GroupId::new(g))) {
            let before = shared.clone();
            shared.retain(|n| group.nodes.contains(n));
            if shared.is_empty() && !before.is_empty() {
                let names = |nodes: &[VoterId]| {
                    let names: Vec<&str> = nodes.iter().filter_map(|n| Some(&*voters.get(n)?.name)).collect();
                    names.join(", ")
                };
                let message = format!("\"{}\" must be with \"{}\", but no node may run both", name.value, group.id);
                let help = format!(
                    "\"{}\" may run on {}; \"{}\" on {}",
                    name.value,
                    names(&before),
                    group.id,
                    names(&group.nodes)
                );
                m.error(&first.span, message, help);
            }
        }
    }
}

/// A need that no node of the group has the room for.
fn check_needs(raw: &RawConstraints, group: &Group, voters: &BTreeMap<VoterId, Voter>, m: &mut Mistakes<'_>) {
    let nodes = || group.nodes.iter().filter_map(|n| voters.get(n));
    let mut above = |given: &Option<At<u64>>, what: &str, of: fn(Room) -> Option<u64>, show: fn(u64) -> String| {
        let Some(given) = given else { return };
        let rooms: Vec<Option<u64>> = nodes().map(|v| v.capacity.and_then(|c| of(c.room()))).collect();
        let largest = rooms.iter().copied().collect::<Option<Vec<u64>>>().and_then(|r| r.into_iter().max());
        if let Some(largest) = largest.filter(|l| given.value > *l) {
            let message =
                format!("\"{}\" needs {} {what}, more than any of its nodes has", group.id, show(given.value));
            m.error(&given.span, message, format!("the most is {}, overcommitment included", show(largest)));
        }
    };
    above(&raw.cpu, "CPU", |r| r.cpu, text::thousandths);
    above(&raw.memory, "memory", |r| r.memory, text::bytes);
}
