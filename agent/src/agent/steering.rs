//! Which peers packets can be steered to, and by which backplane link: the paths that the programs read.
//!
//! A path needs a link on which the peer's beats arrive (they tell its Ethernet address), on which the peer is a direct neighbour,
//! and whose MTU takes whole packets of the front.

use std::{collections::BTreeMap, net::IpAddr};

use tracing::info;

use super::places::Places;
use crate::{
    backplane::pulse::PulseShared,
    cluster::ids::VoterId,
    config::Config,
    kernel::{Path, Tables},
    netlink::{NetlinkError, RequestSocket, address, link, link::Link, watch::Event},
};

/// A backplane link of this machine.
#[derive(Clone, Debug)]
struct Way {
    ifindex: u32,
    mac: Option<[u8; 6]>,
    mtu: u32,
    /// The link's own address and prefix length.
    address: IpAddr,
    prefix: u8,
}

/// The paths to the peers.
#[derive(Debug)]
pub struct Steering {
    ways: Vec<Way>,
    /// The largest MTU of the fronts; none without one, and then nothing is steered.
    front_mtu: Option<u32>,
    fronts: Vec<u32>,
    /// The other nodes with their address on each link.
    peers: Vec<(VoterId, Vec<IpAddr>)>,
    paths: BTreeMap<VoterId, Path>,
}

impl Steering {
    /// Looks at the links as they are now.
    ///
    /// # Errors
    /// A device that is gone.
    pub fn find(config: &Config, places: &Places) -> Result<Self, NetlinkError> {
        let mut socket = RequestSocket::open()?;
        let mut ways = Vec::new();
        let mine = config.me().map(|me| me.links.clone()).unwrap_or_default();
        for (device, own) in places.links.iter().zip(&mine) {
            let found = link::by_name(&mut socket, &device.name)?;
            let present = address::list(&mut socket, device.ifindex)?;
            let prefix = present.iter().find(|p| p.ip == own.address).map_or(0, |p| p.prefix);
            ways.push(Way {
                ifindex: device.ifindex,
                mac: found.mac.map(|mac| mac.0),
                mtu: found.mtu,
                address: own.address,
                prefix,
            });
        }
        let mut front_mtu = None;
        for front in &places.fronts {
            front_mtu = front_mtu.max(Some(link::by_name(&mut socket, &front.name)?.mtu));
        }
        let nodes = config.shared.voters.values().filter(|v| v.id != config.this.id && !v.front.is_empty());
        Ok(Self {
            ways,
            front_mtu,
            fronts: places.fronts.iter().map(|d| d.ifindex).collect(),
            peers: nodes.map(|v| (v.id, v.links.iter().map(|l| l.address).collect())).collect(),
            paths: BTreeMap::new(),
        })
    }

    /// Takes note of a change of a device.
    pub fn note(&mut self, event: &Event) {
        let Event::Link { now, .. } = event else { return };
        let Link { index, mtu, .. } = *now;
        for way in self.ways.iter_mut().filter(|way| way.ifindex == index) {
            way.mtu = mtu;
            way.mac = now.mac.map(|mac| mac.0);
        }
        if self.fronts.contains(&index) {
            // With several fronts the largest of what was seen counts: it only makes this machine more careful.
            self.front_mtu = self.front_mtu.max(Some(mtu));
        }
    }

    /// Tells the programs the paths as they are now. Returns the peers that have one, as bits ([`VoterId::bit`]).
    pub fn follow(&mut self, tables: &Tables, pulse: &PulseShared) -> u16 {
        if !tables.in_kernel() {
            return 0;
        }
        let mut mask = 0;
        for (peer, addresses) in &self.peers {
            let usable = |(number, way): (usize, &Way)| {
                let near = addresses.get(number).is_some_and(|there| neighbours(way.address, *there, way.prefix));
                let wide = self.front_mtu.is_some_and(|front| way.mtu >= front);
                let heard = pulse.hears(*peer, number);
                let (own_mac, peer_mac) = (way.mac?, tables.peer_mac(*peer, number)?);
                (near && wide && heard).then_some(Path { ifindex: way.ifindex, peer_mac, own_mac })
            };
            let path = self.ways.iter().enumerate().find_map(usable);
            if path.is_some() {
                mask |= peer.bit();
            }
            if self.paths.get(peer).copied() != path {
                info!(%peer, ?path, "the path for steered packets changed");
                tables.set_path(*peer, path);
                match path {
                    Some(path) => self.paths.insert(*peer, path),
                    None => self.paths.remove(peer),
                };
            }
        }
        mask
    }

    /// Why nothing can be steered to a peer, in words; `None` if it can.
    pub fn obstacle(&self, peer: VoterId, enforced: bool) -> Option<String> {
        if !enforced {
            return Some("there is no BPF here, so open connections cannot be steered and break at a move".to_owned());
        }
        if self.paths.contains_key(&peer) {
            return None;
        }
        let addresses = self.peers.iter().find(|(known, _)| *known == peer).map(|(_, addresses)| addresses)?;
        let narrow = self.ways.iter().all(|way| self.front_mtu.is_none_or(|front| way.mtu < front));
        let far = self.ways.iter().zip(addresses).all(|(way, there)| !neighbours(way.address, *there, way.prefix));
        Some(if narrow {
            "the backplane's MTU is smaller than the front's: raise it, or open connections break at a move".to_owned()
        } else if far {
            "the peer is no direct neighbour on any backplane link (its address is in another subnet)".to_owned()
        } else {
            "no heartbeats of the peer arrive on a backplane link".to_owned()
        })
    }
}

/// Whether two addresses share their first bits.
fn neighbours(a: IpAddr, b: IpAddr, prefix: u8) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()) << 96, 32),
        IpAddr::V6(ip) => (ip.to_bits(), 128),
    };
    let ((a, width), (b, other)) = (bits(a), bits(b));
    let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
    width == other && prefix > 0 && a & mask == b & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_their_prefix() {
        let near = |a: &str, b: &str, prefix| neighbours(a.parse().unwrap(), b.parse().unwrap(), prefix);
        assert!(near("10.0.0.1", "10.0.0.2", 24) && near("10.0.0.1", "10.0.0.1", 32));
        assert!(!near("10.0.0.1", "10.0.1.2", 24) && !near("10.0.0.1", "10.0.0.2", 32));
        assert!(near("fd00::1", "fd00::2", 64) && !near("fd00::1", "fd00:0:0:1::2", 64));
        assert!(!near("10.0.0.1", "fd00::1", 8) && !near("10.0.0.1", "10.0.0.2", 0));
    }
}
