//! The `vip` kind: all virtual addresses of a group as one unit, IPv4 and IPv6, on any number of devices.
//!
//! Everything is prepared when the agent starts: requests encoded, frames built, sockets open, multicast groups joined.
//! `start` is then a few system calls, and is done when it returns. Only where a device carries more IPv6 addresses than
//! [`INLINE_IPV6_MAX`], which the kernel adds slowly (see [`address`]), does a future go on with them in short turns, after
//! packets are accepted and all addresses are announced.
//!
//! A prefix of /32 or /128 is recommended: the kernel removes the "secondary" addresses of a longer subnet together with
//! its first one.

mod front;
mod loopback;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

pub use front::INLINE_IPV6_MAX;
use front::{Front, Repair, Stamps};
use loopback::Loopback;
use rustix::io::Errno;

use super::{Context, Health, Milestone, Operation, Resource, ResourceError, Timeouts, Work};
use crate::netlink::{
    NetlinkError, RequestSocket,
    address::{self, AddressSet, Outcome},
    announce::Announced,
    watch::Event,
};

/// How often addresses are checked although the watch reports removals at once.
const MONITOR_INTERVAL: Duration = Duration::from_secs(10);
/// Bounds the turns of thousands of IPv6 addresses; nothing else is awaited.
const LIMIT: Duration = Duration::from_secs(30);

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
        Self { ip, prefix, device: Arc::from(device), label: None, prefix_route: false, preferred: false }
    }
}

/// A group's virtual addresses.
#[derive(Debug)]
pub struct Vip {
    name: String,
    requests: RequestSocket,
    fronts: Vec<Front>,
    loopback: Loopback,
    started: bool,
    repairs: u64,
    milestones: [Milestone; 2],
}

impl Vip {
    /// Prepare a group's addresses. A device that does not exist yet is no error: it is prepared when it appears
    /// ([`Resource::on_network`]); [`Self::missing`] names it.
    ///
    /// # Errors
    /// [`NetlinkError`] when an address or a device's settings cannot work, or a socket cannot be opened.
    pub fn new(name: &str, specs: Vec<VipSpec>) -> Result<Self, NetlinkError> {
        let mut requests = RequestSocket::open()?;
        let loopback = Loopback::new(specs.iter())?;
        let mut by_device: Vec<(Arc<str>, Vec<VipSpec>)> = Vec::new();
        for spec in specs {
            match by_device.iter_mut().find(|(device, _)| *device == spec.device) {
                Some((_, specs)) => specs.push(spec),
                None => by_device.push((Arc::clone(&spec.device), vec![spec])),
            }
        }
        let mut fronts: Vec<_> = by_device.into_iter().map(|(device, specs)| Front::new(device, specs)).collect();
        for front in &mut fronts {
            match front.prepare(&mut requests) {
                Ok(()) => {}
                Err(error) if error.errno() == Some(Errno::NODEV) => {
                    // The addresses themselves are checked all the same, with an index that stands for none.
                    AddressSet::new(front.addresses(0))?;
                }
                Err(error) => return Err(error),
            }
        }
        let milestones = [Milestone { phase: "address", at: 0 }, Milestone { phase: "announce", at: 0 }];
        Ok(Self { name: name.to_owned(), requests, fronts, loopback, started: false, repairs: 0, milestones })
    }

    /// Puts addresses only on devices of these numbers from now on: those that the gate is on. A device that is made again has
    /// another number, and no gate.
    pub fn confine(&mut self, gated: &BTreeSet<u32>) {
        for front in &mut self.fronts {
            front.confine(gated);
        }
    }

    /// The devices that do not exist.
    pub fn missing(&self) -> Vec<&str> {
        self.fronts.iter().filter(|front| front.ready.is_none()).map(|front| &*front.device).collect()
    }

    /// How often something that was lost was put back.
    pub fn repairs(&self) -> u64 {
        self.repairs
    }

    /// Whether the addresses shall be here.
    pub fn started(&self) -> bool {
        self.started
    }

    fn start_now(&mut self, operation: Operation) -> Result<(), ResourceError> {
        self.started = true;
        let mut tally = Tally::default();
        let mut stamps = Stamps::default();
        for front in &mut self.fronts {
            front.bring_up(&mut self.requests, &mut stamps, &mut tally);
        }
        self.milestones[0].at = stamps.added;
        self.milestones[1].at = stamps.announced;
        tally.into_result(&self.name, operation)
    }

