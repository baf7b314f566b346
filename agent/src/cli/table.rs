//! The tables of `baton status`. Colours appear on a terminal only (comfy-table looks whether standard output is one).

use std::fmt::Write as _;

use comfy_table::{Attribute, Cell, Color, Table, presets};

use crate::{
    api::status::{GroupStatus, Life, LinkStatus, NodeRun, StatusReport, VoterStatus},
    clock,
    cluster::ids::{Nanos, Role},
    config::duration,
    telemetry::{record::cause_sentence, run::RunState},
};

/// The whole text.
pub(super) fn render(s: &StatusReport) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    _ = writeln!(
        out,
        "{} as {} sees it ({} {}, Baton {}, up {})",
        s.cluster,
        s.node,
        role(s.role),
        s.id,
        s.version,
        age(s.uptime_ns)
    );
    _ = writeln!(out, "{}\n", head(s).trim_fmt());
    _ = writeln!(out, "{}\n", groups(s).trim_fmt());
    _ = write!(out, "{}", voters(s).trim_fmt());
    if !s.fronts.is_empty() {
        let fronts: Vec<String> = s
            .fronts
            .iter()
            .map(|f| format!("{} {} (gate: {})", f.device, if f.up { "up" } else { "DOWN" }, f.gate))
            .collect();
        _ = write!(out, "\n\nfront: {}", fronts.join(", "));
    }
    for warning in &s.warnings {
        _ = write!(out, "\nwarning: {warning}");
    }
    out
}

fn head(s: &StatusReport) -> Table {
    let mut table = plain();
    let quorum = if s.quorum { good("yes") } else { bad("NO") };
    table.add_row(vec![
        Cell::new("quorum"),
        quorum,
        Cell::new(format!("{} of {} voters alive", s.alive(), s.voters.len())),
    ]);
    let term = format!("term {}, entry {} applied, {} in the gate", s.term, s.applied, s.gate_index);
    let leader = s.leader.as_deref().map_or_else(|| bad("none"), Cell::new);
    table.add_row(vec![Cell::new("leader"), leader, Cell::new(term)]);
    if s.role == Role::Arbiter {
        // It owns nothing, so nothing hangs on its lease.
        return table;
    }
    let lease = if s.lease.held { good("held") } else { bad("none") };
    let enforced = if s.lease.enforced { "enforced in the kernel" } else { "NOT enforced in the kernel" };
    let left = format!(
        "{} left of {}, {enforced}, beats every {}",
        short(s.lease.remaining_ns),
        duration::show(s.lease_ns),
        duration::show(s.interval_ns)
    );
    table.add_row(vec![Cell::new("lease"), lease, Cell::new(left)]);
    table
}

fn groups(s: &StatusReport) -> Table {
    let mut table = headed(&["GROUP", "OWNER", "EPOCH", "HERE", "VIPS", "COULD TAKE IT", "WHY"]);
    for g in &s.groups {
        let remarks = g.remarks();
        let name = if remarks.is_empty() {
            Cell::new(&g.name)
        } else {
            Cell::new(format!("{}\n{}", g.name, remarks.join("\n"))).fg(Color::Yellow)
        };
        let owner = g.owner.as_deref().map_or_else(|| bad("nobody"), good);
        let here = if g.serving_here { good("serving") } else { Cell::new("no") };
        let vips = g
            .vips
            .iter()
            .map(|v| if v.device.is_empty() { v.address.clone() } else { format!("{} {}", v.address, v.device) });
        let candidates = if g.candidates.is_empty() { bad("nobody") } else { Cell::new(g.candidates.join(", ")) };
        table.add_row(vec![
            name,
            owner,
            Cell::new(g.epoch),
            here,
            Cell::new(few(vips.collect())),
            candidates,
            Cell::new(why(g)),
        ]);
    }
    table
}

