//! Programs that an operation runs and waits for: when the operation is given up, they are killed with all that they started.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Seek as _},
    os::{
        fd::AsFd as _,
        unix::{fs::FileExt as _, process::CommandExt as _},
    },
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create},
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, timeout_at},
};

use crate::process::{Process, wait};

/// What a program says beyond this is refused to it; the kernel takes memory only for what was written.
const OUTPUT_BYTES_MAX: u64 = 4 << 20;
/// How long a killed program is waited for, so that no zombie stays.
const REAP_LIMIT: Duration = Duration::from_secs(30);

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// By its whole path.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Variables beside the agent's own.
    pub environment: Vec<(String, String)>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// In words: "exited with 1".
    pub status: String,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Done {
    /// The last lines that it said, errors before all else, in one line.
    pub fn last_words(&self) -> String {
        let said = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        let lines: Vec<&str> = said.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        let last = lines[lines.len().saturating_sub(LINES_MAX)..].join(" | ");
        match last.char_indices().nth_back(CHARS_MAX) {
            Some((at, _)) => format!("…{}", &last[at..]),
            None => last,
        }
    }
}

/// Of what a program said, errors repeat so many lines, and so many characters.
const LINES_MAX: usize = 5;
const CHARS_MAX: usize = 600;

/// Why there is no end to tell of.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It could not be started, or watched.
    #[error("{0}")]
    Start(#[from] io::Error),
    /// It did not end in time, and was killed with all that it started. What it had said until then.
    #[error("it did not end in time and was killed{}", said(.0))]
    TimedOut(String),
}

fn said(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!("; it said: {words}") }
}

/// Runs a program to its end, at the latest until `until`. Dropping the future kills it and its process group at once.
///
/// # Errors
/// [`ChildError`].
pub async fn run(program: Program, until: Instant) -> Result<Done, ChildError> {
    let started = tokio::task::spawn_blocking(move || Running::start(program)).await;
    let mut running = started.map_err(|e| io::Error::other(format!("it was not started: {e}")))??;
    let fd = running.process.as_fd().try_clone_to_owned()?;
    // SAFETY: an OwnedFd names the same descriptor for as long as it lives, and nobody else closes it.
    let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }
        .map_err(|e| io::Error::other(format!("it cannot be watched: {e}")))?;
    match timeout_at(until, fd.readable()).await {
        Ok(ready) => drop(ready?),
        Err(_) => {
            // Killed when it is dropped.
            let done = Done { code: None, status: String::new(), stdout: running.stdout()?, stderr: running.stderr()? };
            return Err(ChildError::TimedOut(done.last_words()));
        }
    }
    let (code, status) = running.take_status();
    Ok(Done { code, status, stdout: running.stdout()?, stderr: running.stderr()? })
}

/// A program that runs, in a process group of its own.
struct Running {
    process: Process,
    ended: bool,
    outputs: [File; 2],
}

