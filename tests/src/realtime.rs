//! What observers need in order to see the cluster and not their own delays: SCHED_FIFO, locked memory, punctual ticks.

use std::{io, sync::OnceLock, thread};

use anyhow::{Context, Result};
use baton::clock;
use rustix::time::{ClockId, Timespec};

/// Priority of the probe and the responders.
pub const PROBE: i32 = 60;
/// Priority of clients and servers of a load: below all agents, above whatever else the machine has to do.
pub const LOAD: i32 = 1;
/// Priority of the stall meter: above everything that it judges.
pub const METER: i32 = 70;

/// Gives the calling thread SCHED_FIFO with `priority` and locks the process's memory.
pub fn enter(priority: i32) -> Result<()> {
    static LOCKED: OnceLock<i32> = OnceLock::new();
    let failed = *LOCKED.get_or_init(|| {
        // SAFETY: mlockall(2) changes paging, not memory.
        match unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } {
            0 => 0,
            _ => io::Error::last_os_error().raw_os_error().unwrap_or(libc::EPERM),
        }
    });
    if failed != 0 {
        return Err(io::Error::from_raw_os_error(failed)).context("cannot lock memory; run as root");
    }
    let parameter = libc::sched_param { sched_priority: priority };
    // SAFETY: the parameter outlives the call; 0 means the calling thread.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameter) } != 0 {
        return Err(io::Error::last_os_error()).context("cannot get SCHED_FIFO; run as root, outside of a cpu cgroup");
    }
    Ok(())
}

/// Gives all threads of another process SCHED_RR with the priority of a load; what it starts inherits that.
pub fn favour(pid: u32) -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: LOAD };
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let Some(tid) = task?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // SAFETY: the parameter outlives the call. A thread that has ended meanwhile is an error that nobody need know.
        unsafe { libc::sched_setscheduler(tid, libc::SCHED_RR, &raw const parameter) };
    }
    Ok(())
}

/// Starts a named thread with realtime priority: `prepare` runs in it and returns the thread's work.
///
/// An error on the way there is returned, not lost in the thread.
pub fn spawn<F: FnOnce()>(
    name: &str,
    priority: i32,
    prepare: impl FnOnce() -> Result<F> + Send + 'static,
) -> Result<thread::JoinHandle<()>> {
    let (ready, started) = std::sync::mpsc::sync_channel(1);
    let handle =
        thread::Builder::new().name(name.to_owned()).spawn(move || match enter(priority).and_then(|()| prepare()) {
            Ok(work) => {
                drop(ready.send(Ok(())));
                work();
            }
            Err(error) => drop(ready.send(Err(error))),
        })?;
    started.recv().with_context(|| format!("the thread {name} died at its start"))??;
    Ok(handle)
}

/// Sleeps until `instant` (CLOCK_BOOTTIME, nanoseconds).
pub fn sleep_until(instant: u64) {
    let when = Timespec { tv_sec: (instant / 1_000_000_000) as i64, tv_nsec: (instant % 1_000_000_000) as i64 };
    // Interrupted: sleep on.
    while rustix::thread::clock_nanosleep_absolute(ClockId::Boottime, &when).is_err() && clock::now() < instant {}
}
