//! What the driver knows of this machine's network: which front links are up, and which VIPs stand on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    kernel::Device,
    netlink::{
        link::Link,
        watch::{Event, Watch},
    },
};

/// The front devices and the addresses on them.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// Whether each front device can carry packets.
    fronts: BTreeMap<String, bool>,
    /// The number under which the gate was put on each front device; empty where nothing is enforced.
    gated: BTreeMap<String, u32>,
    /// The names of all devices, by number.
    names: BTreeMap<u32, String>,
    /// The VIPs that stand somewhere.
    present: BTreeSet<(u32, IpAddr)>,
}

impl Network {
    /// The network as a watch finds it. `vips` are the addresses to keep an eye on; `gated` the devices that the gate is on.
    pub fn new(fronts: &[String], vips: &[IpAddr], gated: &[Device], watch: &Watch) -> Self {
        let names: BTreeMap<u32, String> = watch.links().map(|link| (link.index, link.name.clone())).collect();
        let present = names
            .keys()
            .flat_map(|index| vips.iter().map(move |ip| (*index, *ip)))
            .filter(|(index, ip)| watch.has_address(*index, *ip))
            .collect();
        let gated: BTreeMap<_, _> = gated.iter().map(|device| (device.name.clone(), device.ifindex)).collect();
        let up = |device: &String| watch.link(device).is_some_and(|link| link.ready() && has_gate(&gated, link));
        let fronts = fronts.iter().map(|d| (d.clone(), up(d))).collect();
        Self { fronts, gated, names, present }
    }

    /// Takes note of a change; returns the front devices that went up or down by it.
    pub fn note(&mut self, event: &Event) -> Vec<(String, bool)> {
        match event {
            Event::Link { now, before } => {
                self.names.insert(now.index, now.name.clone());
                let mut news = Vec::new();
                if let Some(before) = before.as_ref().filter(|b| b.name != now.name) {
                    news.extend(self.set(&before.name, false));
                }
                news.extend(self.set(&now.name, now.ready() && has_gate(&self.gated, now)));
                news
            }
            Event::LinkGone(link) => {
                self.names.remove(&link.index);
                self.present.retain(|(index, _)| *index != link.index);
                self.set(&link.name, false).into_iter().collect()
            }
            Event::Address(address) => {
                self.present.insert((address.index, address.ip));
                Vec::new()
            }
            Event::AddressGone(address) => {
                self.present.remove(&(address.index, address.ip));
                Vec::new()
            }
            // What changed meanwhile has come as events of its own.
            Event::Resynced => Vec::new(),
        }
    }

    fn set(&mut self, device: &str, up: bool) -> Option<(String, bool)> {
        let known = self.fronts.get_mut(device)?;
        (std::mem::replace(known, up) != up).then(|| (device.to_owned(), up))
    }

    /// A front device that the gate is not on: it was made again, or another one took its name. What is served there knows no
    /// lease, so nothing may be, and only a new start puts the gate on it.
    pub fn ungated(&self) -> Option<&str> {
        let strange = |(index, name): &(&u32, &String)| self.gated.get(*name).is_some_and(|gated| gated != *index);
        self.names.iter().find(strange).map(|(_, name)| name.as_str())
    }

    /// Whether all front links are up. An arbiter has none: true.
    pub fn fronts_up(&self) -> bool {
        self.fronts.values().all(|up| *up)
    }

    /// Each front device, and whether it is up.
    pub fn fronts(&self) -> impl Iterator<Item = (&str, bool)> {
        self.fronts.iter().map(|(device, up)| (device.as_str(), *up))
    }

    /// Whether an address stands on a device.
    pub fn has(&self, device: &str, ip: IpAddr) -> bool {
        self.names.iter().any(|(index, name)| name == device && self.present.contains(&(*index, ip)))
    }
}

/// Whether the gate, where it is enforced, is on this very device.
fn has_gate(gated: &BTreeMap<String, u32>, link: &Link) -> bool {
    gated.is_empty() || gated.get(&link.name) == Some(&link.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            mac: None,
            mtu: 1500,
            up: true,
            carrier: true,
            running: true,
            controller: None,
        }
    }

    fn network(gated: &[(&str, u32)]) -> Network {
        Network {
            fronts: BTreeMap::from([("front".to_owned(), true)]),
            gated: gated.iter().map(|(name, index)| ((*name).to_owned(), *index)).collect(),
            names: BTreeMap::from([(7, "front".to_owned()), (8, "other".to_owned())]),
            present: BTreeSet::new(),
        }
    }

    #[test]
    fn a_front_that_is_made_again_has_no_gate_and_stays_down() {
        let mut network = network(&[("front", 7)]);
        assert_eq!((network.fronts_up(), network.ungated()), (true, None));
        network.note(&Event::LinkGone(link(7, "front")));
        assert_eq!((network.fronts_up(), network.ungated()), (false, None));
        assert!(network.note(&Event::Link { now: link(9, "front"), before: None }).is_empty());
        assert_eq!((network.fronts_up(), network.ungated()), (false, Some("front")));
    }

    #[test]
    fn another_device_that_takes_the_fronts_name_has_no_gate() {
        let mut network = network(&[("front", 7)]);
        network.note(&Event::Link { now: link(7, "former"), before: Some(link(7, "front")) });
        assert!(!network.fronts_up());
        network.note(&Event::Link { now: link(8, "front"), before: Some(link(8, "other")) });
        assert_eq!((network.fronts_up(), network.ungated()), (false, Some("front")));
    }

    #[test]
    fn where_nothing_is_enforced_a_new_front_is_as_good_as_the_old_one() {
        let mut network = network(&[]);
        network.note(&Event::LinkGone(link(7, "front")));
        network.note(&Event::Link { now: link(9, "front"), before: None });
        assert_eq!((network.fronts_up(), network.ungated()), (true, None));
    }
}
