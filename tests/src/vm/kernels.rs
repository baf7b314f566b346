//! Test binaries on other kernels: each kernel boots once, runs them all, and a table shows how each test ended.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use comfy_table::{Cell, Table, presets::UTF8_FULL_CONDENSED};

use super::{
    guest::{Guest, Spec},
    image::Image,
    kernel::Kernel,
    network::Network,
};
use crate::home::Home;

/// What a test binary may take under emulation, where the verifier needs half a minute for what takes half a second here.
const BINARY_LIMIT: Duration = Duration::from_secs(1_800);
/// Of what a failing binary printed, so many lines are shown from the beginning, and as many from the end.
const SHOWN_LINES: usize = 60;
/// Modules that the tests need. The kernel would load most of them by itself, had it a modprobe.
const MODULES: [&str; 14] = [
    "veth",
    "bridge",
    "8021q",
    "macvlan",
    "tun",
    "sch_ingress",
    "cls_bpf",
    "act_gact",
    "nf_tables",
    "nf_conntrack",
    "nft_ct",
    "nft_nat",
    "nft_chain_nat",
    "nft_fib_inet",
];
/// Programs of this machine that the tests run.
const PROGRAMS: [&str; 3] = ["ip", "nft", "tc"];

/// A test binary.
#[derive(Clone, Debug)]
pub struct Binary {
    /// `programs_gate`.
    pub name: String,
    /// Where it is.
    pub file: PathBuf,
}

/// How tests ended, by kernel and by test; a test's name is `binary::test`.
#[derive(Debug, Default)]
pub struct Results {
    kernels: Vec<String>,
    tests: BTreeMap<String, BTreeMap<String, String>>,
    failures: Vec<String>,
    logs: PathBuf,
    filter: Option<String>,
}

impl Results {
    /// No results yet; what failing binaries print is kept below the folder `logs`. With a filter, only tests whose name
    /// contains it are run.
    pub fn new(logs: PathBuf, filter: Option<String>) -> Self {
        Self { logs, filter, ..Self::default() }
    }

    /// Runs the binaries on a kernel and takes the results in.
    pub fn run(&mut self, kernel: &Kernel, guest: &Path, binaries: &[Binary]) -> Result<()> {
        let home = Home::new("kernels")?;
        let network = Network::new(&home, &[])?;
        let mut image = Image::new(kernel, guest)?;
        image.modules(&MODULES);
        for program in PROGRAMS {
            image.program(program)?;
        }
        for Binary { name, file } in binaries {
            image.binary(&format!("/tests/{name}"), file)?;
        }
        let initramfs = home.path().join("initramfs");
        image.write(&initramfs)?;
        let spec = Spec::new(&format!("linux-{}", kernel.series), kernel, initramfs);
        let mut guest = None;
        self.kernels.push(kernel.release.clone());
        for binary in binaries {
            let running = match guest.take() {
                Some(guest) => guest,
                None => Guest::boot(&home, &network.ns, &spec)?,
            };
            guest = self.run_one(&kernel.release, running, &binary.name);
        }
        Ok(())
    }

    /// Runs a binary in a guest, and hands the guest back if it is still of use.
    fn run_one(&mut self, kernel: &str, mut guest: Guest, name: &str) -> Option<Guest> {
        let start = Instant::now();
        let program = format!("/tests/{name}");
        let words: Vec<&str> =
            [program.as_str(), "--test-threads=1"].into_iter().chain(self.filter.as_deref()).collect();
        let output = match guest.run_for(&words, "", BINARY_LIMIT) {
            Ok(output) => output,
            Err(error) => {
                self.note(kernel, name, "(the guest)", "FAILED");
                self.failures.push(format!("{kernel}: {name}: {error:#}"));
                return None;
            }
        };
        let ended = results(&output.stdout);
        for (test, result) in &ended {
            self.note(kernel, name, test, result);
        }
        let failed = ended.iter().any(|(_, result)| result == "FAILED");
        let good = ended.iter().filter(|(_, result)| result == "ok").count();
        eprintln!("vm: {kernel}: {name}: {good} of {} in {} s", ended.len(), start.elapsed().as_secs());
        if !output.success() || (ended.is_empty() && self.filter.is_none()) {
            if !failed {
                self.note(kernel, name, "(the binary)", "FAILED");
            }
            let (ending, console) = (output.ending(), guest.console());
            let printed = format!("{}{}\nThe console ends with:\n{console}\n", output.stdout, output.stderr);
            self.failures.push(format!("{kernel}: {name}: {ending}\n{}", self.keep(kernel, name, &printed)));
        }
        Some(guest).filter(|_| !output.late)
    }