/// The groups, one line each.
pub(super) fn group_list(s: &StatusReport) -> String {
    let mut table = headed(&["GROUP", "OWNER", "EPOCH", "RESOURCES", "REMARKS"]);
    for g in &s.groups {
        let owner = match &g.owner {
            Some(owner) => good(owner),
            None if g.stopped => Cell::new("nobody"),
            None => bad("nobody"),
        };
        let mut remarks = g.remarks();
        if s.maintenance {
            remarks.push("the cluster is in maintenance".to_owned());
        }
        if let Some(target) = &g.moving_to {
            remarks.push(format!("moving to {target}"));
        }
        table.add_row(vec![
            Cell::new(&g.name),
            owner,
            Cell::new(g.epoch),
            Cell::new(counted(g)),
            Cell::new(remarks.join(", ")),
        ]);
    }
    table.trim_fmt()
}

/// How many resources of a group run on its owner, if that is known here.
fn counted(g: &GroupStatus) -> String {
    let Some(run) = g.runs.iter().find(|r| Some(&r.node) == g.owner.as_ref()) else { return "-".to_owned() };
    let running = run.run.resources.iter().filter(|r| r.state == RunState::Running).count();
    format!("{running} of {} run", run.run.resources.len())
}

/// One group with its resources.
pub(super) fn group_details(s: &StatusReport, g: &GroupStatus) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    _ = writeln!(out, "{}: owner {}, epoch {}", g.name, g.owner.as_deref().unwrap_or("nobody"), g.epoch);
    _ = writeln!(out, "{}", why(g));
    for warning in s.warnings.iter().filter(|w| w.split(' ').any(|word| word == g.name)) {
        _ = writeln!(out, "warning: {warning}");
    }
    if !g.vips.is_empty() {
        let vips: Vec<&str> = g.vips.iter().map(|v| v.address.as_str()).collect();
        _ = writeln!(out, "addresses: {}", vips.join(", "));
    }
    if !g.candidates.is_empty() {
        _ = writeln!(out, "could take it: {}", g.candidates.join(", "));
    }
    for NodeRun { node, run } in &g.runs {
        // Stamps are of the node's own clock.
        let here = *node == s.node;
        let mut table = headed(&["RESOURCE", "KIND", "STATE", "FOR", "FAILURES", "LAST ERROR"]);
        for r in &run.resources {
            let state = match r.state {
                RunState::Running => good("running"),
                RunState::Failed | RunState::Blocked => bad(r.state.as_str()),
                _ => Cell::new(r.state.as_str()),
            };
            let lasts = if here && r.since != 0 { age(clock::now().saturating_sub(r.since)) } else { "-".to_owned() };
            let error = r.last_error.as_deref().unwrap_or("-");
            table.add_row(vec![
                Cell::new(&r.name),
                Cell::new(&r.kind),
                state,
                Cell::new(lasts),
                Cell::new(r.failures),
                Cell::new(error),
            ]);
        }
        _ = writeln!(out, "\non {node}{}:\n{}", if here { " (this)" } else { "" }, table.trim_fmt());
    }
    if let Some(owner) = g.owner.as_ref().filter(|owner| **owner != s.node && g.runs.iter().all(|r| r.node != **owner))
    {
        _ = writeln!(
            out,
            "\nhow its resources run is told by the agent on {owner}: `baton group show {}` there",
            g.name
        );
    }
    out.truncate(out.trim_end().len());
    out
}

/// At most a handful of lines, and how many more there are.
fn few(lines: Vec<String>) -> String {
    /// VIPs shown of one group.
    const SHOWN: usize = 6;
    match lines.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{}\nand {more} more", lines[..SHOWN].join("\n")),
        _ => lines.join("\n"),
    }
}

fn why(g: &GroupStatus) -> String {
    let mut text = g.why.clone();
    if let (Some(cause), Some(owner)) = (g.cause, &g.owner) {
        text = format!("{text}; came to {owner} because {}", cause_sentence(cause));
    }
    if let Some(target) = &g.moving_to {
        text = format!("moving to {target}; {text}");
    }
    text
}