impl Running {
    fn start(program: Program) -> io::Result<Self> {
        let outputs = [output()?, output()?];
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).current_dir("/").process_group(0).stdin(Stdio::null());
        command.stdout(outputs[0].try_clone()?).stderr(outputs[1].try_clone()?);
        // These speak of the agent's own service.
        for variable in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"]
        {
            command.env_remove(variable);
        }
        command.envs(program.environment);
        let process = Process::child(command.spawn()?.id())?;
        // The agent may be exempt from being killed for memory; that is not for what it starts. Best effort: one that has
        // ended needs none of it.
        drop(fs::write(format!("/proc/{}/oom_score_adj", process.pid()), "0"));
        Ok(Self { process, ended: false, outputs })
    }

    fn stdout(&mut self) -> io::Result<String> {
        read(&mut self.outputs[0])
    }

    fn stderr(&mut self) -> io::Result<String> {
        read(&mut self.outputs[1])
    }

    /// Only after it has ended.
    fn take_status(&mut self) -> (Option<i32>, String) {
        self.ended = true;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::PidFd(self.process.as_fd()), options).ok().flatten();
        let code = status.as_ref().and_then(|s| s.exit_status());
        let status = match (code, status.and_then(|s| s.terminating_signal())) {
            (Some(code), _) => format!("exited with {code}"),
            (None, Some(signal)) => format!("was killed by signal {signal}"),
            (None, None) => "ended".to_owned(),
        };
        (code, status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Its number is its own until its status is taken, which happens below.
        let group = i32::try_from(self.process.pid()).ok().and_then(Pid::from_raw);
        if let Some(group) = group {
            // It may have ended just now.
            kill_process_group(group, Signal::KILL).ok();
        }
        if let Ok(fd) = self.process.as_fd().try_clone_to_owned() {
            let reap = move || {
                if wait(&[fd.as_fd()], Some(REAP_LIMIT)).is_ok() {
                    waitid(WaitId::PidFd(fd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG).ok();
                }
            };
            // Without a thread a zombie stays, which harms nobody.
            drop(std::thread::Builder::new().name("reaper".into()).spawn(reap));
        }
    }
}

/// Memory instead of a pipe: nobody waits for a reader, a service that was started may keep it, and it cannot grow.
fn output() -> io::Result<File> {
    let fd = memfd_create("output", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&fd, OUTPUT_BYTES_MAX)?;
    fcntl_add_seals(&fd, SealFlags::GROW | SealFlags::SHRINK)?;
    Ok(File::from(fd))
}

/// What was written so far: the offset is shared with those who write.
fn read(file: &mut File) -> io::Result<String> {
    let written = file.stream_position()?.min(OUTPUT_BYTES_MAX);
    let mut bytes = vec![0; usize::try_from(written).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        let arguments = vec!["-c".into(), script.into()];
        Program { path: "/bin/sh".into(), arguments, environment: vec![("X".into(), "a b".into())] }
    }

    fn late() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[tokio::test]
    async fn a_program_tells_how_it_ended_and_what_it_said() {
        let done = run(shell("echo \"$X\"; echo no >&2; exit 3"), late()).await.unwrap();
        let expected =
            Done { code: Some(3), status: "exited with 3".into(), stdout: "a b\n".into(), stderr: "no\n".into() };
        assert_eq!(done, expected);
        assert_eq!(done.last_words(), "no");
        assert_eq!(run(shell("kill -9 $$"), late()).await.unwrap().status, "was killed by signal 9");
        let missing = Program { path: "/nonexistent".into(), ..Program::default() };
        assert!(matches!(run(missing, late()).await, Err(ChildError::Start(_))));
        // More than is kept is refused to the writer, and what was written before is read.
        let done = run(shell("head -c 5000000 /dev/zero | tr '\\0' x"), late()).await.unwrap();
        assert_eq!(done.stdout.len() as u64, OUTPUT_BYTES_MAX);
        assert!(done.last_words().chars().count() <= CHARS_MAX + 2);
    }

    #[tokio::test]
    async fn one_that_is_late_is_killed_with_what_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let script = format!("echo waits >&2; sleep 600 & echo $! >{}; wait", file.display());
        let error = run(shell(&script), Instant::now() + Duration::from_millis(500)).await.unwrap_err();
        assert!(error.to_string().contains("it said: waits"), "{error}");
        gone(&file);
        // The same when nobody awaits it any more.
        fs::remove_file(&file).unwrap();
        let dropped = tokio::time::timeout(Duration::from_millis(500), run(shell(&script), late())).await;
        assert!(dropped.is_err());
        gone(&file);
    }

    /// Waits for the end of the process whose number is in a file.
    fn gone(file: &std::path::Path) {
        let pid = fs::read_to_string(file).unwrap().trim().parse().unwrap();
        if let Ok(process) = Process::open(pid) {
            assert_eq!(wait(&[process.as_fd()], Some(Duration::from_secs(20))).unwrap(), [true]);
        }
    }
}
