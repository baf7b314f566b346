//! Process 1 of a guest, and the server that does what the host asks for over the control port.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::{
    mount::{MountFlags, mount},
    system::{RebootCommand, reboot},
};

use super::{
    channel::{Decoder, Numbered, PORT, Reply, Request, encode},
    image::MODULES,
    jobs::{Jobs, run},
};
use crate::wait;

/// What is mounted: type and place.
const MOUNTS: [(&str, &str); 7] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
];
const PROGRAMS: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// How long the control port may take to appear.
const PORT_LIMIT: Duration = Duration::from_secs(30);

/// Runs as process 1, or as the server that process 1 starts: process 1 itself only buries orphans, and ends the
/// guest once the server has ended.
pub fn main() -> Result<()> {
    if std::process::id() == 1 {
        if let Err(error) = prepare().and_then(|()| bury_until_the_server_ends()) {
            eprintln!("baton-guest: {error:#}");
        }
        // QEMU runs with -no-reboot, so this is its end.
        reboot(RebootCommand::Restart).context("cannot end the guest")?;
    }
    serve()
}

fn prepare() -> Result<()> {
    for (kind, place) in MOUNTS {
        mount(kind, place, kind, MountFlags::empty(), None).with_context(|| format!("cannot mount {place}"))?;
    }
    let order = fs::read_to_string(Path::new(MODULES).join("order")).context("no list of modules")?;
    order.lines().try_for_each(load)
}

fn load(module: &str) -> Result<()> {
    let file = File::open(Path::new(MODULES).join(module).with_extension("ko"))?;
    // SAFETY: finit_module(2) takes an open file, a string that ends with NUL, and flags.
    let done = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    let error = std::io::Error::last_os_error();
    if done != 0 && error.kind() != ErrorKind::AlreadyExists {
        return Err(error).with_context(|| format!("cannot load module {module}"));
    }
    Ok(())
}

fn bury_until_the_server_ends() -> Result<()> {
    let server = Command::new("/proc/self/exe")
        .env("PATH", PROGRAMS)
        .env("HOME", "/root")
        .current_dir("/root")
        .spawn()
        .context("cannot start the server")?;
    loop {
        // SAFETY: waitpid(2) with no place for a status only buries children.
        match unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } {
            pid if pid > 0 && pid.unsigned_abs() == server.id() => return Ok(()),
            pid if pid > 0 => {}
            _ => return Err(std::io::Error::last_os_error()).context("cannot wait for the server"),
        }
    }
}

/// Greets the host, then does one request after the other.
fn serve() -> Result<()> {
    let path = wait::until_some(PORT_LIMIT, "the control port", control_port)?;
    let mut port = File::options().read(true).write(true).open(&path).context("cannot open the control port")?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    port.write_all(&encode(&Numbered { number: 0, body: Reply::Hello(release) })?)?;
    let (mut jobs, mut decoder, mut buffer) = (Jobs::default(), Decoder::default(), vec![0; 64 << 10]);
    loop {
        match port.read(&mut buffer) {
            // The host has let go of its end; whether the guest goes on is decided by who runs QEMU.
            Ok(0) => thread::sleep(Duration::from_millis(10)),
            Ok(length) => decoder.push(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("cannot read from the control port"),
        }
        while let Some(Numbered { number, body }) = decoder.pop()? {
            let reply = answer(&mut jobs, body).unwrap_or_else(|error| Reply::Refused(format!("{error:#}")));
            port.write_all(&encode(&Numbered { number, body: reply })?)?;
        }
    }
}

fn answer(jobs: &mut Jobs, request: Request) -> Result<Reply> {
    Ok(match request {
        Request::Run { words, input, limit_ms } => Reply::Ended(run(&words, input, Duration::from_millis(limit_ms))?),
        Request::Start { words } => Reply::Started(jobs.start(&words)?),
        Request::Look { job } => Reply::Job(jobs.look(job)?),
        Request::Kill { job } => Reply::Job(jobs.kill(job)?),
    })
}

/// The device whose name is the control port's. There is no udev here that would make a link.
fn control_port() -> Result<Option<PathBuf>> {
    let Ok(ports) = fs::read_dir("/sys/class/virtio-ports") else {
        return Ok(None);
    };
    for port in ports {
        let port = port?;
        if fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == PORT) {
            return Ok(Some(Path::new("/dev").join(port.file_name())));
        }
    }
    Ok(None)
}
