//! Processes, held by pidfd: their end is an event and not the result of a poll, and a number that was used again is never
//! taken for the process that had it before.

mod account;
mod launch;
mod run;

use std::{
    fmt, fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid},
};
use serde::{Deserialize, Serialize};

pub use account::Account;
pub use launch::{Launch, PATH, launch};
pub use run::{Finished, run, spawn};
use tokio::io::{Interest, unix::AsyncFd};

/// What tells a process from all others of a machine, over restarts of whoever remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number.
    pub pid: u32,
    /// When it started: clock ticks since boot (proc_pid_stat(5), field 22).
    pub started: u64,
    /// Which boot (/proc/sys/kernel/random/boot_id).
    pub boot: String,
}

/// A process.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    started: u64,
    fd: OwnedFd,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with a code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// The kernel told another parent: an agent before this one had started it.
    Unknown,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
            Self::Unknown => f.write_str("ended"),
        }
    }
}

/// What /proc says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    state: u8,
    parent: u32,
    session: u32,
    started: u64,
}

impl Process {
    /// The living process with a number.
    ///
    /// # Errors
    /// The kernel's; `NotFound` when there is none, or it has ended and nobody has asked for its status yet.
    pub fn open(pid: u32) -> io::Result<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        let fd = pidfd_open(raw, PidfdFlags::empty()).map_err(|e| match e {
            rustix::io::Errno::SRCH => io::Error::from(io::ErrorKind::NotFound),
            e => e.into(),
        })?;
        // Read after the descriptor was opened: if the process ended in between, the descriptor says so below.
        let stat = stat(pid)?;
        let process = Self { pid, started: stat.started, fd };
        if process.ended() { Err(io::ErrorKind::NotFound.into()) } else { Ok(process) }
    }

    /// A child that may have ended already; nobody has asked for its status yet, so its number is its own still.
    fn child(pid: u32) -> io::Result<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        let fd = pidfd_open(raw, PidfdFlags::empty())?;
        let started = read_stat(&fs::read(format!("/proc/{pid}/stat"))?).map_or(0, |s| s.started);
        Ok(Self { pid, started, fd })
    }

    /// The process that was remembered, if it lives still.
    ///
    /// # Errors
    /// As [`Self::open`]; `NotFound` also when the number belongs to another process now.
    pub fn find(identity: &Identity) -> io::Result<Self> {
        let process = Self::open(identity.pid)?;
        if process.started == identity.started && boot()? == identity.boot {
            Ok(process)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    /// What to remember it by.
    ///
    /// # Errors
    /// When the boot's number cannot be read.
    pub fn identity(&self) -> io::Result<Identity> {
        Ok(Identity { pid: self.pid, started: self.started, boot: boot()? })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has ended.
    pub fn ended(&self) -> bool {
        wait(&[self.as_fd()], Some(Duration::ZERO)).is_ok_and(|ready| ready[0])
    }

    /// The number of its parent.
    ///
    /// # Errors
    /// When it has ended.
    pub fn parent(&self) -> io::Result<u32> {
        stat(self.pid).map(|s| s.parent)
    }

    /// Sends it a signal (pidfd_send_signal(2)).
    ///
    /// # Errors
    /// The kernel's; when it has ended already, for one.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.fd, signal)?)
    }

    /// Sees to its end: waits for it, then asks for it (SIGTERM), then forces it (SIGKILL), `limit` each. A child's status is
    /// taken, so that no zombie stays.
    pub fn end(&self, limit: Duration) {
        for signal in [None, Some(Signal::TERM), Some(Signal::KILL)] {
            if let Some(signal) = signal {
                // It may have ended just now.
                drop(self.signal(signal));
            }
            let deadline = Instant::now() + limit;
            while !self.ended() {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() || wait(&[self.as_fd()], Some(left)).is_err() {
                    break;
                }
            }
            if self.ended() {
                drop(self.status());
                return;
            }
        }
    }

    /// How it ended, in words; `None` when it has not, or when the kernel tells only its parent.
    pub fn status(&self) -> Option<String> {
        self.outcome().map(|ended| ended.to_string())
    }

    /// How it ended; `None` when it has not, or when the kernel tells only its parent. A child's end is told once.
    pub fn outcome(&self) -> Option<Ended> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::PidFd(self.fd.as_fd()), options).ok()??;
        Some(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Ended::Code(code),
            (None, Some(signal)) => Ended::Signal(signal),
            (None, None) => Ended::Unknown,
        })
    }

    /// Waits for its end without holding up a thread. Needs a tokio runtime with I/O.
    ///
    /// # Errors
    /// The kernel's, when the descriptor cannot be watched.
    pub async fn gone(&self) -> io::Result<()> {
        // A descriptor of its own: one number can be registered once, and others may wait, too.
        let fd = self.fd.try_clone()?;
        // SAFETY: an OwnedFd keeps its descriptor open, and the same one, until it is dropped, and the AsyncFd owns it.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        drop(fd.readable().await?);
        Ok(())
    }

    /// Sends a signal to the process group that it leads. Only for a child whose status was not asked for yet, or a living
    /// process: until then the group's number is its own.
    ///
    /// # Errors
    /// The kernel's; none when the group is gone.
    pub fn signal_group(&self, signal: Signal) -> io::Result<()> {
        let group = i32::try_from(self.pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        match rustix::process::kill_process_group(group, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

/// The living processes of a session (setsid(2)) that started no earlier than its leader did. Takes a walk over all of /proc.
///
/// # Errors
/// When /proc cannot be listed.
pub fn session(leader: &Identity) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    if boot()? != leader.boot {
        return Ok(found);
    }
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // One that ends meanwhile is none.
        let Ok(stat) = stat(pid) else { continue };
        let reused = pid == leader.pid && stat.started != leader.started;
        if stat.session == leader.pid && stat.started >= leader.started && !reused {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Whether a process lives: neither gone nor a zombie.
pub fn lives(pid: u32) -> bool {
    stat(pid).is_ok()
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Waits until one of the descriptors is readable, which a pidfd is when its process has ended; then says which are. Without
/// a limit it waits as long as it takes.
///
/// # Errors
/// The kernel's.
pub fn wait(fds: &[BorrowedFd<'_>], limit: Option<Duration>) -> io::Result<Vec<bool>> {
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let limit = limit
        .map(|l| Timespec { tv_sec: i64::try_from(l.as_secs()).unwrap_or(i64::MAX), tv_nsec: l.subsec_nanos().into() });
    match poll(&mut polled, limit.as_ref()) {
        Ok(_) => Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect()),
        // Callers wait in a loop.
        Err(rustix::io::Errno::INTR) => Ok(vec![false; fds.len()]),
        Err(e) => Err(e.into()),
    }
}

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn stat(pid: u32) -> io::Result<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat"))?;
    let stat = read_stat(&text).ok_or(io::ErrorKind::InvalidData)?;
    // A zombie has ended, although its number is taken still.
    if matches!(stat.state, b'Z' | b'X') { Err(io::ErrorKind::NotFound.into()) } else { Ok(stat) }
}

/// The name in parentheses may hold anything, so fields count from the last one that closes.
fn read_stat(text: &[u8]) -> Option<Stat> {
    let end = text.iter().rposition(|b| *b == b')')?;
    let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    // Fields 3 and 4 are taken; the session is field 6, and the start field 22.
    let session = fields.nth(1)?.parse().ok()?;
    Some(Stat { state, parent, session, started: fields.nth(15)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_again_by_its_start_and_not_by_its_number_alone() {
        let me = Process::open(std::process::id()).unwrap();
        let identity = me.identity().unwrap();
        assert_eq!(Process::find(&identity).unwrap().pid(), me.pid());
        let other = Identity { started: identity.started + 1, ..identity.clone() };
        assert_eq!(Process::find(&other).unwrap_err().kind(), io::ErrorKind::NotFound);
        let other = Identity { boot: "another".into(), ..identity };
        assert_eq!(Process::find(&other).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(Process::open(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn names_with_parentheses_do_not_shift_the_fields() {
        let line = b"42 (a) b (c)) S 7 42 41 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
        assert_eq!(read_stat(line), Some(Stat { state: b'S', parent: 7, session: 41, started: 12_345 }));
        assert_eq!(read_stat(b"42 (a"), None);
        assert_eq!(read_stat(b"42 (a) S 1 2"), None);
    }
}
