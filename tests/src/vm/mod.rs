//! Guests under QEMU: other kernels than this machine's, and machines that share nothing with each other.
//!
//! QEMU emulates in software, so no hardware virtualisation is needed. A guest is Debian's cloud kernel
//! ([`kernel::Kernel`], fetched once) with an initramfs that is made for the purpose ([`image::Image`]): the modules
//! asked for, programs of this machine with the libraries that they need, and `baton-guest` as process 1
//! ([`init::main`]). Commands go to it over a virtio-serial port ([`channel`]), so a guest needs no network for them
//! ([`guest::Guest`]); the networks that it has are bridges in a namespace ([`network::Network`]).

pub mod channel;
pub mod cpio;
pub mod debian;
pub mod driver;
pub mod guest;
pub mod image;
pub mod init;
pub mod jobs;
pub mod kernel;
pub mod kernels;
pub mod modules;
pub mod network;
pub mod steer;
