//! `setup`: finds or installs what building and testing need, and says what it did.
//!
//! The BPF programs are compiled by one of two toolchains: Debian's `rustc-web` with a ready `core` for BPF, or rustup's
//! nightly, which builds `core` from source. Either will do.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::run::{cargo, find, first_line, run, succeeds};

/// Debian packages for the BPF toolchain, with what bpf-linker needs to be built.
const DEBIAN_TOOLCHAIN: [&str; 8] = [
    "rustc-web",
    "libstd-rust-web-dev-bpf",
    "llvm-22-dev",
    "libclang-22-dev",
    "libpolly-22-dev",
    "zlib1g-dev",
    "libzstd-dev",
    "libxml2-dev",
];
const LLVM: &str = "/usr/lib/llvm-22";
const BPF_LINKER: &str = "0.13";
/// Programs that demo, tests and benches run, and the packages they come from.
const PROGRAMS: [(&str, &str); 17] = [
    ("cc", "gcc"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("ping", "iputils-ping"),
    ("haproxy", "haproxy"),
    ("keepalived", "keepalived"),
    ("corosync", "corosync"),
    ("pacemakerd", "pacemaker"),
    ("crm_resource", "pacemaker-cli-utils"),
    ("ocf-tester", "resource-agents"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("busybox", "busybox-static"),
    ("systemd-notify", "systemd"),
    ("dbus-daemon", "dbus-daemon"),
    ("promtool", "prometheus"),
];

/// Programs that make and run guests. Debian's own keys are needed beside them, to verify its kernels.
const GUEST_PROGRAMS: [(&str, &str); 8] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("strip", "binutils"),
    ("ldd", "libc-bin"),
    ("dpkg-deb", "dpkg"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    ("lz4", "lz4"),
];
const DEBIAN_KEYS: (&str, &str) = ("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring");

/// Options of `setup`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only report what is there and what is missing; fails if something is.
    #[arg(long)]
    check: bool,
    /// Which toolchain compiles the BPF programs.
    #[arg(long, value_enum, default_value_t)]
    toolchain: Toolchain,
    /// Also what guests under QEMU need (`cargo xtask vm`).
    #[arg(long)]
    vm: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Toolchain {
    /// Whichever is there; else rustup's nightly where rustup is, else Debian's packages.
    #[default]
    Auto,
    /// Debian's rustc-web.
    Debian,
    /// rustup's nightly with rust-src.
    Nightly,
}

/// Finds what is missing and, unless asked only to check, installs it.
fn set_up(check: bool, toolchain: Toolchain, vm: bool) -> Result<()> {
    let toolchain = choose(toolchain);
    let mut packages: Vec<&str> = Vec::new();
    let mut missing = Vec::new();

    let compiler = match toolchain {
        Toolchain::Nightly => has_nightly(),
        _ => debian_rustc().is_some(),
    };
    say(compiler, "compiler for BPF", &description(toolchain));
    if !compiler {
        missing.push(description(toolchain));
        if toolchain == Toolchain::Debian {
            packages.extend(DEBIAN_TOOLCHAIN);
        }
    }
    let linker = find("bpf-linker");
    say(linker.is_some(), "bpf-linker", &linker.as_ref().map_or_else(String::new, |l| l.display().to_string()));
    if linker.is_none() {
        missing.push("bpf-linker".to_owned());
        if toolchain == Toolchain::Debian && !Path::new(LLVM).exists() {
            packages.extend(DEBIAN_TOOLCHAIN);
        }
    }
    let guest_programs: &[_] = if vm { &GUEST_PROGRAMS } else { &[] };
    for &(program, package) in PROGRAMS.iter().chain(guest_programs) {
        let found = find(program);
        say(found.is_some(), program, &found.as_ref().map_or_else(String::new, |f| f.display().to_string()));
        if found.is_none() {
            missing.push(program.to_owned());
            packages.push(package);
        }
    }
    if vm {
        let (keys, package) = DEBIAN_KEYS;
        say(Path::new(keys).exists(), package, keys);
        if !Path::new(keys).exists() {
            missing.push(package.to_owned());
            packages.push(package);
        }
    }
    let unfit = report_host();

    if check {
        if !missing.is_empty() {
            bail!("missing: {}; `cargo xtask setup` installs it", missing.join(", "));
        }
        return refuse(&unfit);
    }
    packages.sort_unstable();
    packages.dedup();
    if !packages.is_empty() {
        install_packages(&packages)?;
    }
    if toolchain == Toolchain::Nightly && !compiler {
        let arguments = ["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"];
        run(Command::new("rustup").args(arguments))?;
    }
    if linker.is_none() {
        install_linker(toolchain)?;
    }
    if missing.is_empty() {
        eprintln!("setup: everything was there already");
    } else {
        eprintln!("setup: installed {}", missing.join(", "));
    }
    refuse(&unfit)
}

/// The verb.
pub fn verb(arguments: &Arguments) -> Result<()> {
    set_up(arguments.check, arguments.toolchain, arguments.vm)
}

/// What other verbs call first: quick when everything is there.
pub fn ensure() -> Result<()> {
    set_up(false, Toolchain::Auto, false)
}

/// The same for what runs guests.
pub fn ensure_vm() -> Result<()> {
    set_up(false, Toolchain::Auto, true)
}

fn choose(wanted: Toolchain) -> Toolchain {
    if wanted != Toolchain::Auto {
        return wanted;
    }
    match (debian_rustc().is_some(), find("rustup").is_some()) {
        (true, _) => Toolchain::Debian,
        (false, true) if has_nightly() || find("apt-get").is_none() => Toolchain::Nightly,
        _ if has_debian_package() => Toolchain::Debian,
        (false, true) => Toolchain::Nightly,
        (false, false) => Toolchain::Debian,
    }
}

fn description(toolchain: Toolchain) -> String {
    match toolchain {
        Toolchain::Nightly => "rustup's nightly with rust-src".to_owned(),
        _ => debian_rustc().unwrap_or_else(|| "Debian's rustc-web with libstd-rust-web-dev-bpf".to_owned()),
    }
}

/// The version of Debian's compiler, if its `core` for BPF is there too.
fn debian_rustc() -> Option<String> {
    let sysroot = first_line(Command::new("/usr/bin/rustc").args(["--print", "sysroot"]))?;
    let core = Path::new(&sysroot).join("lib/rustlib/bpfel-unknown-none");
    core.exists().then(|| first_line(Command::new("/usr/bin/rustc").arg("--version")))?
}

fn has_nightly() -> bool {
    let Some(sysroot) = first_line(Command::new("rustc").args(["+nightly", "--print", "sysroot"])) else {
        return false;
    };
    Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").exists()
}

/// Whether this Debian knows the package (it is in the security suite from 12 on).
fn has_debian_package() -> bool {
    first_line(Command::new("apt-cache").args(["--names-only", "search", "^rustc-web$"])).is_some_and(|l| !l.is_empty())
}

fn install_packages(packages: &[&str]) -> Result<()> {
    let by_hand = format!("apt-get install {}", packages.join(" "));
    if find("apt-get").is_none() {
        bail!("this is no Debian; install what these packages hold, then run setup again: {}", packages.join(" "));
    }
    if !rustix::process::geteuid().is_root() {
        bail!("root is needed to install packages; run: sudo {by_hand}");
    }
    eprintln!("setup: installing Debian packages: {}", packages.join(" "));
    let mut update = apt();
    if run(update.args(["update", "-q"])).is_err() {
        eprintln!("setup: the package lists could not be refreshed; trying with those that are there");
    }
    run(apt().args(["install", "-y", "-q", "--no-install-recommends"]).args(packages))
        .with_context(|| format!("packages are missing; look at the messages above, or run: {by_hand}"))
}

/// apt-get that asks nothing, keeps standard output clean, and starts no service that it installs.
fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    command.stdin(std::process::Stdio::null()).stdout(std::io::stderr());
    command
}

fn install_linker(toolchain: Toolchain) -> Result<()> {
    eprintln!("setup: building bpf-linker, which takes a minute or two");
    let mut command = cargo();
    command.args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked"]);
    if toolchain == Toolchain::Debian {
        command.env("LLVM_PREFIX", LLVM).env("LLVM_SYS_221_PREFIX", LLVM);
        command.args(["--no-default-features", "--features", "llvm-22"]);
    }
    run(&mut command).context("bpf-linker could not be built; the messages above say why")
}

/// Says what this host offers; returns what tests, demo and benches cannot do without.
fn report_host() -> Vec<&'static str> {
    let bpffs = std::fs::read_to_string("/proc/filesystems").is_ok_and(|f| f.lines().any(|l| l.ends_with("\tbpf")));
    let facts = [
        (rustix::process::geteuid().is_root(), "root", "demo, tests and benches make network namespaces"),
        (Path::new("/sys/kernel/btf/vmlinux").exists(), "kernel BTF", "the BPF programs are loaded with it"),
        (bpffs, "BPF file system", "programs and maps are pinned there"),
        (
            succeeds(Command::new("unshare").args(["--net", "true"])),
            "network namespaces",
            "demo, tests and benches run in them",
        ),
    ];
    for (there, what, why) in facts {
        say(there, what, why);
    }
    facts.into_iter().filter(|(there, ..)| !there).map(|(_, what, _)| what).collect()
}

fn refuse(unfit: &[&str]) -> Result<()> {
    if !unfit.is_empty() {
        eprintln!("setup: building works, but demo, tests and benches also need: {}", unfit.join(", "));
    }
    Ok(())
}

fn say(there: bool, what: &str, detail: &str) {
    eprintln!(
        "setup: {} {what}{}{detail}",
        if there { "found  " } else { "missing" },
        if detail.is_empty() { "" } else { ": " }
    );
}
