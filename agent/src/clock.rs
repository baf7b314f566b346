//! The one clock of Baton: CLOCK_BOOTTIME, which the BPF programs read by `bpf_ktime_get_boot_ns` and which counts suspend.

use rustix::time::{ClockId, clock_gettime};

use crate::cluster::ids::Nanos;

/// Now, in nanoseconds since boot (clock_gettime(2), CLOCK_BOOTTIME).
pub fn now() -> Nanos {
    let t = clock_gettime(ClockId::Boottime);
    u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0)
}
