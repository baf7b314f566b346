//! `vm`: guests under QEMU, for what this machine's own kernel cannot show.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use crate::{
    run::{become_it, cargo, target_folder},
    setup,
};

/// Options of `vm`.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
    /// Ask Debian for the newest kernels even where some are kept.
    #[arg(long, global = true)]
    refresh: bool,
}

#[derive(Subcommand)]
enum What {
    /// The tests of the BPF programs on Debian's kernels.
    Kernels {
        /// A series of kernels, such as 6.1; all that there are without it.
        #[arg(long)]
        kernel: Vec<String>,
        /// Only tests whose name contains this.
        filter: Option<String>,
    },
    /// A planned move between two guests that answer with SYN cookies, each by a secret of its own.
    Steer {
        /// A series of kernels, such as 6.1; all that there are without it.
        #[arg(long)]
        kernel: Vec<String>,
    },
}

/// The test binaries that run on other kernels, as cargo's pattern; the one that measures time is left out.
const TESTS: &str = "programs*";
const TOO_SLOW: &str = "programs_speed";

/// The verb.
pub fn verb(arguments: &Arguments) -> Result<()> {
    setup::ensure_vm()?;
    let lab = built(&[
        "build",
        "--package",
        "baton-lab",
        "--bin",
        "baton-vm",
        "--bin",
        "baton-guest",
        "--bin",
        "baton-gate",
    ])?;
    let file = |name: &str| {
        let found = lab.iter().find(|(known, _)| known == name).map(|(_, file)| file);
        found.with_context(|| format!("cargo built no {name}"))
    };
    let mut command = Command::new(file("baton-vm")?);
    command.arg("--cache").arg(target_folder().join("vm")).arg("--guest").arg(file("baton-guest")?);
    if arguments.refresh {
        command.arg("--refresh");
    }
    match &arguments.what {
        What::Kernels { kernel, filter } => {
            let mut tests = built(&["test", "--package", "baton", "--test", TESTS, "--no-run"])?;
            tests.retain(|(name, _)| name.starts_with("programs") && name != TOO_SLOW);
            if tests.is_empty() {
                bail!("cargo built no test whose name is like {TESTS}");
            }
            command.arg("kernels");
            for (name, file) in tests {
                command.arg("--test").arg(format!("{name}={}", file.display()));
            }
            for series in kernel {
                command.args(["--kernel", series]);
            }
            command.args(filter);
        }
        What::Steer { kernel } => {
            command.arg("steer").arg("--gate").arg(file("baton-gate")?);
            for series in kernel {
                command.args(["--kernel", series]);
            }
        }
    }
    become_it(&mut command)
}

/// Builds by cargo, and hands back names and files of the programs (cargo's reference, "external tools").
fn built(arguments: &[&str]) -> Result<Vec<(String, PathBuf)>> {
    eprintln!("+ cargo {}", arguments.join(" "));
    let output = cargo()
        .args(arguments)
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cargo {} failed ({})", arguments.join(" "), output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(messages.lines().filter_map(program).collect())
}

/// Name and file of the program that one of cargo's messages tells of.
fn program(message: &str) -> Option<(String, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let name = message.get("target")?.get("name")?.as_str()?.to_owned();
    Some((name, message.get("executable")?.as_str()?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_among_cargos_messages() {
        let messages = [
            r#"{"reason":"compiler-artifact","target":{"name":"programs_veth"},"executable":"/t/programs_veth-1"}"#,
            r#"{"reason":"compiler-artifact","target":{"name":"serde"},"executable":null}"#,
            r#"{"reason":"build-finished","success":true}"#,
            "no message",
        ];
        let found: Vec<_> = messages.into_iter().filter_map(program).collect();
        assert_eq!(found, [("programs_veth".to_owned(), PathBuf::from("/t/programs_veth-1"))]);
    }
}