    /// Writes what a binary printed to a file, and hands back as much of it as a person wants to see at once.
    fn keep(&self, kernel: &str, name: &str, printed: &str) -> String {
        let file = self.logs.join(format!("{kernel}-{name}.log"));
        let kept = std::fs::create_dir_all(&self.logs).and_then(|()| std::fs::write(&file, printed));
        let place = match kept {
            Ok(()) => format!("all of it: {}", file.display()),
            Err(error) => format!("{} cannot be written: {error}", file.display()),
        };
        format!("{}\n({place})", abridged(printed))
    }

    fn note(&mut self, kernel: &str, binary: &str, test: &str, result: &str) {
        let row = self.tests.entry(format!("{binary}::{test}")).or_default();
        row.insert(kernel.to_owned(), result.to_owned());
    }

    /// A row for each test, a column for each kernel.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED);
        table.set_header(["test"].into_iter().chain(self.kernels.iter().map(String::as_str)));
        for (test, results) in &self.tests {
            let cells = self.kernels.iter().map(|kernel| results.get(kernel).map_or("-", String::as_str));
            table.add_row([Cell::new(test)].into_iter().chain(cells.map(Cell::new)));
        }
        table.to_string()
    }

    /// What failed, with all that was printed; an error if anything did, or if nothing ran.
    pub fn verdict(&self) -> Result<()> {
        self.failures.iter().for_each(|failure| eprintln!("\n{failure}"));
        if !self.failures.is_empty() {
            bail!("failed on another kernel: {} of the test binaries' runs", self.failures.len());
        }
        self.tests.first_key_value().map(|_| ()).context("no test was run")
    }
}

/// The first and the last lines: a verifier's log between them can have thousands.
fn abridged(printed: &str) -> String {
    let lines: Vec<&str> = printed.lines().collect();
    let left_out = lines.len().saturating_sub(2 * SHOWN_LINES);
    if left_out == 0 {
        return printed.to_owned();
    }
    let (first, last) = (&lines[..SHOWN_LINES], &lines[lines.len() - SHOWN_LINES..]);
    format!("{}\n… {left_out} lines …\n{}", first.join("\n"), last.join("\n"))
}

/// The tests that a test binary told of, by its lines `test NAME ... RESULT`.
fn results(printed: &str) -> Vec<(String, String)> {
    let lines = printed.lines().filter_map(|line| line.strip_prefix("test "));
    let parts = lines.filter_map(|line| line.split_once(" ... "));
    // What the test itself prints may stand between the dots and the result.
    parts
        .map(|(test, rest)| {
            (test.to_owned(), rest.split_whitespace().next().unwrap_or("?").trim_end_matches(',').to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_from_what_a_test_binary_prints() {
        let printed = "\nrunning 3 tests\ntest a ... ok\ntest b::c - should panic ... FAILED\n\
                       test d ... ignored, too slow\n\ntest result: FAILED. 1 passed\n";
        let expected = [("a", "ok"), ("b::c - should panic", "FAILED"), ("d", "ignored")];
        assert_eq!(results(printed), expected.map(|(test, result)| (test.to_owned(), result.to_owned())));
    }

    #[test]
    fn what_was_printed_is_abridged_in_the_middle() {
        let lines = |range: std::ops::Range<usize>| range.map(|n| format!("line {n}\n")).collect::<String>();
        assert_eq!(abridged(&lines(0..120)), lines(0..120));
        let short = abridged(&lines(0..1000));
        assert!(short.contains("line 59\n… 880 lines …\nline 940\n") && short.ends_with("line 999"));
    }

    #[test]
    fn nothing_run_and_anything_failed_are_errors() {
        let mut all = Results::default();
        assert!(all.verdict().is_err());
        all.kernels.push("6.1".into());
        all.note("6.1", "x", "y", "ok");
        assert!(all.verdict().is_ok());
        assert!(all.table().contains("x::y"));
        all.failures.push("z".into());
        assert!(all.verdict().is_err());
    }
}
