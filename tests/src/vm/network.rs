//! The networks of guests: bridges in one namespace, a tap for each network device of a guest.

use anyhow::Result;

use crate::{home::Home, netns::NetNs, topology::Mac};

/// A network device of a guest.
#[derive(Clone, Debug)]
pub struct Nic {
    /// The tap at the host's end. Taking it down cuts the guest off.
    pub tap: String,
    /// The hardware address in the guest.
    pub mac: Mac,
}

/// Bridges in a namespace of their own. The namespace itself can stand on each of them, as one more machine.
#[derive(Debug)]
pub struct Network {
    /// Where bridges and taps are, and QEMU runs.
    pub ns: NetNs,
    taps: u8,
}

impl Network {
    /// A namespace with these bridges, up, without addresses.
    pub fn new(home: &Home, bridges: &[&str]) -> Result<Self> {
        let ns = NetNs::new(home.path().join("guests.net"))?;
        for bridge in bridges {
            ns.ip(&format!("link add {bridge} type bridge\nlink set {bridge} up"))?;
        }
        Ok(Self { ns, taps: 0 })
    }

    /// A tap on a bridge, for one device of one guest.
    pub fn nic(&mut self, bridge: &str) -> Result<Nic> {
        self.taps += 1;
        let tap = format!("tap{}", self.taps);
        self.ns.ip(&format!("tuntap add {tap} mode tap vnet_hdr\nlink set {tap} master {bridge} up"))?;
        Ok(Nic { tap, mac: [0x52, 0x54, 0, 0x77, 0, self.taps] })
    }
}
