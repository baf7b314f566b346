//! `baton keygen`: a new cluster key.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use super::exit::{Exit, Failure};
use crate::config::ClusterKey;

/// Arguments of `baton keygen`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The new key file; it must not be there yet
    #[arg(value_name = "F")]
    file: PathBuf,
}

/// Writes a new random key, for its owner alone.
pub(super) fn run(args: &Args) -> Result<Exit, Failure> {
    ClusterKey::generate(&args.file)?;
    let file = args.file.display();
    writeln!(
        io::stdout().lock(),
        "{file} is new, and yours alone (mode 0600). Copy it to all machines of the cluster, for example:\n  scp -p {file} root@lb2:{file}"
    )?;
    Ok(Exit::Done)
}