    fn stop_now(&mut self) -> Result<(), ResourceError> {
        self.started = false;
        let mut tally = Tally::default();
        for front in &mut self.fronts {
            front.take_down(&mut self.requests, &mut tally);
        }
        self.loopback.remove(&mut self.requests, &mut tally);
        tally.into_result(&self.name, Operation::Stop)
    }

    /// The addresses accept packets here, and nobody is told: for the target of a planned move.
    fn receive_now(&mut self) -> Result<(), ResourceError> {
        let mut tally = Tally::default();
        self.loopback.add(&mut self.requests, &mut tally);
        tally.into_result(&self.name, Operation::Receive)
    }

    /// The addresses leave the fronts, and go on accepting packets: for the old owner of a planned move.
    fn drain_now(&mut self) -> Result<(), ResourceError> {
        self.started = false;
        let mut tally = Tally::default();
        self.loopback.add(&mut self.requests, &mut tally);
        for front in &mut self.fronts {
            front.take_down(&mut self.requests, &mut tally);
        }
        tally.into_result(&self.name, Operation::Drain)
    }

    /// The work of what was done already, and of what is left for turns.
    fn work(&mut self, done: Result<(), ResourceError>, operation: Operation) -> Work<'_, ()> {
        if self.fronts.iter().any(Front::unfinished) {
            Work::pending(async move {
                let rest = self.finish(operation).await;
                done.and(rest)
            })
        } else {
            Work::Done(done)
        }
    }

    /// Go on in turns until nothing is left. Bounded by the number of addresses; the caller bounds the time.
    async fn finish(&mut self, operation: Operation) -> Result<(), ResourceError> {
        let mut tally = Tally::default();
        while self.fronts.iter().any(Front::unfinished) {
            tokio::task::yield_now().await;
            for front in &mut self.fronts {
                front.turn(&mut self.requests, &mut tally);
            }
        }
        tally.into_result(&self.name, operation)
    }

    fn health(&mut self, operation: Operation) -> Result<Health, ResourceError> {
        let (mut there, mut all, mut trouble) = (0, 0, None);
        let left =
            self.loopback.count(&mut self.requests).map_err(|error| network(&self.name, operation, vec![error]))?;
        for front in &self.fronts {
            all += front.specs.len();
            let Some(ready) = &front.ready else {
                trouble.get_or_insert_with(|| format!("device {} does not exist", front.device));
                continue;
            };
            let present = address::list(&mut self.requests, ready.link.index)
                .map_err(|error| network(&self.name, operation, vec![error]))?;
            let usable: std::collections::BTreeMap<IpAddr, bool> =
                present.iter().map(|found| (found.ip, !found.unusable)).collect();
            for spec in &front.specs {
                match usable.get(&spec.ip) {
                    Some(true) => there += 1,
                    Some(false) => {
                        trouble.get_or_insert_with(|| format!("{} is tentative or a duplicate", spec.ip));
                    }
                    None => {
                        trouble.get_or_insert_with(|| format!("{} is missing on {}", spec.ip, front.device));
                    }
                }
            }
        }
        Ok(match (there, trouble) {
            (_, None) => Health::Running,
            (0, _) if left == 0 => Health::Stopped,
            (0, _) => Health::Failed(format!("{left} of {all} addresses are on loopback, as while a move drains")),
            (_, Some(trouble)) => Health::Failed(format!("{there} of {all} addresses are there: {trouble}")),
        })
    }

    fn network_changed(&mut self, event: &Event) -> Result<(), ResourceError> {
        let mut tally = Tally::default();
        for front in &mut self.fronts {
            let repair = match event {
                Event::Link { now, before } => front.link_changed(now, before.as_ref(), &mut self.requests),
                Event::LinkGone(link) => {
                    if front.ready.as_ref().is_some_and(|ready| ready.link.index == link.index) {
                        front.forget();
                    }
                    Ok(Repair::Nothing)
                }
                Event::AddressGone(gone) => Ok(front.address_gone(gone.index, gone.ip)),
                Event::Address(_) => Ok(Repair::Nothing),
                Event::Resynced => front.check(&mut self.requests),
            };
            let repair = match repair {
                Ok(repair) if self.started => repair,
                Ok(_) => Repair::Nothing,
                Err(error) => {
                    tally.fail(error);
                    continue;
                }
            };
            match repair {
                Repair::Nothing => {}
                Repair::Announce => front.announce(&mut tally),
                Repair::One(position) => {
                    self.repairs += 1;
                    front.put_back(position, &mut self.requests, &mut tally);
                }
                Repair::All => {
                    self.repairs += 1;
                    front.bring_up(&mut self.requests, &mut Stamps::default(), &mut tally);
                }
            }
        }
        tally.into_result(&self.name, Operation::Monitor)
    }
}

