//! The demonstration: two nodes and an arbiter, HAProxy with two back ends behind a VIP, and an owner that fails in
//! several ways while a client asks a thousand times a second. Then planned moves under load, which drop nothing.

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use baton::clock;
use baton_lab::{
    baton::{Baton, GROUP, Profile},
    gates,
    haproxy::Proxies,
    http::{Asked, Asker, BackEnd},
    load::{
        http::{Load, Spec as LoadSpec},
        proxy,
        report::Report,
        stage::{Proxied, Stage, at_vips},
    },
    lock::Exclusive,
    scene::Scene,
    topology::{Spec, VIP4},
    trial::{self, Fault, Outcome, Watch},
    wait,
};
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

const MILLISECOND: u64 = 1_000_000;
const LIMIT: Duration = Duration::from_secs(60);

/// What happens to the owner, in order, and how the table calls it.
const STEPS: [(Fault, &str); 7] = [
    (Fault::CutOff, "owner cut off from all networks"),
    (Fault::Kill, "agent killed (SIGKILL)"),
    (Fault::Stop, "agent stopped (SIGSTOP), later continued"),
    (Fault::FrontDown, "front link of the owner down"),
    (Fault::Backplane, "whole backplane of the owner down"),
    (Fault::OneLink, "one of two backplane links down"),
    (Fault::Move, "operator asks for a move"),
];

/// Planned moves under load, to and fro.
const MOVES: usize = 4;
/// The part of the usual load (500 connections, and 200 new ones a second) that a small machine bears beside all else.
const LOAD: f64 = 0.2;

#[derive(Parser)]
#[command(about = "A cluster on this machine that fails over while you watch")]
struct Arguments {
    /// Print one JSON object on standard output; progress stays on standard error.
    #[arg(long)]
    json: bool,
    /// The cluster's profile: default, quick or fast.
    #[arg(long, default_value = "default")]
    profile: String,
}

struct Step {
    fault: Fault,
    title: &'static str,
    outcome: Outcome,
    asked: Asked,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let profile = Profile::named(&arguments.profile)?;
    let progress = Progress::new(STEPS.len() as u64 + 1);
    let steps = run(profile, &progress)?;
    let moved = planned_moves(&progress)?;
    progress.done();
    if arguments.json {
        print_json(&steps, &moved)?;
    } else {
        print_table(&steps)?;
        let mut out = std::io::stdout();
        writeln!(out, "{MOVES} planned moves under load, through HAProxy: {moved}")?;
    }
    moved.nothing_lost().context("a planned move lost something")?;
    let overlap = steps.iter().find(|s| s.outcome.overlap.ns() > 0);
    ensure!(overlap.is_none(), "two nodes served at once during `{}`", overlap.map_or("", |s| s.title));
    Ok(())
}

fn run(profile: Profile, progress: &Progress) -> Result<Vec<Step>> {
    let _one = Exclusive::take()?;
    progress.say("making a cluster: nodes lb1 and lb2, arbiter arb, back ends web1 and web2, and a client");
    let baton = Baton::new(profile, gates::INSPECT);
    let spec = Spec { back_ends: 2, ..Spec::usual("demo") };
    let mut scene = Scene::new(spec, Box::new(baton), MILLISECOND)?;
    let back_ends = scene.lab.back_ends.iter().map(|m| BackEnd::start(&m.ns, &m.name)).collect::<Result<Vec<_>>>()?;
    let proxies = Proxies::start(&scene.lab)?;
    let asker = Asker::start(&scene.lab.client()?.ns, VIP4.into())?;
    let owner = scene.steady(LIMIT)?;
    let began = clock::now();
    wait::until(LIMIT, "HAProxy to answer at the VIP", || Ok(asker.report(began, clock::now()).answered > 10))?;
    progress.say(&format!("{} owns {VIP4}; HAProxy answers there", scene.lab.nodes[owner].name));

    let mut steps = Vec::new();
    for (fault, title) in STEPS {
        progress.begin(title);
        let from = clock::now();
        let watch = Watch { steady_limit: LIMIT, ..Watch::default() };
        let outcome = trial::run(&mut scene, fault, watch).with_context(|| format!("while showing `{title}`"))?;
        let asked = asker.report(from, clock::now());
        let name = |node: Option<usize>| node.map_or("nobody", |n| scene.lab.nodes[n].name.as_str());
        let (before, after) = (name(Some(outcome.before)), name(outcome.after));
        let (gap, lost) = (outcome.gap_ns as f64 / 1e6, outcome.lost);
        progress.end(&format!("{title}: {before} → {after}, longest gap {gap:.1} ms, {lost} probes lost"));
        steps.push(Step { fault, title, outcome, asked });
    }
    progress.say("taking the cluster away");
    drop((asker, proxies, back_ends, scene));
    Ok(steps)
}

