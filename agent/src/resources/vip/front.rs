//! The addresses of a group on one device: what is prepared for them, and how they come and go.

use std::{collections::BTreeSet, net::IpAddr, ops::Range, sync::Arc};

use rustix::io::Errno;

use super::{Tally, VipSpec};
use crate::{
    clock,
    cluster::ids::{MILLISECOND, Nanos},
    netlink::{
        NetlinkError, RequestSocket,
        address::{self, Address, AddressSet, Scope},
        announce::Announcer,
        link::{self, Link},
        membership::Membership,
    },
};

/// IPv6 addresses of a device that are added within the call; more are added in turns. At most about 3 ms.
pub const INLINE_IPV6_MAX: usize = 64;
/// Addresses added before they are announced, so that the first of a thousand work long before the last.
const INTERLEAVE: usize = 128;
/// How long a turn may take before other tasks of the thread get theirs.
const TURN: Nanos = 2 * MILLISECOND;
/// Addresses of one system call within a turn.
const PIECE: usize = 4;

/// The addresses on one device, IPv4 first.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) device: Arc<str>,
    pub(super) specs: Vec<VipSpec>,
    /// None while the device does not exist.
    pub(super) ready: Option<Ready>,
    /// The numbers of the devices that may carry addresses, because the gate is on them; `None` for any.
    gated: Option<BTreeSet<u32>>,
    /// What is left for turns.
    rest: Option<Rest>,
}

/// What is prepared for a device that exists.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) link: Link,
    pub(super) set: AddressSet,
    pub(super) announcer: Announcer,
    /// Held for its effect: the kernel leaves the groups when the sockets close.
    _membership: Membership,
}

/// Addresses that still have to come or go.
#[derive(Debug)]
enum Rest {
    Add(Range<usize>),
    Delete(Range<usize>),
}

/// When the last address was added and the last announcement sent; 0 if none was.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stamps {
    pub(super) added: Nanos,
    pub(super) announced: Nanos,
}

/// What a change of the network calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repair {
    /// Nothing.
    Nothing,
    /// The neighbours must learn another Ethernet address.
    Announce,
    /// The address at this position is gone.
    One(usize),
    /// The device is new or came back.
    All,
}

impl Front {
    pub(super) fn new(device: Arc<str>, mut specs: Vec<VipSpec>) -> Self {
        specs.sort_by_key(|spec| spec.ip.is_ipv6());
        Self { device, specs, ready: None, gated: None, rest: None }
    }

    /// From now on only devices of these numbers may carry addresses: a device that is made again has no gate.
    pub(super) fn confine(&mut self, gated: &BTreeSet<u32>) {
        self.gated = Some(gated.clone());
        if self.ready.as_ref().is_some_and(|ready| !gated.contains(&ready.link.index)) {
            self.forget();
        }
    }

    /// The addresses on the device of an index.
    pub(super) fn addresses(&self, index: u32) -> Vec<Address> {
        let address = |spec: &VipSpec| Address {
            ip: spec.ip,
            prefix: spec.prefix,
            device: Arc::clone(&spec.device),
            index,
            label: spec.label.clone(),
            scope: Scope::Universe,
            prefix_route: spec.prefix_route,
            preferred: spec.preferred,
        };
        self.specs.iter().map(address).collect()
    }

    /// Find the device and prepare everything for it.
    pub(super) fn prepare(&mut self, requests: &mut RequestSocket) -> Result<(), NetlinkError> {
        self.forget();
        let link = link::by_name(requests, &self.device)?;
        if self.gated.as_ref().is_some_and(|gated| !gated.contains(&link.index)) {
            return Err(NetlinkError::Ungated { device: link.name, index: link.index });
        }
        let set = AddressSet::new(self.addresses(link.index))?;
        let ips: Vec<IpAddr> = self.specs.iter().map(|spec| spec.ip).collect();
        let announcer = Announcer::new(&link, &ips)?;
        let v6: Vec<_> = ips.iter().filter_map(|ip| if let IpAddr::V6(v6) = ip { Some(*v6) } else { None }).collect();
        let membership = Membership::join(&self.device, link.index, &v6)?;
        self.ready = Some(Ready { link, set, announcer, _membership: membership });
        Ok(())
    }

