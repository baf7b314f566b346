//! Starts programs: those that live on by themselves, and those whose answer is waited for.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read as _, Seek as _},
    os::{
        fd::AsFd as _,
        unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    },
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    process::Signal,
};

use super::{Process, wait};

/// What a program says beyond this is not read.
const OUTPUT_BYTES_MAX: u64 = 64 << 10;

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// In words: "exited with 1".
    pub status: String,
    /// Whether it exited with 0.
    pub success: bool,
    /// What it said, on both outputs.
    pub output: String,
}

/// Starts a program that outlives the agent: in a process group of its own, so that no signal of a terminal reaches it, with
/// its output appended to a file.
///
/// # Errors
/// The kernel's, when the program or the file cannot be opened.
pub fn spawn<S: AsRef<OsStr>>(program: &Path, arguments: &[S], output: &Path) -> io::Result<Process> {
    let out = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(output)?;
    start(program, arguments, out)
}

/// Runs a program to its end, at the latest until `limit`; after that it is killed.
///
/// # Errors
/// The kernel's; `TimedOut` when it did not end in time.
pub fn run<S: AsRef<OsStr>>(program: &Path, arguments: &[S], limit: Duration) -> io::Result<Finished> {
    // Memory instead of a pipe: the program never waits for a reader, and there is nothing to read while it runs.
    let mut output = File::from(memfd_create("output", MemfdFlags::CLOEXEC)?);
    let process = start(program, arguments, output.try_clone()?)?;
    let deadline = std::time::Instant::now() + limit;
    while !process.ended() {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            process.signal(Signal::KILL)?;
            wait(&[process.as_fd()], Some(Duration::from_secs(1)))?;
            drop(process.status());
            return Err(io::ErrorKind::TimedOut.into());
        }
        wait(&[process.as_fd()], Some(left))?;
    }
    let status = process.status().unwrap_or_else(|| "ended".to_owned());
    output.rewind()?;
    let mut bytes = Vec::new();
    output.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes)?;
    let success = status == "exited with 0";
    Ok(Finished { status, success, output: String::from_utf8_lossy(&bytes).into_owned() })
}

fn start<S: AsRef<OsStr>>(program: &Path, arguments: &[S], output: File) -> io::Result<Process> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir("/").process_group(0).stdin(Stdio::null());
    command.stdout(output.try_clone()?).stderr(output);
    // These speak of the agent's own service.
    for variable in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
        command.env_remove(variable);
    }
    // Dropping the handle leaves the process alone; it stays ours to wait for, so its number cannot be used again before.
    let process = Process::child(command.spawn()?.id())?;
    // The agent may be exempt from being killed for memory; that is not for what it starts. Best effort: one that has ended
    // needs none of it.
    drop(fs::write(format!("/proc/{}/oom_score_adj", process.pid()), "0"));
    Ok(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn a_program_is_run_with_what_it_says_and_how_it_ends() {
        let shell = Path::new("/bin/sh");
        let done = run(shell, &["-c", "echo out; echo err >&2; exit 3"], PATIENCE).unwrap();
        let expected = Finished { status: "exited with 3".into(), success: false, output: "out\nerr\n".into() };
        assert_eq!(done, expected);
        assert!(run(shell, &["-c", "true"], PATIENCE).unwrap().success);
        assert_eq!(run(shell, &["-c", "kill -9 $$"], PATIENCE).unwrap().status, "killed by signal 9");
        let late = run(shell, &["-c", "sleep 60"], Duration::from_millis(50)).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        assert_eq!(run(Path::new("/nonexistent"), &[""], PATIENCE).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
