//! The BPF programs: heartbeats on the backplane links, the gate on the front links, and steering between the two.
//!
//! Built by agent/build.rs for `bpfel-unknown-none`; needs bounded loops, atomics (v3) and the boot clock: Linux 5.18.
#![no_std]
#![no_main]

mod programs;

/// Never reached: the programs have no panicking path, or they would not link.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel keeps bpf_tcp_check_syncookie, which finds flows that began with a SYN cookie, for programs under a licence that
/// goes with the GPL. The MIT licence does; this is the string by which the kernel knows it (include/linux/license.h).
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
