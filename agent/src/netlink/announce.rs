//! Announcing addresses: frames built and sockets opened in advance, sent in batches, repeated on a schedule.

use std::{net::IpAddr, ops::Range};

use rustix::io::Errno;

use super::{
    error::NetlinkError,
    frame::Frame,
    link::{Link, Mac},
    packet::PacketSocket,
    sysctl,
};
use crate::cluster::ids::{MILLISECOND, Nanos};

/// When announcements are sent after a takeover, as delays from its first one. The repeats cover a lost frame, a receiver
/// whose queue was full, and a switch port that was still learning.
pub const DELAYS: [Nanos; 5] = [0, 50 * MILLISECOND, 200 * MILLISECOND, 1_000 * MILLISECOND, 5_000 * MILLISECOND];

/// The instants at which announcements are due. Pure: the caller has the clock and the timer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    start: Nanos,
    next: usize,
}

impl Schedule {
    /// A schedule whose first announcement is due at `start`.
    pub const fn from(start: Nanos) -> Self {
        Self { start, next: 0 }
    }

    /// When the next announcement is due; none when all are done.
    pub fn due(&self) -> Option<Nanos> {
        DELAYS.get(self.next).map(|delay| self.start.saturating_add(*delay))
    }

    /// Whether an announcement is due at `now`; if so, it and all that were missed meanwhile count as sent.
    pub fn claim(&mut self, now: Nanos) -> bool {
        let before = self.next;
        while self.due().is_some_and(|due| due <= now) {
            self.next += 1;
        }
        self.next > before
    }
}

impl Iterator for Schedule {
    type Item = Nanos;

    fn next(&mut self) -> Option<Nanos> {
        let due = self.due()?;
        self.next += 1;
        Some(due)
    }
}

/// What an announcement did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// Frames that the device took.
    pub sent: usize,
    /// Frames that it did not take; the next repeat sends all again.
    pub unsent: usize,
    /// Why not, per device.
    pub failures: Vec<NetlinkError>,
}

impl Announced {
    /// Add another announcement's outcome to this one.
    pub fn merge(&mut self, other: Self) {
        self.sent += other.sent;
        self.unsent += other.unsent;
        self.failures.extend(other.failures);
    }
}

/// The announcer of one device: an open packet socket and one frame an address.
#[derive(Debug)]
pub struct Announcer {
    device: String,
    mac: Mac,
    socket: PacketSocket,
    addresses: Vec<IpAddr>,
    frames: Vec<Frame>,
}

impl Announcer {
    /// Prepare the announcements of `addresses` on a device.
    ///
    /// # Errors
    /// [`NetlinkError::NoEthernet`] for a device without an Ethernet address, [`NetlinkError::Setup`] for the socket.
    pub fn new(link: &Link, addresses: &[IpAddr]) -> Result<Self, NetlinkError> {
        let Some(mac) = link.mac else {
            let why = "it has no Ethernet address; put VIPs on an Ethernet, VLAN, bond or bridge device";
            return Err(NetlinkError::NoEthernet { device: link.name.clone(), why });
        };
        let router = sysctl::is_ipv6_router(&link.name);
        Ok(Self {
            device: link.name.clone(),
            mac,
            socket: PacketSocket::open(link.index)?,
            addresses: addresses.to_vec(),
            frames: addresses.iter().map(|ip| Frame::announcement(*ip, mac, router)).collect(),
        })
    }

    /// The Ethernet address that is announced.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Announce another Ethernet address from now on (a bond may change its own). Announces nothing by itself.
    pub fn set_mac(&mut self, mac: Mac) {
        let router = sysctl::is_ipv6_router(&self.device);
        self.mac = mac;
        for (frame, ip) in self.frames.iter_mut().zip(&self.addresses) {
            *frame = Frame::announcement(*ip, mac, router);
        }
    }

    /// Announce all addresses.
    pub fn send(&self) -> Announced {
        self.send_range(0..self.frames.len())
    }

    /// Announce a range of the addresses, so that adding them can be interleaved.
    pub fn send_range(&self, range: Range<usize>) -> Announced {
        let end = range.end.min(self.frames.len());
        let frames = self.frames.get(range.start..end).unwrap_or(&[]);
        let (sent, errno) = self.socket.send(frames);
        let failures = errno.map(|errno| self.failure(errno, frames.len() - sent)).into_iter().collect();
        Announced { sent, unsent: frames.len() - sent, failures }
    }

    fn failure(&self, errno: Errno, unsent: usize) -> NetlinkError {
        NetlinkError::Refused {
            action: "announce",
            object: format!("{unsent} addresses on {}", self.device),
            errno,
            detail: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_repeats_and_ends() {
        let ms: Vec<_> = Schedule::from(7 * MILLISECOND).map(|t| t / MILLISECOND).collect();
        assert_eq!(ms, [7, 57, 207, 1_007, 5_007]);
    }

    #[test]
    fn a_late_caller_sends_once_for_all_that_it_missed() {
        let mut schedule = Schedule::from(0);
        assert!(schedule.claim(0));
        assert!(!schedule.claim(49 * MILLISECOND));
        assert!(schedule.claim(300 * MILLISECOND));
        assert_eq!(schedule.due(), Some(1_000 * MILLISECOND));
        assert!(schedule.claim(60_000 * MILLISECOND));
        assert_eq!(schedule.due(), None);
        assert!(!schedule.claim(Nanos::MAX));
    }
}
