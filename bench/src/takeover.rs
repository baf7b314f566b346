//! `takeover`: from the decision to the client's first answer, phase by phase, for one VIP and for a thousand.
//!
//! The instants are those of the flight recorder (some stamped by the gate program) and of the client's kernel. The
//! usual probe's millisecond would hide what is measured, so a denser one runs beside it around the takeover.

use std::{fmt, net::IpAddr, thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use baton::{clock, cluster::ids::Nanos};
use baton_lab::{
    baton::{Baton, Profile},
    gates,
    lock::Exclusive,
    probe::Probe,
    records,
    scene::Scene,
    system,
    topology::{Spec, VIP4},
    trial::{Fault, Watch},
    wait,
};
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::SliceRandom};

use crate::{
    takeover_report::{self, Cells, Sample},
    timeline::{Span, Timeline},
};

/// Between two questions of the usual probe, which tells when the cluster is steady.
const PROBE_NS: Nanos = 1_000_000;
/// And of the dense one.
const DENSE_NS: Nanos = 100_000;
/// Another node must have served alone for so long to count as the new owner.
const SERVED_NS: Nanos = 20_000_000;
/// The recorder tells a record 2 s after the change of owner at the latest.
const TOLD: Duration = Duration::from_secs(10);

/// Options of `takeover`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Trials a fault with one VIP.
    #[arg(long, default_value_t = 30)]
    trials: u32,
    /// Trials a fault with many VIPs.
    #[arg(long, default_value_t = 10)]
    many_trials: u32,
    /// How many VIPs (IPv4, one group) are many.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(2..=4_096))]
    many: u16,
    /// Faults that make another node take over.
    #[arg(long, value_delimiter = ',', default_values = ["cut-off", "sigkill", "move"])]
    faults: Vec<Fault>,
    /// The same with many VIPs.
    #[arg(long, value_delimiter = ',', default_values = ["sigkill", "move"])]
    many_faults: Vec<Fault>,
    /// The profile: default, quick or fast.
    #[arg(long, default_value = "quick")]
    profile: String,
    /// Print one JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// What a row of the table stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// How many VIPs the group has.
    pub vips: u16,
    /// What makes another node take over.
    pub fault: Fault,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} VIPs", self.fault.name(), self.vips)
    }
}

/// The verb.
pub fn run(arguments: &Arguments) -> Result<()> {
    let _one = Exclusive::take()?;
    let profile = Profile::named(&arguments.profile)?;
    let mut cells = Cells::new();
    rows(1, &arguments.faults, arguments.trials, &profile, &mut cells)?;
    rows(arguments.many, &arguments.many_faults, arguments.many_trials, &profile, &mut cells)?;
    takeover_report::print_table(&cells);
    if arguments.json {
        takeover_report::print_json(&arguments.profile, &cells)?;
    }
    let trials: usize = cells.values().map(|cell| cell.samples.len()).sum();
    ensure!(trials > 0, "no trial gave a result; the lines above say why");
    Ok(())
}

/// All trials with that many VIPs, in one cluster as long as it recovers, the faults in turns.
fn rows(vips: u16, faults: &[Fault], trials: u32, profile: &Profile, cells: &mut Cells) -> Result<()> {
    let mut scene: Option<Scene> = None;
    let mut random = SmallRng::from_os_rng();
    for round in 1..=trials {
        let mut faults = faults.to_vec();
        faults.shuffle(&mut random);
        for fault in faults {
            let row = Row { vips, fault };
            let cell = cells.entry(row).or_default();
            let stage = match &mut scene {
                Some(stage) => stage,
                None => {
                    let baton = Baton::new(profile.clone(), gates::INSPECT).with_vips(addresses(vips));
                    let stage = scene.insert(Scene::new(Spec::usual("takeover"), Box::new(baton), PROBE_NS)?);
                    // Nothing here looks at its records.
                    stage.addresses.stop();
                    stage
                }
            };
            match trial(stage, fault, &mut random) {
                Ok(sample) => {
                    eprintln!("round {round} of {trials}: {row}: {}", takeover_report::line(&sample));
                    cell.samples.push(sample);
                }
                Err(error) => {
                    // The logs that an error may carry are long: the beginnings say enough here.
                    let lines: Vec<_> = error.chain().map(|e| beginning(&e.to_string())).collect();
                    eprintln!("round {round} of {trials}: {row}: failed: {}", lines.join(": "));
                    cell.failed += 1;
                    scene = None;
                }
            }
        }
    }
    Ok(())
}

/// The first two lines as one: `baton` says what it is about to do before it says why it cannot.
fn beginning(text: &str) -> String {
    text.lines().take(2).collect::<Vec<_>>().join("; ")
}

/// The lab's own VIP, and as many host addresses of the network for benchmarks (RFC 2544) as are missing.
fn addresses(count: u16) -> Vec<IpAddr> {
    let further = (1..count).map(|n| {
        let [high, low] = n.to_be_bytes();
        IpAddr::from([198, 18, high, low])
    });
    std::iter::once(IpAddr::from(VIP4)).chain(further).collect()
}

/// One takeover, and the repair.
fn trial(scene: &mut Scene, fault: Fault, random: &mut SmallRng) -> Result<Sample> {
    let limit = Watch::default().steady_limit;
    let before = scene.steady(limit)?;
    let epoch = scene.system.takeovers(&scene.lab)?;
    let dense = Probe::start(&scene.lab.client()?.ns, VIP4.into(), DENSE_NS)?;
    wait::until(limit, "the dense probe to be answered", || Ok(dense.first_answer(0).is_some()))?;
    thread::sleep(scene.system.period().mul_f64(random.random_range(0.0..2.0)));

    let start = clock::now();
    fault.apply(scene, before).with_context(|| format!("cannot bring about `{}`", fault.name()))?;
    let after = scene.served_by_another(before, SERVED_NS, scene.system.patience())?;
    let answered = dense.first_answer_by_another(start, before);
    drop(dense);
    let name = scene.lab.nodes[after].name.clone();
    let found = wait::until_some(TOLD, "the record of the takeover", || {
        let records = records::of_all(&scene.lab);
        let newest = records.iter().filter(|r| r.epoch > epoch && r.to.as_deref() == Some(name.as_str()));
        let newest = newest.map(|r| r.epoch).max();
        Ok(newest.and_then(|epoch| Timeline::of(&records, epoch, &name, answered)))
    });
    let stall_ns = found.as_ref().map_or(0, |line| scene.stall.worst(line.decided, line.end()));
    let limit_ns = system::stall_limit_ns(scene.system.as_ref());
    fault.repair(scene, before)?;
    let line = found?;
    if line.since_decision(Span::Announced).is_none() {
        bail!("the record of the takeover lacks the announcement");
    }
    Ok(Sample { line, stall_ns, calm: stall_ns <= limit_ns })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn an_error_is_told_in_one_short_line() {
        assert_eq!(beginning("move failed: note\nerror: why\nlog"), "move failed: note; error: why");
        assert_eq!(beginning("gone"), "gone");
    }

    #[test]
    fn many_addresses_are_all_different_and_the_observed_one_is_among_them() {
        let all = addresses(4_096);
        assert_eq!((all.len(), all[0]), (4_096, IpAddr::from(VIP4)));
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 4_096);
        assert_eq!(all[256], IpAddr::from([198, 18, 1, 0]));
        assert_eq!(addresses(1), [IpAddr::from(VIP4)]);
    }
}