    /// The device is gone.
    pub(super) fn forget(&mut self) {
        self.ready = None;
        self.rest = None;
    }

    /// Whether turns are needed to finish ([`Self::turn`]).
    pub(super) fn unfinished(&self) -> bool {
        self.rest.is_some()
    }

    /// Accept packets to all addresses and announce them; addresses that are slow to add are left to turns.
    pub(super) fn bring_up(&mut self, requests: &mut RequestSocket, stamps: &mut Stamps, tally: &mut Tally) {
        if self.ready.is_none()
            && let Err(error) = self.prepare(requests)
        {
            return tally.fail(error);
        }
        let mut first = Tally::default();
        self.add_and_announce(requests, stamps, &mut first);
        if !first.failures.iter().any(|failure| failure.errno() == Some(Errno::NODEV)) {
            return tally.merge(first);
        }
        // The device was made again and its event is still on the way: once more with the new index.
        match self.prepare(requests) {
            Ok(()) => self.add_and_announce(requests, stamps, tally),
            Err(error) => tally.fail(error),
        }
    }

    fn add_and_announce(&mut self, requests: &mut RequestSocket, stamps: &mut Stamps, tally: &mut Tally) {
        let inline = self.inline();
        let Some(ready) = &mut self.ready else { return };
        let count = ready.set.addresses().len();
        for from in (0..inline).step_by(INTERLEAVE) {
            let range = from..inline.min(from + INTERLEAVE);
            tally.take(ready.set.add_range(requests, range.clone()));
            stamps.added = clock::now();
            // Never before packets are accepted: a client that learns too early sends its SYN into nothing and waits 1 s.
            tally.announced(ready.announcer.send_range(range));
            stamps.announced = clock::now();
        }
        self.rest = None;
        if inline < count {
            tally.take(ready.set.accept(requests));
            stamps.added = clock::now();
            tally.announced(ready.announcer.send_range(inline..count));
            stamps.announced = clock::now();
            self.rest = Some(Rest::Add(inline..count));
        }
    }

    /// Remove all addresses; those that are slow to remove are left to turns.
    pub(super) fn take_down(&mut self, requests: &mut RequestSocket, tally: &mut Tally) {
        let inline = self.inline();
        self.rest = None;
        if self.ready.is_none() {
            match self.prepare(requests) {
                Ok(()) => {}
                // No device, no addresses.
                Err(error) if error.errno() == Some(Errno::NODEV) => return,
                // They went with the former device; on this one none was ever put.
                Err(NetlinkError::Ungated { .. }) => return,
                Err(error) => return tally.fail(error),
            }
        }
        let Some(ready) = &mut self.ready else { return };
        let count = ready.set.addresses().len();
        tally.take(ready.set.delete_range(requests, 0..inline));
        if inline < count {
            self.rest = Some(Rest::Delete(inline..count));
        } else {
            self.sweep(requests, tally);
        }
    }

    /// Remove what the batch does not reach: one of our addresses that somebody added with another prefix length.
    fn sweep(&mut self, requests: &mut RequestSocket, tally: &mut Tally) {
        let Some(ready) = &self.ready else { return };
        let ours: BTreeSet<IpAddr> = self.specs.iter().map(|spec| spec.ip).collect();
        let strays = address::list(requests, ready.link.index).map(|present| {
            let stray = present.into_iter().filter(|found| ours.contains(&found.ip));
            stray.map(|found| Address::vip(found.ip, found.prefix, &self.device, found.index)).collect::<Vec<_>>()
        });
        match strays {
            Ok(strays) if strays.is_empty() => {}
            Ok(strays) => {
                tally.take(AddressSet::new(strays).and_then(|mut strays| strays.delete(requests)));
            }
            Err(error) => tally.fail(error),
        }
    }

