//! Layouts and arithmetic shared by the BPF programs and user space: one source for both sides of every map.
//!
//! `wire` is the heartbeat on the network, `layout` the maps, `receive` and `lease` what is done with an arriving
//! heartbeat. Without BPF the agent calls the same functions on the same structures in anonymous memory.
#![no_std]
#![cfg_attr(
    target_arch = "bpf",
    feature(asm_experimental_arch),
    expect(unstable_features, reason = "atomic read-modify-write needs inline assembly on the BPF target")
)]

#[cfg(target_endian = "big")]
compile_error!("Baton's heartbeat layout is little-endian and read in place");

pub mod histogram;
pub mod index;
pub mod layout;
pub mod lease;
pub mod receive;
pub mod siphash;
pub mod steering;
pub mod wire;
pub mod word;
