//! Heartbeats taken off the wire, and sent again: what somebody on the backplane could do without the key.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use baton_ebpf::wire::{self, Beat, KIND_BEAT, Words};

use crate::{topology::Machine, wait};

/// Ethernet, IPv4 without options, and UDP before the payload.
const HEADERS: usize = 14 + 20 + 8;
const LIMIT: Duration = Duration::from_secs(10);

/// A beat as it crossed the wire.
#[derive(Clone, Debug)]
pub struct Captured {
    /// The whole frame.
    pub frame: Vec<u8>,
    /// The signed words in it.
    pub words: Words,
}

/// A packet socket on one device of a machine: it sees what the machine sends, stamped and signed.
#[derive(Debug)]
pub struct Tap {
    socket: OwnedFd,
}

impl Tap {
    /// Opens a tap on a machine's device.
    pub fn open(machine: &Machine, device: &str) -> Result<Self> {
        let device = CString::new(device)?;
        let socket = machine.ns.run(move || open(&device))?.context("cannot open a packet socket; run as root")?;
        Ok(Self { socket })
    }

    /// Waits until the machine has sent `count` beats to voter `to`.
    pub fn beats(&self, to: u8, count: usize) -> Result<Vec<Captured>> {
        let mut found = Vec::new();
        wait::until(LIMIT, "beats on the wire", || {
            let mut frame = [0u8; 256];
            for _ in 0..1_024 {
                let (fd, data) = (self.socket.as_raw_fd(), frame.as_mut_ptr().cast());
                // SAFETY: the buffer is alive and its length is given.
                let length = unsafe { libc::recv(fd, data, frame.len(), libc::MSG_DONTWAIT) };
                let Ok(length) = usize::try_from(length) else {
                    break;
                };
                let frame = &frame[..length.min(frame.len())];
                found.extend(beat(frame, to).map(|words| Captured { frame: frame.to_vec(), words }));
            }
            Ok(found.len() >= count)
        })?;
        found.truncate(count);
        Ok(found)
    }

    /// Sends frames again, as they are.
    pub fn send(&self, beats: &[Captured]) -> Result<()> {
        for beat in beats {
            // SAFETY: the buffer is alive and its length is given.
            let sent = unsafe { libc::send(self.socket.as_raw_fd(), beat.frame.as_ptr().cast(), beat.frame.len(), 0) };
            ensure!(sent >= 0, "a frame was not sent: {}", io::Error::last_os_error());
        }
        Ok(())
    }
}

/// The words of a stamped beat to voter `to`, if the frame is one.
fn beat(frame: &[u8], to: u8) -> Option<Words> {
    let words = wire::from_bytes(frame.get(HEADERS..)?)?;
    let beat = Beat::read(&words);
    (words[0] as u32 == wire::MAGIC && beat.kind == KIND_BEAT && beat.to == to && beat.stamp != 0).then_some(words)
}

fn open(device: &CString) -> Result<OwnedFd> {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: plain system calls; the address is zeroed plain data, and the descriptor is owned at once.
    unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(protocol));
        ensure!(fd >= 0, io::Error::last_os_error());
        let socket = OwnedFd::from_raw_fd(fd);
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = libc::if_nametoindex(device.as_ptr()) as i32;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        ensure!(libc::bind(fd, (&raw const address).cast(), length) == 0, io::Error::last_os_error());
        Ok(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_stamped_beats_to_the_voter_are_beats() {
        let mut words = Beat { kind: KIND_BEAT, node: 1, to: 2, stamp: 5, ..Beat::default() }.words();
        let frame = |words: &Words| [&[0; HEADERS][..], &wire::to_bytes(words)].concat();
        assert_eq!(beat(&frame(&words), 2), Some(words));
        assert_eq!(beat(&frame(&words), 3), None);
        assert_eq!(beat(&frame(&words)[..HEADERS + 71], 2), None);
        words[3] = 0;
        assert_eq!(beat(&frame(&words), 2), None, "it has not been stamped");
        assert_eq!(beat(&[], 2), None);
    }
}
