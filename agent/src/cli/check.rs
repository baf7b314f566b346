//! `baton check`: all mistakes of a configuration at once.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use super::exit::{Exit, Failure, colour};
use crate::{config, resources::ocf};

/// Arguments of `baton check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration
    #[arg(value_name = "F")]
    file: PathBuf,
    /// Check as the agent of this voter would [default: `name` in [this], or the host name]
    #[arg(long)]
    name: Option<String>,
}

/// Checks a file. Warnings are shown, and do not make it fail.
pub(super) fn run(args: &Args) -> Result<Exit, Failure> {
    let loaded = config::load(&args.file, args.name.as_deref())?;
    if let Some(warnings) = loaded.warnings {
        eprint!("{}", warnings.render(colour()));
    }
    let config = &loaded.config;
    let (mistakes, doubts) = ocf::check_here(config);
    for doubt in &doubts {
        eprintln!("{}: {doubt}", args.file.display());
    }
    if !mistakes.is_empty() {
        for mistake in &mistakes {
            eprintln!("{}: {mistake}", args.file.display());
        }
        return Ok(Exit::Usage);
    }
    let vips: usize = config.shared.groups.values().map(|g| g.vips.len()).sum();
    writeln!(
        io::stdout().lock(),
        "{} is good: cluster {}, {} voters, {} groups with {vips} VIPs; this machine is {}; digest {:016x}",
        args.file.display(),
        config.shared.name,
        config.shared.voters.len(),
        config.shared.groups.len(),
        config.this.name,
        config.digest
    )?;
    Ok(Exit::Done)
}
