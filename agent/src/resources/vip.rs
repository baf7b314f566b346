//! The `vip` kind: all virtual addresses of a group as one unit, IPv4 and IPv6, on any number of devices.
//!
//! Everything is prepared when the agent starts: requests encoded, frames built, sockets open, multicast groups joined.
//! `start` is then two system calls for a few addresses, and never awaits. A prefix of /32 or /128 is recommended: the
//! kernel removes the "secondary" addresses of a longer subnet together with its first one.

use std::{net::IpAddr, sync::Arc, time::Duration};

use rustix::io::Errno;

use super::{Context, Health, Milestone, Operation, Resource, ResourceError, Timeouts, Work};
use crate::{
    clock,
    netlink::{
        NetlinkError, RequestSocket,
        address::{self, Address, AddressSet, Outcome, Scope},
        announce::{Announced, Announcer},
        link::{self, Link},
        membership::Membership,
        watch::Event,
    },
};

/// Addresses added before they are announced, so that the first of a thousand work long before the last.
const INTERLEAVE: usize = 128;
/// How often addresses are checked although the watch reports removals at once.
const MONITOR_INTERVAL: Duration = Duration::from_secs(10);

/// One virtual address, as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipSpec {
    /// The address.
    pub ip: IpAddr,
    /// Prefix length in bits; 32 or 128 recommended.
    pub prefix: u8,
    /// The front device.
    pub device: Arc<str>,
    /// IPv4 label.
    pub label: Option<String>,
    /// Whether the kernel adds the route of the prefix.
    pub prefix_route: bool,
    /// Whether the node may choose the address as a source by itself.
    pub preferred: bool,
}

impl VipSpec {
    /// A host address on a device, with the recommended settings.
    pub fn host(ip: IpAddr, device: &str) -> Self {
        let prefix = if ip.is_ipv4() { 32 } else { 128 };
        Self {
            ip,
            prefix,
            device: Arc::from(device),
            label: None,
            prefix_route: false,
            preferred: false,
        }
    }
}

/// A group's virtual addresses.
#[derive(Debug)]
pub struct Vip {
    name: String,
    requests: RequestSocket,
    fronts: Vec<Front>,
    started: bool,
    repairs: u64,
    milestones: [Milestone; 2],
}

/// The addresses on one device.
#[derive(Debug)]
struct Front {
    device: Arc<str>,
    specs: Vec<VipSpec>,
    /// None while the device does not exist.
    ready: Option<Ready>,
}

/// What is prepared for a device that exists.
#[derive(Debug)]
struct Ready {
    link: Link,
    set: AddressSet,
    announcer: Announcer,
    /// Held for its effect: the kernel leaves the groups when the sockets close.
    _membership: Membership,
}

impl Vip {
    /// Prepare a group's addresses. A device that does not exist yet is no error: it is prepared when it appears
    /// ([`Resource::on_network`]); [`Self::missing`] names it.
    ///
    /// # Errors
    /// [`NetlinkError`] when an address or a device's settings cannot work, or a socket cannot be opened.
    pub fn new(name: &str, specs: Vec<VipSpec>) -> Result<Self, NetlinkError> {
        let mut requests = RequestSocket::open()?;
        let mut fronts: Vec<Front> = Vec::new();
        for spec in specs {
            match fronts.iter_mut().find(|front| front.device == spec.device) {
                Some(front) => front.specs.push(spec),
                None => fronts.push(Front {
                    device: Arc::clone(&spec.device),
                    specs: vec![spec],
                    ready: None,
                }),
            }
        }
        for front in &mut fronts {
            match front.prepare(&mut requests) {
                Ok(()) => {}
                Err(error) if error.errno() == Some(Errno::NODEV) => {
                    // The addresses themselves are still checked, with an index that stands for none.
                    AddressSet::new(front.addresses(0))?;
                }
                Err(error) => return Err(error),
            }
        }
        let milestones = [
            Milestone {
                phase: "address",
                at: 0,
            },
            Milestone {
                phase: "announce",
                at: 0,
            },
        ];
        Ok(Self {
            name: name.to_owned(),
            requests,
            fronts,
            started: false,
            repairs: 0,
            milestones,
        })
    }

