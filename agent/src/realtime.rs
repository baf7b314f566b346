//! Realtime scheduling and locked memory: what keeps a loaded machine from being taken for a dead one.

use std::io;

use thiserror::Error;

/// SCHED_FIFO priority of the pulse thread; above everything else of Baton's.
pub const PULSE_PRIORITY: i32 = 60;
/// SCHED_FIFO priority of the thread that answers heartbeats where no BPF program does.
pub const RESPONDER_PRIORITY: i32 = 59;
/// SCHED_FIFO priority of the core thread: detector, raft, RPC.
pub const CORE_PRIORITY: i32 = 50;
/// SCHED_FIFO priority of the log writer and of the executor.
pub const WORKER_PRIORITY: i32 = 49;

/// Why realtime could not be had.
#[derive(Debug, Error)]
pub enum RealtimeError {
    /// The scheduler refused.
    #[error(
        "cannot run thread {thread} with SCHED_FIFO priority {priority}: give the service CAP_SYS_NICE \
         (LimitRTPRIO= in the unit), or set `realtime = false` and accept false failovers under load"
    )]
    Scheduler {
        /// The thread's name.
        thread: String,
        /// The priority asked for.
        priority: i32,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Memory could not be locked.
    #[error(
        "cannot lock the agent's memory (mlockall): give the service LimitMEMLOCK=infinity, or set `realtime = false`"
    )]
    Lock(#[source] io::Error),
}

/// Gives the calling thread a SCHED_FIFO priority (sched_setscheduler(2)); its children start as ordinary threads.
pub fn become_fifo(priority: i32) -> Result<(), RealtimeError> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: pid 0 is the calling thread, and the parameters outlive the call.
    let answer =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameters) };
    if answer == 0 {
        return Ok(());
    }
    let thread = std::thread::current().name().unwrap_or("?").to_owned();
    Err(RealtimeError::Scheduler { thread, priority, source: io::Error::last_os_error() })
}

/// Locks what is mapped now, and later mappings as they are touched, so that no page fault waits for a disk (mlockall(2)).
pub fn lock_memory() -> Result<(), RealtimeError> {
    // MCL_ONFAULT keeps untouched stacks and arenas out of memory: the resident set stays small.
    // SAFETY: mlockall takes flags alone.
    let answer = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) };
    if answer == 0 { Ok(()) } else { Err(RealtimeError::Lock(io::Error::last_os_error())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifo_thread_reports_its_policy() {
        std::thread::spawn(|| {
            become_fifo(5).unwrap();
            // SAFETY: pid 0 is the calling thread.
            let policy = unsafe { libc::sched_getscheduler(0) };
            assert_eq!(policy & !libc::SCHED_RESET_ON_FORK, libc::SCHED_FIFO);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn an_impossible_priority_is_refused_with_a_way_out() {
        std::thread::spawn(|| {
            let error = become_fifo(1_000).unwrap_err();
            assert!(error.to_string().contains("realtime = false"), "{error}");
        })
        .join()
        .unwrap();
    }
}