/// Collects what went wrong over several devices.
#[derive(Debug, Default)]
struct Tally {
    failures: Vec<NetlinkError>,
}

impl Tally {
    fn take(&mut self, result: Result<Outcome, NetlinkError>) {
        match result {
            Ok(outcome) => self.failures.extend(outcome.failures),
            Err(error) => self.failures.push(error),
        }
    }

    fn fail(&mut self, error: NetlinkError) {
        self.failures.push(error);
    }

    fn merge(&mut self, other: Self) {
        self.failures.extend(other.failures);
    }

    /// The schedule announces again: a frame that was not taken is worth a line, not a failed start.
    fn announced(&mut self, announced: Announced) {
        for failure in announced.failures {
            tracing::warn!(%failure, "some addresses were not announced yet");
        }
    }

    fn into_result(self, resource: &str, operation: Operation) -> Result<(), ResourceError> {
        if self.failures.is_empty() { Ok(()) } else { Err(network(resource, operation, self.failures)) }
    }
}

fn network(resource: &str, operation: Operation, failures: Vec<NetlinkError>) -> ResourceError {
    ResourceError::Network { resource: resource.to_owned(), operation, failures }
}

impl Resource for Vip {
    fn name(&self) -> &str {
        &self.name
    }

    fn timeouts(&self) -> Timeouts {
        Timeouts { probe: LIMIT, start: LIMIT, stop: LIMIT, monitor: LIMIT }
    }

    fn probe(&mut self) -> Work<'_, Health> {
        Work::Done(self.health(Operation::Probe))
    }

    fn start(&mut self, _context: &Context) -> Work<'_, ()> {
        let done = self.start_now(Operation::Start);
        self.work(done, Operation::Start)
    }

    fn stop(&mut self, _context: &Context) -> Work<'_, ()> {
        let done = self.stop_now();
        self.work(done, Operation::Stop)
    }

    fn receive(&mut self, _context: &Context) -> Work<'_, ()> {
        Work::Done(self.receive_now())
    }

    fn drain(&mut self, _context: &Context) -> Work<'_, ()> {
        let done = self.drain_now();
        self.work(done, Operation::Drain)
    }

    fn monitor(&mut self) -> Work<'_, Health> {
        let found = self.health(Operation::Monitor);
        if !self.started || !matches!(found, Ok(Health::Stopped | Health::Failed(_))) {
            return Work::Done(found);
        }
        self.repairs += 1;
        tracing::warn!(resource = %self.name, ?found, "addresses were lost and are put back");
        let repaired = self.start_now(Operation::Monitor);
        // What the repair could not do says more than what is missing.
        if self.fronts.iter().any(Front::unfinished) {
            return Work::pending(async move {
                let rest = self.finish(Operation::Monitor).await;
                repaired.and(rest).and_then(|()| self.health(Operation::Monitor))
            });
        }
        Work::Done(repaired.and_then(|()| self.health(Operation::Monitor)))
    }

    fn announce(&mut self) -> Work<'_, ()> {
        let mut tally = Tally::default();
        for front in &self.fronts {
            front.announce(&mut tally);
        }
        Work::Done(tally.into_result(&self.name, Operation::Announce))
    }

    fn on_network(&mut self, event: &Event) -> Work<'_, ()> {
        let done = self.network_changed(event);
        self.work(done, Operation::Monitor)
    }

    fn monitor_interval(&self) -> Option<Duration> {
        Some(MONITOR_INTERVAL)
    }

    fn milestones(&self) -> &[Milestone] {
        &self.milestones
    }
}