    /// The devices that do not exist.
    pub fn missing(&self) -> Vec<&str> {
        self.fronts
            .iter()
            .filter(|front| front.ready.is_none())
            .map(|front| &*front.device)
            .collect()
    }

    /// How often something that was lost was put back.
    pub fn repairs(&self) -> u64 {
        self.repairs
    }

    /// Whether the addresses shall be here.
    pub fn started(&self) -> bool {
        self.started
    }

    fn start_now(&mut self) -> Result<(), ResourceError> {
        self.started = true;
        let mut tally = Tally::default();
        let (mut added_at, mut announced_at) = (0, 0);
        for front in &mut self.fronts {
            let outcome = front.bring_up(&mut self.requests, &mut added_at, &mut announced_at);
            tally.take(outcome);
        }
        self.milestones[0].at = added_at;
        self.milestones[1].at = announced_at;
        tally.into_result(&self.name, Operation::Start)
    }

    fn stop_now(&mut self) -> Result<(), ResourceError> {
        self.started = false;
        let mut tally = Tally::default();
        for front in &mut self.fronts {
            if let Some(ready) = &mut front.ready {
                tally.take(
                    ready
                        .set
                        .delete(&mut self.requests)
                        .map(|outcome| (outcome, Announced::default())),
                );
            }
        }
        tally.into_result(&self.name, Operation::Stop)
    }

    /// How many addresses are there, of how many, and the first trouble as a sentence.
    fn survey(
        &mut self,
        operation: Operation,
    ) -> Result<(usize, usize, Option<String>), ResourceError> {
        let (mut there, mut all, mut trouble) = (0, 0, None);
        for front in &mut self.fronts {
            all += front.specs.len();
            let Some(ready) = &front.ready else {
                trouble.get_or_insert_with(|| format!("device {} does not exist", front.device));
                continue;
            };
            let present = address::list(&mut self.requests, ready.link.index)
                .map_err(|error| network(&self.name, operation, vec![error]))?;
            for spec in &front.specs {
                match present.iter().find(|p| p.ip == spec.ip) {
                    Some(found) if found.unusable => {
                        trouble.get_or_insert_with(|| {
                            format!("{} is tentative or a duplicate", spec.ip)
                        });
                    }
                    Some(_) => there += 1,
                    None => {
                        trouble.get_or_insert_with(|| {
                            format!("{} is missing on {}", spec.ip, front.device)
                        });
                    }
                }
            }
        }
        Ok((there, all, trouble))
    }

    fn health(&mut self, operation: Operation) -> Result<Health, ResourceError> {
        let (there, all, trouble) = self.survey(operation)?;
        Ok(match (there, trouble) {
            (_, None) => Health::Running,
            (0, _) => Health::Stopped,
            (_, Some(trouble)) => {
                Health::Failed(format!("{there} of {all} addresses are there: {trouble}"))
            }
        })
    }

    fn monitor_now(&mut self) -> Result<Health, ResourceError> {
        let found = self.health(Operation::Monitor)?;
        if !self.started || found == Health::Running {
            return Ok(found);
        }
        self.repairs += 1;
        tracing::warn!(resource = %self.name, ?found, "addresses were lost and are put back");
        let repaired = self.start_now();
        let health = self.health(Operation::Monitor)?;
        // What the repair could not do says more than what is missing.
        if health == Health::Running {
            Ok(health)
        } else {
            repaired.map(|()| health)
        }
    }

    fn announce_now(&mut self) -> Result<(), ResourceError> {
        let mut tally = Tally::default();
        for ready in self.fronts.iter().filter_map(|front| front.ready.as_ref()) {
            tally.take(Ok((Outcome::default(), ready.announcer.send())));
        }
        tally.into_result(&self.name, Operation::Announce)
    }

