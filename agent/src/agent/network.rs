//! What the driver knows of this machine's network: which front links are up, and which VIPs stand on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::netlink::{
    link::Link,
    watch::{Event, Watch},
};

/// The front devices and the addresses on them.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// Whether each front device can carry packets.
    fronts: BTreeMap<String, bool>,
    /// The names of all devices, by number.
    names: BTreeMap<u32, String>,
    /// The VIPs that stand somewhere.
    present: BTreeSet<(u32, IpAddr)>,
}

impl Network {
    /// The network as a watch finds it. `vips` are the addresses to keep an eye on.
    pub fn new(fronts: &[String], vips: &[IpAddr], watch: &Watch) -> Self {
        let names: BTreeMap<u32, String> = watch.links().map(|link| (link.index, link.name.clone())).collect();
        let present = names
            .keys()
            .flat_map(|index| vips.iter().map(move |ip| (*index, *ip)))
            .filter(|(index, ip)| watch.has_address(*index, *ip))
            .collect();
        let up = |device: &String| watch.link(device).is_some_and(Link::ready);
        Self { fronts: fronts.iter().map(|d| (d.clone(), up(d))).collect(), names, present }
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
                news.extend(self.set(&now.name, now.ready()));
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
