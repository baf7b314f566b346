//! The end of processes that the agent watches: told as it begins, while the kernel still closes their sockets.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::raw_tracepoint, programs::RawTracePointContext};

use super::maps::{EXITS, WATCHED};

/// `BPF_RB_FORCE_WAKEUP` of linux/bpf.h: these are rare, and none may wait for the next.
const WAKE: u64 = 1 << 1;

/// Runs in each thread that ends, before its files are closed (do_exit in kernel/exit.c).
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn process_exit(_context: RawTracePointContext) -> u32 {
    let process = (bpf_get_current_pid_tgid() >> 32) as u32;
    if WATCHED.get_ptr(&process).is_some() {
        // A ring that is full is one that nobody reads: the process's own descriptor tells of its end all the same.
        EXITS.output::<u32>(process, WAKE).ok();
    }
    0
}