    fn network_changed(&mut self, event: &Event) -> Result<(), ResourceError> {
        let mut tally = Tally::default();
        let (mut added_at, mut announced_at) = (0, 0);
        for front in &mut self.fronts {
            let repair = match event {
                Event::Link { now, before } => {
                    front.link_changed(now, before.as_ref(), &mut self.requests)
                }
                Event::LinkGone(link) => {
                    if front
                        .ready
                        .as_ref()
                        .is_some_and(|ready| ready.link.index == link.index)
                    {
                        front.ready = None;
                    }
                    Ok(Repair::Nothing)
                }
                Event::AddressGone(gone) => Ok(front.address_gone(gone.index, gone.ip)),
                Event::Address(_) => Ok(Repair::Nothing),
            };
            match repair {
                Err(error) => tally.take(Err(error)),
                Ok(_) if !self.started => {}
                Ok(Repair::Nothing) => {}
                Ok(Repair::Announce) => {
                    if let Some(ready) = &front.ready {
                        tally.take(Ok((Outcome::default(), ready.announcer.send())));
                    }
                }
                Ok(Repair::One(i)) => {
                    self.repairs += 1;
                    if let Some(ready) = &mut front.ready {
                        let added = ready.set.add_range(&mut self.requests, i..i + 1);
                        tally.take(
                            added.map(|outcome| (outcome, ready.announcer.send_range(i..i + 1))),
                        );
                    }
                }
                Ok(Repair::All) => {
                    self.repairs += 1;
                    let outcome =
                        front.bring_up(&mut self.requests, &mut added_at, &mut announced_at);
                    tally.take(outcome);
                }
            }
        }
        tally.into_result(&self.name, Operation::Monitor)
    }
}

/// What a change of the network calls for.
enum Repair {
    Nothing,
    /// The neighbours must learn another Ethernet address.
    Announce,
    /// The address at this position is gone.
    One(usize),
    /// The device is new or came back.
    All,
}