/// Moves a group with HAProxy to and fro under load. Returns what its clients saw.
fn planned_moves(progress: &Progress) -> Result<Report> {
    let _one = Exclusive::take()?;
    progress.begin("planned moves under load");
    // A lease that is long beside the stalls of a small machine: here the moves are shown, not the detection.
    let profile = Profile::custom(Duration::from_millis(20), Duration::from_millis(100));
    let baton = Baton::new(profile, gates::INSPECT).with_haproxy("");
    let mut stage = Stage::new(Spec::usual("demo-moves"), Box::new(baton), Proxied::BySystem)?;
    let mut owner = stage.steady(LIMIT)?;
    let spec = LoadSpec::usual(at_vips(proxy::PORT)[0]).scaled(LOAD);
    let from = clock::now();
    let load = Load::start(&stage.client()?, spec.clone())?;
    load.ready(&spec, LIMIT)?;
    let desk = stage.lab.arbiter.as_ref().context("the demo has an arbiter")?;
    for _ in 0..MOVES {
        let to = 1 - owner;
        let name = &stage.lab.nodes[to].name;
        let said = Baton::command(&stage.lab, desk, &["move", GROUP, name])?;
        progress.say(&format!("baton move {GROUP} {name}:\n  {}", said.trim_end().replace('\n', "\n  ")));
        owner = to;
    }
    let report = load.finish(from)?;
    stage.one_owner_at_a_time()?;
    progress.end("planned moves under load: done");
    Ok(report)
}

fn print_table(steps: &[Step]) -> Result<()> {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header([
        "what happened",
        "longest gap\n(ms)",
        "probes lost\n(1 each ms)",
        "two owners\n(ms)",
        "HTTP requests\nanswered",
        "failed",
        "machine's own\nstall (ms)",
    ]);
    for step in steps {
        let ms = |ns: u64| format!("{:.1}", ns as f64 / 1e6);
        table.add_row([
            step.title.to_owned(),
            ms(step.outcome.gap_ns),
            step.outcome.lost.to_string(),
            ms(step.outcome.overlap.ns()),
            step.asked.answered.to_string(),
            step.asked.failed.to_string(),
            ms(step.outcome.stall_ns),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    writeln!(std::io::stdout(), "{table}")?;
    Ok(())
}

#[derive(Serialize)]
struct Json {
    failovers: Vec<JsonStep>,
    planned_moves: JsonMoves,
}

#[derive(Serialize)]
struct JsonMoves {
    moves: usize,
    requests: u64,
    failed_requests: u64,
    broken_connections: u64,
    slowest_ms: f64,
}

#[derive(Serialize)]
struct JsonStep {
    kind: &'static str,
    gap_ms: f64,
    lost_probes: u64,
    overlap_ms: f64,
}

fn print_json(steps: &[Step], moved: &Report) -> Result<()> {
    let ms = |ns: u64| (ns as f64 / 1e4).round() / 100.0;
    let one = |step: &Step| JsonStep {
        kind: step.fault.name(),
        gap_ms: ms(step.outcome.gap_ns),
        lost_probes: step.outcome.lost,
        overlap_ms: ms(step.outcome.overlap.ns()),
    };
    let failovers = steps.iter().map(one).collect();
    let planned_moves = JsonMoves {
        moves: MOVES,
        requests: moved.answered,
        failed_requests: moved.failed,
        broken_connections: moved.broken + moved.unopened + moved.idle_closed,
        slowest_ms: ms(moved.slowest_ns()),
    };
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&Json { failovers, planned_moves })?)?;
    Ok(())
}

/// A bar on a terminal, plain lines elsewhere; always on standard error.
struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    fn new(steps: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(steps);
            if let Ok(style) = ProgressStyle::with_template("{spinner} [{bar:24}] {pos}/{len} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar }
    }

    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    fn begin(&self, title: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(title.to_owned()),
            None => eprintln!("now: {title}"),
        }
    }

    fn end(&self, line: &str) {
        self.say(line);
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
