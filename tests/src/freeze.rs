//! Freezing some threads of a process while others go on: ptrace(2) stops one thread at a time, unlike SIGSTOP.

use std::{
    fs, io,
    sync::mpsc::{self, Sender},
    thread::JoinHandle,
};

use anyhow::{Context, Result, ensure};

/// Frozen threads; they go on when this is dropped.
#[derive(Debug)]
pub struct Frozen {
    /// Its end wakes the tracer, which lets go by ending.
    end: Option<Sender<()>>,
    tracer: Option<JoinHandle<()>>,
}

impl Frozen {
    /// Freezes all threads of `pid` but those whose name holds `but`. At least one thread must be left running.
    pub fn all_but(pid: u32, but: &str) -> Result<Self> {
        let mut threads = Vec::new();
        let mut spared = 0;
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = entry?.path();
            let name = fs::read_to_string(path.join("comm"))?;
            if name.contains(but) {
                spared += 1;
            } else if let Some(Ok(tid)) = path.file_name().and_then(|n| n.to_str()).map(str::parse::<i32>) {
                threads.push(tid);
            }
        }
        ensure!(spared > 0, "no thread of process {pid} has `{but}` in its name, so there is nothing to spare");
        let (end, ended) = mpsc::channel::<()>();
        let (ready, result) = mpsc::sync_channel(1);
        // The kernel knows the tracing *thread*: it freezes, waits for the end, and lets go by ending itself.
        let tracer = std::thread::Builder::new().name("tracer".to_owned()).spawn(move || {
            let frozen = threads.iter().try_for_each(|tid| freeze(*tid));
            let failed = frozen.is_err();
            drop(ready.send(frozen));
            if !failed {
                // Nothing is ever sent: the channel's end is the message.
                ended.recv().ok();
            }
        })?;
        result.recv().context("the tracer died")?.context("cannot freeze a thread; run as root")?;
        Ok(Self { end: Some(end), tracer: Some(tracer) })
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.end = None;
        if let Some(tracer) = self.tracer.take() {
            drop(tracer.join());
        }
    }
}

/// Seizes a thread, stops it, and waits until it has stopped.
fn freeze(tid: i32) -> io::Result<()> {
    let nothing = std::ptr::null_mut::<libc::c_void>();
    for request in [libc::PTRACE_SEIZE, libc::PTRACE_INTERRUPT] {
        // SAFETY: neither request reads or writes memory of ours.
        if unsafe { libc::ptrace(request, tid, nothing, nothing) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let mut status = 0;
    // SAFETY: the status outlives the call.
    if unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) } != tid {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{home::Home, netns::NetNs, process::Proc, wait};
    use std::{process::Command, time::Duration};

    #[test]
    fn a_frozen_process_does_nothing_until_let_go() {
        let home = Home::new("freeze-test").unwrap();
        let ns = NetNs::new(home.path().join("a.net")).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]);
        let process = Proc::spawn(&home, &ns, "loop", command).unwrap();
        let state = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap();
            stat.rsplit(')').next().unwrap().trim_start().chars().next()
        };
        wait::until(Duration::from_secs(5), "the loop to run", || Ok(state() == Some('R'))).unwrap();
        assert!(Frozen::all_but(process.pid(), "no such name").is_err());
        let comm = fs::read_to_string(format!("/proc/{}/comm", process.pid())).unwrap();
        assert!(Frozen::all_but(process.pid(), comm.trim()).is_ok(), "everything spared is nothing frozen");
        let tracer = std::thread::spawn({
            let pid = i32::try_from(process.pid()).unwrap();
            move || freeze(pid)
        });
        tracer.join().unwrap().unwrap();
        // Its tracer has ended, so it goes on.
        wait::until(Duration::from_secs(5), "the loop to run", || Ok(state() == Some('R'))).unwrap();
    }
}
