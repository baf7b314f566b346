//! What the host must be like: no shifted clock, and a way to wait until no program of before is running.

use std::{fs, thread, time::Duration};

use super::error::KernelError;

/// Refuses a time namespace with a boot-clock offset: programs and agent would read different clocks.
pub(super) fn refuse_time_namespace() -> Result<(), KernelError> {
    // Without the file the kernel has no time namespaces.
    let Ok(offsets) = fs::read_to_string("/proc/self/timens_offsets") else {
        return Ok(());
    };
    match boot_offset(&offsets) {
        Some(offset) => Err(KernelError::TimeNamespace { offset }),
        None => Ok(()),
    }
}

/// The boot-clock offset in the file's text, if it is not zero.
fn boot_offset(offsets: &str) -> Option<String> {
    let line = offsets.lines().find(|line| line.starts_with("boottime"))?;
    let offset: Vec<_> = line.split_whitespace().skip(1).collect();
    offset.iter().any(|part| *part != "0").then(|| offset.join(" s, ") + " ns")
}

/// Waits until every program that was running has ended: membarrier(2)'s global command is a wait for RCU readers.
pub(super) fn wait_for_programs() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    /// Kernels with nohz_full refuse the command; a program runs for microseconds.
    const INSTEAD: Duration = Duration::from_millis(100);
    // SAFETY: the call takes plain integers.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if done != 0 {
        thread::sleep(INSTEAD);
    }
}

#[cfg(test)]
mod tests {
    use super::boot_offset;

    #[test]
    fn only_a_boot_offset_counts() {
        assert_eq!(boot_offset("monotonic 5 0\nboottime 0 0\n"), None);
        assert_eq!(boot_offset("monotonic  0 0\nboottime   -3 1\n").as_deref(), Some("-3 s, 1 ns"));
        assert_eq!(boot_offset(""), None);
    }
}