fn voters(s: &StatusReport) -> Table {
    let mut table =
        headed(&["VOTER", "ROLE", "STATE", "LEASE", "HEARD", "LINK", "HOOK", "ROUND TRIP p50 / p99", "LOST"]);
    for v in &s.voters {
        let name = if v.me { format!("{} (this)", v.name) } else { v.name.clone() };
        let lease = v.holds_lease.map_or("?", |held| if held { "held" } else { "none" });
        let seen = if v.me { "-".to_owned() } else { ago(v.last_seen_ns) };
        let mut row = vec![Cell::new(name), Cell::new(role(v.role)), state(v), Cell::new(lease), Cell::new(seen)];
        let mut links = v.links.iter();
        row.extend(links.next().map_or_else(Vec::new, link));
        table.add_row(row);
        for l in links {
            let mut row: Vec<Cell> = (0..5).map(|_| Cell::new("")).collect();
            row.extend(link(l));
            table.add_row(row);
        }
    }
    table
}

fn state(v: &VoterStatus) -> Cell {
    match v.life {
        Life::Alive if v.maintenance => Cell::new("maintenance").fg(Color::Yellow),
        Life::Alive if v.standby => Cell::new("standby").fg(Color::Yellow),
        Life::Alive => good("alive"),
        Life::Wedged => bad("no progress"),
        Life::Silent => bad("SILENT"),
        Life::NeverSeen => bad("never heard"),
    }
}

fn link(l: &LinkStatus) -> Vec<Cell> {
    let address = if l.up { Cell::new(&l.address) } else { bad(&format!("{} DOWN", l.address)) };
    let rtt = match (l.rtt_p50_ns, l.rtt_p99_ns) {
        (Some(p50), Some(p99)) => format!("{} / {}", short(p50), short(p99)),
        _ => "-".to_owned(),
    };
    let lost = format!("{} of {}", l.lost, l.lost.saturating_add(l.received));
    vec![address, Cell::new(&l.hook), Cell::new(rtt), Cell::new(lost)]
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table
}

fn headed(titles: &[&str]) -> Table {
    let mut table = plain();
    table.set_header(titles.iter().map(|t| Cell::new(t).add_attribute(Attribute::Bold)));
    table
}

fn good(text: &str) -> Cell {
    Cell::new(text).fg(Color::Green)
}

fn bad(text: &str) -> Cell {
    Cell::new(text).fg(Color::Red).add_attribute(Attribute::Bold)
}

const fn role(role: Role) -> &'static str {
    match role {
        Role::Node => "node",
        Role::Arbiter => "arbiter",
    }
}

/// A short duration, to the microsecond, or to the millisecond above 10 ms.
fn short(nanos: Nanos) -> String {
    let grain = if nanos < 10_000_000 { 1_000 } else { 1_000_000 };
    duration::show(nanos / grain * grain)
}

fn ago(nanos: Option<Nanos>) -> String {
    nanos.map_or_else(
        || "never".to_owned(),
        |n| {
            if n < 10_000_000_000 { format!("{} ago", short(n)) } else { format!("{} ago", age(n)) }
        },
    )
}

/// A long duration in its two largest units.
fn age(nanos: Nanos) -> String {
    let seconds = nanos / 1_000_000_000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_readable() {
        for (seconds, text) in [(5, "5s"), (65, "1m 5s"), (7_260, "2h 1m"), (180_000, "2d 2h")] {
            assert_eq!(age(seconds * 1_000_000_000), text);
        }
        assert_eq!(short(1_234_567), "1.234ms");
        assert_eq!(short(45_678_901), "45ms");
    }

    #[test]
    fn many_vips_are_counted_not_listed() {
        let lines: Vec<String> = (0..9).map(|n| n.to_string()).collect();
        assert_eq!(few(lines), "0\n1\n2\n3\n4\n5\nand 3 more");
        assert_eq!(few(vec!["a".into()]), "a");
    }
}
