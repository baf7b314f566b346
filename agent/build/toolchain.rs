//! Finds what builds BPF programs: a compiler with a core library for the BPF target, and bpf-linker.
//!
//! Used by the agent's build script; `cargo xtask setup` includes the same file to say what is missing.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The target of the programs.
pub const TARGET: &str = "bpfel-unknown-none";

/// A way to compile for the BPF target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// A compiler that ships a ready `core` for the target: Debian's rustc-web with libstd-rust-web-dev-bpf.
    Ready(PathBuf),
    /// A rustup nightly with rust-src, which builds `core` itself.
    Nightly,
}

/// Everything that is needed.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// The compiler.
    pub compiler: Compiler,
    /// bpf-linker.
    pub linker: PathBuf,
}

/// Finds both parts; the error is one sentence that names what is missing.
pub fn find() -> Result<Toolchain, String> {
    let compiler = compiler().ok_or(
        "no Rust compiler for BPF was found (Debian's rustc-web and libstd-rust-web-dev-bpf, or a rustup nightly with rust-src): run `cargo xtask setup`",
    )?;
    let linker =
        linker().ok_or("bpf-linker was found neither in PATH nor in cargo's bin folder: run `cargo xtask setup`")?;
    Ok(Toolchain { compiler, linker })
}

/// The compiler, if there is one. `BATON_BPF_TOOLCHAIN` = `debian` or `nightly` limits the choice.
pub fn compiler() -> Option<Compiler> {
    let wish = env::var("BATON_BPF_TOOLCHAIN").unwrap_or_default();
    let debian = PathBuf::from("/usr/bin/rustc");
    if wish != "nightly" && has_core(&debian) {
        return Some(Compiler::Ready(debian));
    }
    (wish != "debian" && nightly_has_source()).then_some(Compiler::Nightly)
}

/// bpf-linker, if it is installed.
pub fn linker() -> Option<PathBuf> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(cargo_home.map(|home| home.join("bin")))
        .map(|folder| folder.join("bpf-linker"))
        .find(|file| file.is_file())
}

fn has_core(rustc: &Path) -> bool {
    let Some(folder) = printed(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET])) else {
        return false;
    };
    std::fs::read_dir(folder)
        .is_ok_and(|files| files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libcore-")))
}

fn nightly_has_source() -> bool {
    printed(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]))
        .is_some_and(|sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir())
}

fn printed(command: &mut Command) -> Option<String> {
    // A compiler named by an outer cargo must not answer for the one that is asked.
    command.env_remove("RUSTUP_TOOLCHAIN");
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
