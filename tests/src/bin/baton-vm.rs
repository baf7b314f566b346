//! What runs in guests: `cargo xtask vm` builds what is needed and calls it.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use baton_lab::vm::{
    kernel::{Kernel, SERIES},
    kernels::{Binary, Results},
    steer,
};
use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Arguments {
    /// Where kernels are kept.
    #[arg(long)]
    cache: PathBuf,
    /// The program that is process 1 of guests.
    #[arg(long)]
    guest: PathBuf,
    /// Ask Debian for the newest kernels even where some are kept.
    #[arg(long)]
    refresh: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Test binaries on other kernels.
    Kernels {
        /// A series of kernels, such as 6.1; all that there are without it.
        #[arg(long)]
        kernel: Vec<String>,
        /// A test binary, as NAME=FILE.
        #[arg(long)]
        test: Vec<String>,
        /// Only tests whose name contains this.
        filter: Option<String>,
    },
    /// A planned move between two guests that answer with SYN cookies.
    Steer {
        /// A series of kernels, such as 6.1; all that there are without it.
        #[arg(long)]
        kernel: Vec<String>,
        /// The program that runs gate and server in the guests.
        #[arg(long)]
        gate: PathBuf,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.verb {
        Verb::Kernels { kernel, test, filter } => kernels(&arguments, kernel, test, filter.clone()),
        Verb::Steer { kernel, gate } => {
            for kernel in chosen(&arguments, kernel)? {
                println!("{}", kernel.release);
                steer::run(&kernel, &arguments.guest, gate)?;
            }
            Ok(())
        }
    }
}

fn kernels(arguments: &Arguments, series: &[String], tests: &[String], filter: Option<String>) -> Result<()> {
    let binary = |text: &String| {
        let (name, file) = text.split_once('=').with_context(|| format!("{text} is not NAME=FILE"))?;
        Ok(Binary { name: name.into(), file: file.into() })
    };
    let binaries = tests.iter().map(binary).collect::<Result<Vec<_>>>()?;
    let mut results = Results::new(arguments.cache.join("failed"), filter);
    for kernel in chosen(arguments, series)? {
        results.run(&kernel, &arguments.guest, &binaries)?;
    }
    println!("{}", results.table());
    results.verdict()
}

/// The kernels of these series, or of all that there are.
fn chosen(arguments: &Arguments, series: &[String]) -> Result<Vec<Kernel>> {
    let all = SERIES.map(|(series, _)| series.to_owned());
    let series = if series.is_empty() { &all[..] } else { series };
    series.iter().map(|series| Kernel::get(&arguments.cache, series, arguments.refresh)).collect()
}
