//! A running guest: QEMU, and the control channel over which programs are run in it.

use std::{
    ffi::OsString,
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    channel::{Decoder, Job, Numbered, Output, PORT, Reply, Request, encode},
    kernel::Kernel,
    network::Nic,
};
use crate::{home::Home, netns::NetNs, process::Proc, wait};

/// From the start of QEMU to the guest's greeting: some seconds, and many on a machine under load.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// From the start of QEMU to its end of the channel.
const SOCKET_LIMIT: Duration = Duration::from_secs(30);
/// What a request may take beside the time that the program itself is given.
const SLACK: Duration = Duration::from_secs(60);
/// What a program is given where the caller names no time.
const RUN_LIMIT: Duration = Duration::from_secs(60);
/// Lines of the console that an error shows.
const CONSOLE_LINES: usize = 25;

/// What a guest is made of.
#[derive(Clone, Debug)]
pub struct Spec {
    /// A name for files and messages, unique among the guests of a home.
    pub name: String,
    /// The kernel.
    pub kernel: Kernel,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// CPUs.
    pub cpus: u8,
    /// Network devices, `eth0`, `eth1`, … in the guest.
    pub nics: Vec<Nic>,
}

impl Spec {
    /// One CPU, 512 MiB, no network.
    pub fn new(name: &str, kernel: &Kernel, initramfs: PathBuf) -> Self {
        let (name, kernel) = (name.to_owned(), kernel.clone());
        Self { name, kernel, initramfs, memory_mib: 512, cpus: 1, nics: Vec::new() }
    }
}

/// A guest; it ends when dropped, and with the process that made it.
#[derive(Debug)]
pub struct Guest {
    /// The release of its kernel, as it tells it.
    pub release: String,
    qemu: Proc,
    console: PathBuf,
    channel: UnixStream,
    decoder: Decoder,
    number: u64,
}

impl Guest {
    /// Starts a guest whose taps are in `ns`, and waits until it greets.
    pub fn boot(home: &Home, ns: &NetNs, spec: &Spec) -> Result<Self> {
        let socket = home.path().join(format!("{}.sock", spec.name));
        let console = home.path().join(format!("{}.console", spec.name));
        let mut command = Command::new("nice");
        command.args(["-n", "10", "qemu-system-x86_64"]).args(arguments(spec, &socket, &console));
        let mut qemu = Proc::spawn(home, ns, &spec.name, command)?;
        let channel = wait::until_some(SOCKET_LIMIT, "QEMU's control socket", || {
            if !qemu.is_running() {
                bail!("QEMU ended: {}", qemu.output().trim_end());
            }
            Ok(UnixStream::connect(&socket).ok())
        })?;
        let mut guest = Self { release: String::new(), qemu, console, channel, decoder: Decoder::default(), number: 0 };
        match guest.receive(BOOT_LIMIT)? {
            Reply::Hello(release) => guest.release = release,
            other => bail!("{} greeted with {other:?}", spec.name),
        }
        Ok(guest)
    }

    /// Runs a program to its end, for a minute at most.
    pub fn run(&mut self, words: &[&str]) -> Result<Output> {
        self.run_for(words, "", RUN_LIMIT)
    }

    /// Runs a program with this input to its end; when the time is up it is killed and the output says so.
    pub fn run_for(&mut self, words: &[&str], input: &str, limit: Duration) -> Result<Output> {
        let limit_ms = u64::try_from(limit.as_millis())?;
        match self.ask(Request::Run { words: owned(words), input: input.to_owned(), limit_ms }, limit + SLACK)? {
            Reply::Ended(output) => Ok(output),
            other => bail!("{words:?}: an answer that does not fit: {other:?}"),
        }
    }

    /// Runs a program that must succeed, and hands back its standard output.
    pub fn must(&mut self, words: &[&str]) -> Result<String> {
        let output = self.run(words)?;
        if !output.success() {
            bail!("{words:?} in {}: {}\n{}{}", self.qemu.name(), output.ending(), output.stdout, output.stderr);
        }
        Ok(output.stdout)
    }