    /// Go on with what was left, for about [`TURN`].
    pub(super) fn turn(&mut self, requests: &mut RequestSocket, tally: &mut Tally) {
        let end = clock::now().saturating_add(TURN);
        while let Some(rest) = self.rest.take() {
            let Some(ready) = &mut self.ready else { return };
            let (Rest::Add(range) | Rest::Delete(range)) = &rest;
            let piece = range.start..range.end.min(range.start + PIECE);
            let left = piece.end..range.end;
            let result = match rest {
                Rest::Add(_) => ready.set.add_range(requests, piece),
                Rest::Delete(_) => ready.set.delete_range(requests, piece),
            };
            let broken = result.is_err();
            tally.take(result);
            match rest {
                // The rest would only fail alike; the next start or stop begins anew.
                _ if broken => return,
                Rest::Add(_) if left.is_empty() => return,
                Rest::Delete(_) if left.is_empty() => return self.sweep(requests, tally),
                Rest::Add(_) => self.rest = Some(Rest::Add(left)),
                Rest::Delete(_) => self.rest = Some(Rest::Delete(left)),
            }
            if clock::now() >= end {
                return;
            }
        }
    }

    /// Put one address back and announce it.
    pub(super) fn put_back(&mut self, position: usize, requests: &mut RequestSocket, tally: &mut Tally) {
        if let Some(ready) = &mut self.ready {
            tally.take(ready.set.add_range(requests, position..position + 1));
            tally.announced(ready.announcer.send_range(position..position + 1));
        }
    }

    pub(super) fn announce(&self, tally: &mut Tally) {
        if let Some(ready) = &self.ready {
            tally.announced(ready.announcer.send());
        }
    }

    /// How many addresses, from the first, come and go within the call.
    fn inline(&self) -> usize {
        let v4 = self.specs.iter().take_while(|spec| spec.ip.is_ipv4()).count();
        if self.specs.len() - v4 > INLINE_IPV6_MAX { v4 } else { self.specs.len() }
    }

    /// A device changed: follow it, and say what it calls for if the group is started.
    pub(super) fn link_changed(
        &mut self,
        now: &Link,
        before: Option<&Link>,
        requests: &mut RequestSocket,
    ) -> Result<Repair, NetlinkError> {
        let Some(ready) = self.ready.as_mut().filter(|ready| ready.link.index == now.index) else {
            if now.name != *self.device {
                return Ok(Repair::Nothing);
            }
            return match self.prepare(requests) {
                Ok(()) => Ok(if now.up { Repair::All } else { Repair::Nothing }),
                // The event is older than the device's end, which has an event of its own.
                Err(error) if error.errno() == Some(Errno::NODEV) => Ok(Repair::Nothing),
                Err(error) => Err(error),
            };
        };
        ready.link = now.clone();
        let moved = now.mac.filter(|mac| *mac != ready.announcer.mac());
        if let Some(mac) = moved {
            ready.announcer.set_mac(mac);
        }
        // The kernel drops IPv6 addresses with the link, and the neighbours may have forgotten meanwhile.
        if now.ready() && !before.is_some_and(Link::ready) {
            return Ok(Repair::All);
        }
        Ok(if moved.is_some() { Repair::Announce } else { Repair::Nothing })
    }

    /// Are all addresses there? Asked when events may have been missed.
    pub(super) fn check(&self, requests: &mut RequestSocket) -> Result<Repair, NetlinkError> {
        let Some(ready) = self.ready.as_ref().filter(|ready| ready.link.up) else {
            return Ok(Repair::Nothing);
        };
        let there: BTreeSet<IpAddr> =
            address::list(requests, ready.link.index)?.into_iter().map(|present| present.ip).collect();
        let complete = self.specs.iter().all(|spec| there.contains(&spec.ip));
        Ok(if complete { Repair::Nothing } else { Repair::All })
    }

    /// An address is gone from a device: is it one of ours that should be there?
    pub(super) fn address_gone(&self, index: u32, ip: IpAddr) -> Repair {
        // On a device that is switched off an address is put back when the device returns.
        let Some(ready) = self.ready.as_ref().filter(|ready| ready.link.index == index && ready.link.up) else {
            return Repair::Nothing;
        };
        ready.set.addresses().iter().position(|address| address.ip == ip).map_or(Repair::Nothing, Repair::One)
    }
}
