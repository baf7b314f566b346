//! `test`: setup, format check, lints, build, and every test of the workspace, the end-to-end ones included.

use anyhow::Result;

use crate::{
    run::{become_it, cargo, release_folder, run},
    setup,
};

/// Options of `test`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only tests whose name contains this; format check and lints are left out then.
    filter: Option<String>,
}

/// The verb. The tests come last, so that their last line is the last line.
pub fn verb(arguments: &Arguments) -> Result<()> {
    setup::ensure()?;
    if arguments.filter.is_none() {
        run(cargo().args(["fmt", "--all", "--check"]))?;
        run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    }
    run(cargo().args(["build", "--release", "--package", "baton", "--bins"]))?;
    let mut tests = cargo();
    // The end-to-end tests take turns by a lock of their own; all others may run side by side.
    tests.args(["test", "--workspace", "--no-fail-fast"]).env("BATON_BIN", release_folder().join("baton"));
    tests.args(&arguments.filter);
    become_it(&mut tests)
}