    /// Runs lines of shell (busybox), which must succeed; the first line that fails ends them.
    pub fn shell(&mut self, lines: &str) -> Result<String> {
        self.must(&["sh", "-e", "-c", lines])
    }

    /// Starts a program in the background.
    pub fn start(&mut self, words: &[&str]) -> Result<usize> {
        match self.ask(Request::Start { words: owned(words) }, SLACK)? {
            Reply::Started(job) => Ok(job),
            other => bail!("{words:?}: an answer that does not fit: {other:?}"),
        }
    }

    /// How a program in the background is doing.
    pub fn look(&mut self, job: usize) -> Result<Job> {
        self.job(Request::Look { job })
    }

    /// Kills a program in the background.
    pub fn kill(&mut self, job: usize) -> Result<Job> {
        self.job(Request::Kill { job })
    }

    /// The end of what the guest's console showed.
    pub fn console(&self) -> String {
        let text = std::fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n")
    }

    fn job(&mut self, request: Request) -> Result<Job> {
        match self.ask(request, SLACK)? {
            Reply::Job(job) => Ok(job),
            other => bail!("an answer that does not fit: {other:?}"),
        }
    }

    fn ask(&mut self, request: Request, limit: Duration) -> Result<Reply> {
        self.number += 1;
        let frame = encode(&Numbered { number: self.number, body: request })?;
        self.channel.set_write_timeout(Some(limit))?;
        self.channel.write_all(&frame).with_context(|| self.state("cannot be asked"))?;
        match self.receive(limit)? {
            Reply::Refused(why) => bail!("{}: {why}", self.qemu.name()),
            reply => Ok(reply),
        }
    }

    /// Waits for the reply to the last request.
    fn receive(&mut self, limit: Duration) -> Result<Reply> {
        let end = Instant::now() + limit;
        let mut buffer = vec![0; 64 << 10];
        loop {
            while let Some(Numbered { number, body }) = self.decoder.pop()? {
                if number == self.number {
                    return Ok(body);
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{}", self.state(&format!("said nothing for {limit:?}")));
            }
            self.channel.set_read_timeout(Some(left))?;
            match self.channel.read(&mut buffer) {
                Ok(0) => bail!("{}", self.state("ended")),
                Ok(length) => self.decoder.push(&buffer[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error).with_context(|| self.state("cannot be heard")),
            }
        }
    }

    /// A sentence about the guest, with what QEMU and the console said.
    fn state(&self, what: &str) -> String {
        let (qemu, console) = (self.qemu.output(), self.console());
        format!("guest {} {what}; its console ends with:\n{}{console}", self.qemu.name(), qemu.trim_start())
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn arguments(spec: &Spec, socket: &std::path::Path, console: &std::path::Path) -> Vec<OsString> {
    let command_line = "console=ttyS0 loglevel=4 panic=-1 reboot=t mitigations=off nokaslr random.trust_cpu=on \
                        cryptomgr.notests no_timer_check tsc=reliable net.ifnames=0";
    let mut words: Vec<OsString> = [
        "-accel",
        "tcg",
        "-machine",
        "q35",
        "-cpu",
        "max",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-device",
        "virtio-rng-pci",
        "-device",
        "virtio-serial-pci",
    ]
    .map(OsString::from)
    .into();
    let mut add = |option: &str, value: OsString| words.extend([option.into(), value]);
    add("-smp", spec.cpus.to_string().into());
    add("-m", format!("{}M", spec.memory_mib).into());
    add("-kernel", spec.kernel.vmlinux.clone().into());
    add("-initrd", spec.initramfs.clone().into());
    add("-append", command_line.into());
    add("-serial", format!("file:{}", console.display()).into());
    add("-chardev", format!("socket,id=control,path={},server=on,wait=on", socket.display()).into());
    add("-device", format!("virtserialport,chardev=control,name={PORT}").into());
    for (number, nic) in spec.nics.iter().enumerate() {
        add("-netdev", format!("tap,id=net{number},ifname={},script=no,downscript=no", nic.tap).into());
        let mac = nic.mac.map(|byte| format!("{byte:02x}")).join(":");
        add("-device", format!("virtio-net-pci,netdev=net{number},mac={mac}").into());
    }
    words
}