impl Front {
    fn addresses(&self, index: u32) -> Vec<Address> {
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
    fn prepare(&mut self, requests: &mut RequestSocket) -> Result<(), NetlinkError> {
        self.ready = None;
        let link = link::by_name(requests, &self.device)?;
        let set = AddressSet::new(self.addresses(link.index))?;
        let ips: Vec<IpAddr> = self.specs.iter().map(|spec| spec.ip).collect();
        let announcer = Announcer::new(&link, &ips)?;
        let v6: Vec<_> = ips
            .iter()
            .filter_map(|ip| {
                if let IpAddr::V6(v6) = ip {
                    Some(*v6)
                } else {
                    None
                }
            })
            .collect();
        let membership = Membership::join(&self.device, link.index, &v6)?;
        self.ready = Some(Ready {
            link,
            set,
            announcer,
            _membership: membership,
        });
        Ok(())
    }

    /// Add and announce all addresses; `added_at` and `announced_at` become the instants of the last of each.
    fn bring_up(
        &mut self,
        requests: &mut RequestSocket,
        added_at: &mut u64,
        announced_at: &mut u64,
    ) -> Result<(Outcome, Announced), NetlinkError> {
        if self.ready.is_none() {
            self.prepare(requests)?;
        }
        let result = self.add_and_announce(requests, added_at, announced_at)?;
        if !result
            .0
            .failures
            .iter()
            .any(|failure| failure.errno() == Some(Errno::NODEV))
        {
            return Ok(result);
        }
        // The device was made again and its event is still on the way: once more with the new index.
        self.prepare(requests)?;
        self.add_and_announce(requests, added_at, announced_at)
    }

    fn add_and_announce(
        &mut self,
        requests: &mut RequestSocket,
        added_at: &mut u64,
        announced_at: &mut u64,
    ) -> Result<(Outcome, Announced), NetlinkError> {
        let (mut outcome, mut announced) = (Outcome::default(), Announced::default());
        let Some(ready) = &mut self.ready else {
            return Ok((outcome, announced));
        };
        let count = ready.set.addresses().len();
        for from in (0..count).step_by(INTERLEAVE) {
            let range = from..count.min(from + INTERLEAVE);
            outcome.merge(ready.set.add_range(requests, range.clone())?);
            *added_at = clock::now();
            // Never before the address is there: a client that learns too early sends its SYN into nothing and waits 1 s.
            announced.merge(ready.announcer.send_range(range));
            *announced_at = clock::now();
        }
        Ok((outcome, announced))
    }

    fn link_changed(
        &mut self,
        now: &Link,
        before: Option<&Link>,
        requests: &mut RequestSocket,
    ) -> Result<Repair, NetlinkError> {
        let Some(ready) = self
            .ready
            .as_mut()
            .filter(|ready| ready.link.index == now.index)
        else {
            if now.name != *self.device {
                return Ok(Repair::Nothing);
            }
            self.prepare(requests)?;
            return Ok(if now.up { Repair::All } else { Repair::Nothing });
        };
        ready.link = now.clone();
        let moved = now.mac.filter(|mac| *mac != ready.announcer.mac());
        if let Some(mac) = moved {
            ready.announcer.set_mac(mac);
        }
        // The kernel drops IPv6 addresses with the link, and its neighbours may have aged out meanwhile.
        if now.ready() && !before.is_some_and(Link::ready) {
            return Ok(Repair::All);
        }
        Ok(if moved.is_some() {
            Repair::Announce
        } else {
            Repair::Nothing
        })
    }

    fn address_gone(&self, index: u32, ip: IpAddr) -> Repair {
        // On a device that is switched off an address is put back when the device returns.
        let Some(ready) = self
            .ready
            .as_ref()
            .filter(|ready| ready.link.index == index && ready.link.up)
        else {
            return Repair::Nothing;
        };
        ready
            .set
            .addresses()
            .iter()
            .position(|address| address.ip == ip)
            .map_or(Repair::Nothing, Repair::One)
    }
}

/// Collects what went wrong over several devices.
#[derive(Default)]
struct Tally {
    failures: Vec<NetlinkError>,
}

impl Tally {
    fn take(&mut self, result: Result<(Outcome, Announced), NetlinkError>) {
        match result {
            Ok((outcome, announced)) => {
                self.failures.extend(outcome.failures);
                // The schedule announces again: worth a line, not a failed start.
                for failure in announced.failures {
                    tracing::warn!(%failure, "some addresses were not announced yet");
                }
            }
            Err(error) => self.failures.push(error),
        }
    }

    fn into_result(self, resource: &str, operation: Operation) -> Result<(), ResourceError> {
        if self.failures.is_empty() {
            Ok(())
        } else {
            Err(network(resource, operation, self.failures))
        }
    }
}

fn network(resource: &str, operation: Operation, failures: Vec<NetlinkError>) -> ResourceError {
    ResourceError::Network {
        resource: resource.to_owned(),
        operation,
        failures,
    }
}

impl Resource for Vip {
    fn name(&self) -> &str {
        &self.name
    }

    fn timeouts(&self) -> Timeouts {
        // Nothing here is awaited; the netlink socket's own bound is the limit.
        let limit = Duration::from_secs(5);
        Timeouts {
            probe: limit,
            start: limit,
            stop: limit,
            monitor: limit,
        }
    }

    fn probe(&mut self) -> Work<'_, Health> {
        Work::Done(self.health(Operation::Probe))
    }

    fn start(&mut self, _context: &Context) -> Work<'_, ()> {
        Work::Done(self.start_now())
    }

    fn stop(&mut self, _context: &Context) -> Work<'_, ()> {
        Work::Done(self.stop_now())
    }

    fn monitor(&mut self) -> Work<'_, Health> {
        Work::Done(self.monitor_now())
    }

    fn announce(&mut self) -> Work<'_, ()> {
        Work::Done(self.announce_now())
    }

    fn on_network(&mut self, event: &Event) -> Work<'_, ()> {
        Work::Done(self.network_changed(event))
    }

    fn monitor_interval(&self) -> Option<Duration> {
        Some(MONITOR_INTERVAL)
    }

    fn milestones(&self) -> &[Milestone] {
        &self.milestones
    }
}
