//! The BPF programs: heartbeats on the backplane links, and the gate on the front links.
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

/// No helper in use is reserved for GPL-compatible programs, so the kernel only reports this.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"MIT\0";
