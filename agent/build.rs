//! Builds the BPF object from ../agent-ebpf with its own toolchain and leaves it where the kernel module embeds it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

#[path = "build/toolchain.rs"]
mod toolchain;

use toolchain::{Compiler, TARGET};

fn main() {
    if let Err(sentence) = build() {
        eprintln!("error: {sentence}");
        std::process::exit(1);
    }
}

fn build() -> Result<(), String> {
    let agent = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo names no manifest folder")?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo names no output folder")?);
    let sources = agent.join("../agent-ebpf");
    for watched in [sources.join("src"), sources.join("Cargo.toml"), agent.join("build"), agent.join("build.rs")] {
        println!("cargo::rerun-if-changed={}", watched.display());
    }
    println!("cargo::rerun-if-env-changed=BATON_BPF_TOOLCHAIN");

    let found = toolchain::find()?;
    let target = out.join("bpf");
    let mut cargo = match &found.compiler {
        Compiler::Ready(rustc) => {
            let mut cargo = inner(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.env("RUSTC", rustc).arg("build");
            cargo
        }
        Compiler::Nightly => {
            let mut cargo = inner("rustup".into());
            cargo.args(["run", "nightly", "cargo", "build", "-Z", "build-std=core"]);
            cargo
        }
    };
    cargo
        .current_dir(&sources)
        .args(["--release", "--bin", "baton-programs", "--features", "programs", "--target", TARGET])
        .arg("--target-dir")
        .arg(&target)
        // aya-ebpf and our atomics need inline assembly on the BPF target, which is not stable yet.
        .env("RUSTC_BOOTSTRAP", "aya_ebpf,baton_ebpf")
        .env("CARGO_ENCODED_RUSTFLAGS", flags(&found.linker));
    let output = cargo.output().map_err(|error| format!("cargo cannot be started for the BPF programs: {error}"))?;
    if !output.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        return Err("the BPF programs do not compile (the compiler's words are above)".into());
    }
    let object = target.join(TARGET).join("release/baton-programs");
    std::fs::copy(&object, out.join("baton-programs"))
        .map_err(|error| format!("{} cannot be copied: {error}", object.display()))?;
    Ok(())
}

/// The flags, in cargo's encoding. BTF comes from the full debug information.
fn flags(linker: &Path) -> String {
    [&format!("-Clinker={}", linker.display()), "-Clink-arg=--btf", "-Cdebuginfo=2", "-Ctarget-cpu=v3", "-Cpanic=abort"]
        .join("\u{1f}")
}

/// A command without the outer cargo's wishes, which are about another target (and, under clippy, another compiler).
fn inner(program: std::ffi::OsString) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let kept = text == "CARGO_HOME" || text.starts_with("CARGO_HTTP_") || text.starts_with("CARGO_NET_");
        let foreign = text.starts_with("CARGO") || text.starts_with("RUSTC") || text.starts_with("RUSTFLAGS");
        if (foreign && !kept) || text == "RUSTUP_TOOLCHAIN" || text == "TARGET" || text == "HOST" {
            command.env_remove(&name);
        }
    }
    command
}
