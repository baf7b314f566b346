//! `idle`: what the agents of a healthy cluster cost while nothing happens, from /proc.
//!
//! The CPU time is that of the process, user and system. In namespaces of one machine a packet's whole way is the
//! sender's time: the other machine's programs run in the system call that sends, and so does the acknowledgement's way
//! back. Machines of their own would share that between the two of them.

use std::{io::Write, thread, time::Duration};

use anyhow::{Context, Result};
use baton::clock;
use baton_lab::{
    baton::{Baton, Profile},
    gates,
    lock::Exclusive,
    process::Proc,
    system::System,
    topology::{Lab, Spec},
    wait,
};
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);
/// What the issue of the main job asks for at `quick`.
const CPU_TARGET_PERCENT: f64 = 2.0;
const RESIDENT_TARGET_MIB: f64 = 32.0;

/// Options of `idle`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The profile: default, quick or fast.
    #[arg(long, default_value = "quick")]
    profile: String,
    /// How long to measure.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Print one JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// The verb.
pub fn run(arguments: &Arguments) -> Result<()> {
    let _one = Exclusive::take()?;
    let program = Baton::program()?;
    if cfg!(debug_assertions) {
        eprintln!("this bench was built without optimizations, and so is the agent beside it: use `cargo xtask bench`");
    }
    let lab = Lab::new(Spec::usual("idle"))?;
    let mut baton = Baton::new(Profile::named(&arguments.profile)?, gates::INSPECT);
    baton.start(&lab)?;
    wait::until(LIMIT, "a cluster that is ready", || baton.ready(&lab))?;
    let owner = baton.owner(&lab)?;
    let began = clock::now();
    let before = usages(&mut baton, &lab)?;
    eprintln!("measuring {} for {} s", program.display(), arguments.seconds);
    thread::sleep(Duration::from_secs(arguments.seconds));
    let after = usages(&mut baton, &lab)?;
    let span = (clock::now() - began) as f64;

    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header(["machine", "role", "CPU, % of one core", "resident, MiB"]);
    let mut rows = Vec::new();
    for (n, machine) in lab.voters().enumerate() {
        let role = match machine.front {
            None => "arbiter",
            Some(_) if Some(n) == owner => "owner",
            Some(_) => "standby",
        };
        let cpu = (after[n].0 - before[n].0) as f64 / span * 100.0;
        let resident = after[n].1 as f64 / f64::from(1 << 20);
        table.add_row([machine.name.clone(), role.to_owned(), format!("{cpu:.2}"), format!("{resident:.1}")]);
        rows.push(json!({ "machine": machine.name, "role": role, "cpu_percent": cpu, "resident_mib": resident }));
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    eprintln!("{table}");
    eprintln!(
        "targets at quick: at most {CPU_TARGET_PERCENT} % and {RESIDENT_TARGET_MIB} MiB. CPU: user and system time of the process; with all\n\
         machines in one kernel, the receiver's programs and the acknowledgement's way back are time of the sender."
    );
    if arguments.json {
        let targets = json!({ "cpu_percent": CPU_TARGET_PERCENT, "resident_mib": RESIDENT_TARGET_MIB });
        let all = json!({ "profile": arguments.profile, "rows": rows, "targets": targets });
        writeln!(std::io::stdout(), "{all}")?;
    }
    baton.stop()
}

/// CPU time and memory of each voter's agent.
fn usages(baton: &mut Baton, lab: &Lab) -> Result<Vec<(u64, u64)>> {
    let agents = 0..lab.voters().count();
    agents.map(|n| baton.process(n).map(|agent: &mut Proc| agent.usage()).context("an agent is missing")?).collect()
}
