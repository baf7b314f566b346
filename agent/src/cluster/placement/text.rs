//! A plan in words: what `baton plan` prints and the golden tests compare.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    Unfit,
    plan::{Obstacle, Plan, Step, Wait, Why},
    world::{Amount, Halt, Room},
};
use crate::cluster::ids::VoterId;

/// How nodes are called.
pub type Names<'a> = &'a dyn Fn(VoterId) -> String;

impl Plan {
    /// One line a group, then one line a step.
    pub fn render(&self, names: Names<'_>) -> String {
        let mut out = String::new();
        let width = self.places.keys().map(|id| id.0.len()).max().unwrap_or(0);
        for (id, place) in &self.places {
            let node = place.node.map_or_else(|| "nowhere".to_owned(), |n| format!("on {}", names(n)));
            // Writing to a String cannot fail.
            _ = writeln!(out, "{:width$}  {node}: {}", id.0, place.why.text(names));
        }
        if self.steps.is_empty() {
            out.push_str("nothing to do\n");
        }
        for (number, step) in self.steps.iter().enumerate() {
            _ = writeln!(out, "{}. {}", number + 1, step.text(names));
        }
        out
    }
}

impl Step {
    /// "move web from lb1 to lb2, once db runs".
    pub fn text(&self, names: Names<'_>) -> String {
        let group = &self.group;
        let mut text = match (self.from, self.to) {
            (None, Some(to)) => format!("start {group} on {}", names(to)),
            (Some(from), Some(to)) => format!("move {group} from {} to {}", names(from), names(to)),
            (Some(from), None) => format!("stop {group} on {}", names(from)),
            (None, None) => format!("leave {group} stopped"),
        };
        let waits: Vec<String> = self.waits.iter().map(|w| w.text(self.to, names)).collect();
        if !waits.is_empty() {
            text = format!("{text}, once {}", waits.join(" and "));
        }
        text
    }
}

impl Wait {
    /// The condition, as it stands behind "once ".
    pub fn text(&self, to: Option<VoterId>, names: Names<'_>) -> String {
        let node = to.map(names).unwrap_or_default();
        match self {
            Self::Runs(g) => format!("{g} runs"),
            Self::Partner(g) => format!("{g} is on {node}"),
            Self::Leaves(g) => format!("{g} has left {node}"),
            Self::Room => format!("{node} has room"),
        }
    }
}

impl Why {
    /// The reason, as it stands behind "on lb1: " or "nowhere: ".
    pub fn text(&self, names: Names<'_>) -> String {
        match self {
            Self::Kept => "it stays".into(),
            Self::Moving => "it is being moved there".into(),
            Self::Ordered => "it was asked for there".into(),
            Self::Chosen { score } => format!("the best node that can take it, score {score}"),
            Self::Back { score } => format!("it goes back to the better node, score {score}"),
            Self::Follows(g) => format!("with {g}"),
            Self::Halted(Halt::Stopped) => "an operator stopped it".into(),
            Self::Halted(halt) => format!("it is left alone: {}", halt.text(names)),
            Self::NowhereElse(against) => format!("no other node can take it: {}", by_node(against, names)),
            Self::Nowhere(against) => by_node(against, names),
            Self::Ousted(g) => format!("it must not be where {g} is, and no other node can take it"),
            Self::NotWith(g, obstacles) if obstacles.iter().all(|o| *o == Obstacle::Without(g.clone())) => {
                format!("it must be with {g}, which is nowhere")
            }
            Self::NotWith(g, obstacles) => format!("it must be with {g}, but {}", list(obstacles, names)),
            Self::After(g) => format!("it starts only while {g} runs, and {g} does not"),
        }
    }
}

impl Halt {
    fn text(self, names: Names<'_>) -> String {
        match self {
            Self::Stopped => "an operator stopped it".into(),
            Self::Maintenance => "it is in maintenance".into(),
            Self::Blocked => "it could not be stopped".into(),
            Self::Draining(node) => format!("connections of its last move still drain on {}", names(node)),
            Self::Paused => "its last move has just been given up".into(),
            Self::Round => "a node is just being found lost".into(),
            Self::Unheard => "its owner is not heard".into(),
            Self::Unknown => "the log does not know it yet".into(),
        }
    }
}

impl Obstacle {
    /// The reason, as it stands behind "the node cannot take the group: ".
    pub fn text(&self, names: Names<'_>) -> String {
        match self {
            Self::Unfit(why) => why.to_string(),
            Self::Apart(g) => format!("{g} is there, from which it must keep apart"),
            Self::Without(g) => format!("it must be with {g}, which is not there"),
            Self::Room { needs, used, room } => lacks(*needs, *used, *room),
            Self::After(g) => format!("it starts only while {g} runs, and {g} does not"),
            Self::Halted(halt) => halt.text(names),
            Self::Stopping => "it has to be stopped first".into(),
            Self::Left(g, obstacles) => format!("{g} must come along, but {}", list(obstacles, names)),
        }
    }
}

/// Several obstacles in one clause.
pub fn list(obstacles: &[Obstacle], names: Names<'_>) -> String {
    obstacles.iter().map(|o| o.text(names)).collect::<Vec<_>>().join(", ")
}

/// Arbiters are left out, unless there is nobody else.
fn by_node(against: &BTreeMap<VoterId, Vec<Obstacle>>, names: Names<'_>) -> String {
    let arbiter = |why: &[Obstacle]| why.contains(&Obstacle::Unfit(Unfit::Arbiter));
    let nodes = against.iter().filter(|(_, why)| !arbiter(why));
    if nodes.clone().next().is_none() {
        return "there is no other node".into();
    }
    nodes.map(|(node, why)| format!("{}: {}", names(*node), list(why, names))).collect::<Vec<_>>().join("; ")
}

fn lacks(needs: Amount, used: Amount, room: Room) -> String {
    let mut lacks = Vec::new();
    let mut note = |room: Option<u64>, used: u64, needs: u64, what: &str, show: fn(u64) -> String| {
        if let Some(room) = room.filter(|room| needs > 0 && used.saturating_add(needs) > *room) {
            lacks.push(format!("{} {what} ({} is free)", show(needs), show(room.saturating_sub(used))));
        }
    };
    note(room.cpu, used.cpu, needs.cpu, "CPU", thousandths);
    note(room.memory, used.memory, needs.memory, "memory", bytes);
    format!("it needs {}", lacks.join(" and "))
}

/// "1.5" for 1500.
pub fn thousandths(n: u64) -> String {
    let text = format!("{}.{:03}", n / 1_000, n % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// "4GiB", with the largest unit that shows it exactly.
pub fn bytes(n: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = UNITS.into_iter().find(|(_, shift)| n != 0 && n.is_multiple_of(1 << shift));
    unit.map_or_else(|| format!("{n}B"), |(unit, shift)| format!("{}{unit}", n >> shift))
}
