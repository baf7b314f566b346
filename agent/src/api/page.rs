//! The status page: one HTML document, no script, nothing from elsewhere.

use std::{fmt::Write as _, sync::Arc};

use super::status::{GroupStatus, Life, StatusReport, VoterStatus};
use crate::{
    config::duration,
    telemetry::record::{Record, cause_sentence},
};

/// Records shown.
const RECORDS_MAX: usize = 10;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em;color:#222}\
table{border-collapse:collapse;margin:.5em 0 1.5em}td,th{border-bottom:1px solid #ddd;padding:.3em .8em;text-align:left}\
.good{color:#176f2c}.bad{color:#b3261e;font-weight:600}pre{background:#f5f5f5;padding:.8em;overflow-x:auto}";

/// The page.
pub(super) fn render(report: &StatusReport, records: &[Arc<Record>]) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"5\"><title>{0} on {1}</title><style>{STYLE}</style><h1>{0} on {1}</h1>",
        escape(&report.cluster),
        escape(&report.node)
    );
    _ = write!(
        out,
        "<p>{}; {}; leader {}, term {}; Baton {}.</p>",
        quorum(report),
        lease(report),
        escape(report.leader.as_deref().unwrap_or("none")),
        report.term,
        escape(&report.version)
    );
    for warning in &report.warnings {
        _ = write!(out, "<p class=\"bad\">{}</p>", escape(warning));
    }
    out.push_str("<h2>Groups</h2><table><tr><th>group<th>owner<th>epoch<th>VIPs<th>here<th>why</tr>");
    report.groups.iter().for_each(|g| group(&mut out, g));
    out.push_str(
        "</table><h2>Voters</h2><table><tr><th>voter<th>role<th>state<th>lease<th>last heard<th>links up</tr>",
    );
    report.voters.iter().for_each(|v| voter(&mut out, v));
    out.push_str("</table><h2>Failovers</h2>");
    if records.is_empty() {
        out.push_str("<p>None recorded.</p>");
    }
    for record in records.iter().rev().take(RECORDS_MAX) {
        _ = write!(out, "<pre>{}</pre>", escape(&record.render()));
    }
    out.push_str("<p><a href=\"/status\">as JSON</a>, <a href=\"/metrics\">metrics</a></p></html>\n");
    out
}

fn quorum(report: &StatusReport) -> String {
    let (class, word) = if report.quorum { ("good", "quorum") } else { ("bad", "no quorum") };
    format!("<span class=\"{class}\">{word}</span> ({} of {} voters alive)", report.alive(), report.voters.len())
}

fn lease(report: &StatusReport) -> String {
    match report.lease.held {
        true => format!("<span class=\"good\">lease held</span> for {}", duration::show(report.lease.remaining_ns)),
        false => "<span class=\"bad\">no lease</span>".into(),
    }
}

fn group(out: &mut String, g: &GroupStatus) {
    let owner = g.owner.as_deref().map_or("<span class=\"bad\">nobody</span>".into(), escape);
    let vips: Vec<String> = g.vips.iter().map(|v| escape(&v.address)).collect();
    let cause = g.cause.map_or("never owned", cause_sentence);
    let remarks: String = g.remarks().iter().map(|r| format!(" <span class=\"bad\">{}</span>", escape(r))).collect();
    let here = if g.serving_here { "<span class=\"good\">serving</span>" } else { "no" };
    _ = write!(
        out,
        "<tr><td>{}{remarks}<td>{owner}<td>{}<td>{}<td>{here}<td>{}; it came there because {}</tr>",
        escape(&g.name),
        g.epoch,
        vips.join("<br>"),
        escape(&g.why),
        escape(cause)
    );
}

fn voter(out: &mut String, v: &VoterStatus) {
    let (class, life) = match v.life {
        Life::Alive if v.maintenance => ("bad", "maintenance"),
        Life::Alive => ("good", "alive"),
        Life::Wedged => ("bad", "no progress"),
        Life::Silent => ("bad", "silent"),
        Life::NeverSeen => ("bad", "never heard"),
    };
    let seen = v.last_seen_ns.map_or("-".into(), |n| format!("{} ago", duration::show(n / 1_000 * 1_000)));
    let lease = v.holds_lease.map_or("?", |held| if held { "held" } else { "none" });
    let up = v.links.iter().filter(|l| l.up).count();
    let links = if v.me { "-".into() } else { format!("{up} of {}", v.links.len()) };
    let role = format!("{:?}", v.role).to_lowercase();
    _ = write!(
        out,
        "<tr><td>{}<td>{role}<td class=\"{class}\">{life}<td>{lease}<td>{seen}<td>{links}</tr>",
        escape(&v.name)
    );
}

/// Text as HTML.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
