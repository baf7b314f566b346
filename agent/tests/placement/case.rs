//! One case: a world in TOML.

use std::collections::BTreeMap;

use baton::{
    cluster::{
        ids::{GroupId, VoterId},
        placement::{
            Amount, Constraints, Room, Unfit, World, against_order, plan, text,
            world::{Failback, Group, Halt, Node},
        },
    },
    config::size,
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    reason: String,
    nodes: BTreeMap<String, FileNode>,
    groups: BTreeMap<String, FileGroup>,
    #[serde(default)]
    down: Vec<String>,
    #[serde(default)]
    standby: Vec<String>,
    #[serde(rename = "move")]
    order: Option<(String, String)>,
    /// Only how many groups are where.
    #[serde(default)]
    summary: bool,
    #[serde(default)]
    expect: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileNode {
    arbiter: bool,
    standby: bool,
    /// Why it is fit for no group.
    unfit: Option<String>,
    cpu: Option<f64>,
    memory: Option<String>,
    cpu_overcommit: Option<f64>,
    memory_overcommit: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileGroup {
    /// So many of them, numbered.
    count: Option<usize>,
    on: Option<String>,
    moving: Option<String>,
    /// It has an owner, but does not run yet.
    starting: bool,
    nodes: Option<Vec<String>>,
    prefer: BTreeMap<String, i64>,
    stickiness: Option<i64>,
    failback: bool,
    /// The better node has not been better for long enough.
    unripe: bool,
    unfit: BTreeMap<String, String>,
    after: Vec<String>,
    with: Vec<String>,
    apart: Vec<String>,
    cpu: f64,
    memory: Option<String>,
    halt: Option<String>,
    draining: Option<String>,
}

/// A case that was read.
pub struct Case {
    pub reason: String,
    pub world: World,
    pub expected: String,
    names: Vec<String>,
    order: Option<(GroupId, VoterId)>,
    summary: bool,
}

impl Case {
    pub fn read(text: &str) -> Result<Self, toml::de::Error> {
        let file: File = toml::from_str(text)?;
        let names: Vec<String> = file.nodes.keys().cloned().collect();
        let id = |name: &String| {
            let position = names.iter().position(|n| n == name).unwrap_or_else(|| panic!("no node is called {name}"));
            VoterId(position as u8 + 1)
        };
        let mut world = World::default();
        for (name, node) in &file.nodes {
            world.nodes.insert(id(name), Node { standby: node.standby, room: node.room(), load: 0 });
        }
        for (name, group) in &file.groups {
            let copies = match group.count {
                Some(count) => (1..=count).map(|n| format!("{name}{n:02}")).collect(),
                None => vec![name.clone()],
            };
            for copy in copies {
                world.groups.insert(GroupId::new(&copy), group.read(&file, &id));
            }
        }
        for group in world.groups.values() {
            if let Some(node) = group.owner.and_then(|o| world.nodes.get_mut(&o)) {
                node.load += 1;
            }
        }
        file.down.iter().for_each(|n| world.lose(id(n)));
        file.standby.iter().for_each(|n| world.put_on_standby(id(n)));
        let order = file.order.as_ref().map(|(group, node)| (GroupId::new(group), id(node)));
        if let Some((group, node)) = &order {
            world.order(group, *node);
        }
        Ok(Self { reason: file.reason, world, expected: file.expect, names, order, summary: file.summary })
    }

    /// Whether nothing but the plan changes in this world: nobody is left alone for a while, just starting, or just moving.
    pub fn settles(&self) -> bool {
        let changes = |g: &Group| g.halt.is_some() || g.target.is_some() || (g.owner.is_some() && !g.running);
        !self.world.groups.values().any(changes)
    }

    /// The plan in words; of an order that is refused, why.
    pub fn planned(&self) -> String {
        let name = |node: VoterId| self.names[usize::from(node.0) - 1].clone();
        if let Some((group, to)) = &self.order {
            let against = against_order(&self.world, group, *to);
            if !against.is_empty() {
                return format!("refused: {}\n", text::list(&against, &name));
            }
        }
        let plan = plan(&self.world);
        if !self.summary {
            return plan.render(&name);
        }
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for place in plan.places.values() {
            *places.entry(place.node.map_or("nowhere".into(), name)).or_default() += 1;
        }
        let places = places.iter().map(|(node, count)| format!("{node}: {count}\n"));
        let kinds = [("start", true, false), ("move", true, true), ("stop", false, true)].map(|(word, to, from)| {
            let count = plan.steps.iter().filter(|s| s.to.is_some() == to && s.from.is_some() == from).count();
            format!("{word}: {count}\n")
        });
        places.chain(kinds).collect()
    }
}

fn thousandths(n: f64) -> u64 {
    (n * 1_000.0).round() as u64
}

fn bytes(text: &str) -> u64 {
    size::parse(text).unwrap_or_else(|| panic!("{text} is no size"))
}

impl FileNode {
    fn room(&self) -> Room {
        let times = |n: u64, by: Option<f64>| n * thousandths(by.unwrap_or(1.0)) / 1_000;
        Room {
            cpu: self.cpu.map(|c| times(thousandths(c), self.cpu_overcommit)),
            memory: self.memory.as_deref().map(|m| times(bytes(m), self.memory_overcommit)),
        }
    }
}

impl FileGroup {
    fn read(&self, file: &File, id: &impl Fn(&String) -> VoterId) -> Group {
        let against = file.nodes.iter().map(|(name, node)| {
            let mut why: Vec<Unfit> = Vec::new();
            why.extend(node.arbiter.then_some(Unfit::Arbiter));
            why.extend(self.nodes.as_ref().is_some_and(|n| !n.contains(name)).then_some(Unfit::NotAllowed));
            why.extend(node.standby.then_some(Unfit::Standby));
            why.extend(node.unfit.iter().chain(self.unfit.get(name)).map(|w| unfit(w)));
            (id(name), why)
        });
        let names = |of: &[String]| of.iter().map(|n| GroupId::new(n)).collect();
        let memory = self.memory.as_deref().map_or(0, bytes);
        Group {
            owner: self.on.as_ref().map(id),
            target: self.moving.as_ref().map(id),
            running: self.on.is_some() && !self.starting,
            against: against.collect(),
            scores: self.prefer.iter().map(|(n, score)| (id(n), *score)).collect(),
            stickiness: self.stickiness.unwrap_or(100),
            failback: match (self.failback, self.unripe) {
                (false, _) => Failback::Off,
                (true, true) => Failback::Ripe(None),
                (true, false) => Failback::Now,
            },
            constraints: Constraints {
                after: names(&self.after),
                with: names(&self.with),
                apart: names(&self.apart),
                needs: Amount { cpu: thousandths(self.cpu), memory },
            },
            halt: self.draining.as_ref().map(|n| Halt::Draining(id(n))).or(self.halt.as_deref().map(halt)),
            order: None,
        }
    }
}

fn unfit(word: &str) -> Unfit {
    match word {
        "silent" => Unfit::Silent,
        "wedged" => Unfit::Wedged,
        "restarting" => Unfit::Restarting,
        "no report" => Unfit::NoReport,
        "not ready" => Unfit::NotReady,
        "front down" => Unfit::FrontDown,
        "other configuration" => Unfit::OtherConfiguration,
        "refuses" => Unfit::Refuses,
        "unready" => Unfit::Unready,
        "no lease" => Unfit::NoLease,
        other => panic!("{other} is no reason"),
    }
}

fn halt(word: &str) -> Halt {
    match word {
        "stopped" => Halt::Stopped,
        "maintenance" => Halt::Maintenance,
        "blocked" => Halt::Blocked,
        "paused" => Halt::Paused,
        "round" => Halt::Round,
        "unheard" => Halt::Unheard,
        other => panic!("{other} is no halt"),
    }
}
