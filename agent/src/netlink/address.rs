//! Addresses: any number of IPv4 and IPv6 addresses added or removed in one batch, encoded in advance.
//!
//! IPv6 addresses carry IFA_F_NODAD, so they are never tentative: the lease, not duplicate address detection, keeps a
//! second owner away. The kernel inserts the local route of an IPv6 address from a workqueue (addrconf_dad_work), which
//! waits for the CPU behind everything else; until then it drops packets to the address. So a local route is added before
//! the address, and packets are accepted when the call returns.
//!
//! Adding an IPv6 address costs time in proportion to the multicast groups of its device: for each address the kernel
//! walks all of them (ipv6_find_idev calls ipv6_mc_up), 0.3 to 0.7 µs each, so that a thousand addresses take 0.5 s and more.
//! Routes have no such cost. [`AddressSet::accept`] therefore adds all routes at once; the addresses, which only neighbours
//! that solicit need, may follow in pieces ([`AddressSet::add_range`]).

use std::{collections::BTreeSet, net::IpAddr, ops::Range, sync::Arc};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressFlags, AddressHeader, AddressMessage, AddressScope, CacheInfo},
};
use rustix::io::Errno;

use super::{
    batch::Batch,
    error::NetlinkError,
    route::{self, Route},
    socket::RequestSocket,
    wire,
};

pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
/// struct ifaddrmsg (linux/if_addr.h) is this long.
const HEADER_LEN: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
/// "For ever" in struct ifa_cacheinfo.
const FOR_EVER: u32 = u32::MAX;
/// IFNAMSIZ - 1: labels are as short as device names.
const LABEL_LEN_MAX: usize = 15;

/// One address on one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Prefix length in bits.
    pub prefix: u8,
    /// The device's name, for texts.
    pub device: Arc<str>,
    /// The device's ifindex.
    pub index: u32,
    /// IPv4 label ("eth0:vip"); the kernel wants it to begin with the device's name only by custom.
    pub label: Option<String>,
    /// Where the address is valid.
    pub scope: Scope,
    /// Whether the kernel adds the route of the prefix (IFA_F_NOPREFIXROUTE when false).
    pub prefix_route: bool,
    /// Whether the node may choose it as a source by itself; false makes an IPv6 address deprecated (RFC 4862, 5.5.4).
    pub preferred: bool,
}

/// Where an address is valid (RT_SCOPE_*).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere.
    #[default]
    Universe,
    /// On this link.
    Link,
    /// On this machine.
    Host,
}

impl Address {
    /// An address with the defaults of a VIP: valid everywhere, no route of its prefix, usable as a source.
    pub fn vip(ip: IpAddr, prefix: u8, device: &str, index: u32) -> Self {
        Self {
            ip,
            prefix,
            device: Arc::from(device),
            index,
            label: None,
            scope: Scope::Universe,
            prefix_route: false,
            preferred: true,
        }
    }

    /// Name and place, for texts: "address 192.0.2.10/32 on eth0".
    pub fn describe(&self) -> String {
        format!("address {}/{} on {}", self.ip, self.prefix, self.device)
    }

    fn validate(&self) -> Result<(), NetlinkError> {
        let invalid = |why| Err(NetlinkError::Invalid { object: self.describe(), why });
        if self.prefix > if self.ip.is_ipv4() { 32 } else { 128 } {
            return invalid("the prefix length must be at most 32 for IPv4 and 128 for IPv6");
        }
        if self.ip.is_unspecified() || self.ip.is_multicast() {
            return invalid("a VIP must be a unicast address");
        }
        if self.label.as_ref().is_some_and(|l| l.is_empty() || l.len() > LABEL_LEN_MAX || l.contains('\0')) {
            return invalid("a label has 1 to 15 characters");
        }
        Ok(())
    }

    fn message(&self) -> AddressMessage {
        let mut flags = AddressFlags::Nodad;
        flags.set(AddressFlags::Noprefixroute, !self.prefix_route);
        let mut message = AddressMessage::default();
        message.header = AddressHeader {
            family: if self.ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 },
            prefix_len: self.prefix,
            scope: match self.scope {
                Scope::Universe => AddressScope::Universe,
                Scope::Link => AddressScope::Link,
                Scope::Host => AddressScope::Host,
            },
            index: self.index,
            ..AddressHeader::default()
        };
        message.attributes =
            vec![AddressAttribute::Local(self.ip), AddressAttribute::Address(self.ip), AddressAttribute::Flags(flags)];
        if let (Some(label), IpAddr::V4(_)) = (&self.label, self.ip) {
            message.attributes.push(AddressAttribute::Label(label.clone()));
        }
        if !self.preferred {
            let mut life = CacheInfo::default();
            life.ifa_preferred = 0;
            life.ifa_valid = FOR_EVER;
            message.attributes.push(AddressAttribute::CacheInfo(life));
        }
        message
    }

    /// The local route that makes an IPv6 address work at once (see the module's text).
    fn local_route(&self) -> Option<Route> {
        match self.ip {
            IpAddr::V6(ip) => Some(Route::local(ip.into(), self.index)),
            IpAddr::V4(_) => None,
        }
    }
}

/// What a batch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Addresses that were there already (add) or not there (delete): success.
    pub unchanged: usize,
    /// The addresses that the kernel refused, each with device, errno and remedy.
    pub failures: Vec<NetlinkError>,
}

impl Outcome {
    /// Add another batch's outcome to this one.
    pub fn merge(&mut self, other: Self) {
        self.unchanged += other.unchanged;
        self.failures.extend(other.failures);
    }
}

/// A list of addresses with its requests encoded, ready to be added or removed in one or two system calls.
#[derive(Clone, Debug)]
pub struct AddressSet {
    addresses: Vec<Address>,
    add: Batch,
    delete: Batch,
    /// The local routes of the IPv6 addresses.
    accept: Batch,
    refuse: Batch,
    /// Where the routes of address i begin in `accept` and `refuse`; one more entry than addresses.
    route_starts: Vec<usize>,
}

impl AddressSet {
    /// Encode the requests for these addresses.
    ///
    /// # Errors
    /// [`NetlinkError::Invalid`] for the first address that cannot be expressed.
    pub fn new(addresses: Vec<Address>) -> Result<Self, NetlinkError> {
        let mut set = Self {
            add: Batch::new(),
            delete: Batch::new(),
            accept: Batch::new(),
            refuse: Batch::new(),
            route_starts: Vec::with_capacity(addresses.len() + 1),
            addresses,
        };
        for (tag, address) in set.addresses.iter().enumerate() {
            address.validate()?;
            set.route_starts.push(set.accept.len());
            let message = address.message();
            set.add.push(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &message, tag);
            set.delete.push(RTM_DELADDR, 0, &message, tag);
            if let Some(route) = address.local_route() {
                let message = route.message();
                set.accept.push(route::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &message, tag);
                set.refuse.push(route::RTM_DELROUTE, 0, &message, tag);
            }
        }
        set.route_starts.push(set.accept.len());
        Ok(set)
    }

    /// The addresses, in the order of the requests.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Add all addresses. One that is there already counts as success.
    ///
    /// # Errors
    /// A transport error when the outcome is unknown; what the kernel refused is in the [`Outcome`].
    pub fn add(&mut self, socket: &mut RequestSocket) -> Result<Outcome, NetlinkError> {
        self.add_range(socket, 0..self.addresses.len())
    }

    /// Add the addresses of a range only, so that announcements can be interleaved.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_range(&mut self, socket: &mut RequestSocket, range: Range<usize>) -> Result<Outcome, NetlinkError> {
        let routes = self.routes(&range);
        let mut outcome = self.accept_range(socket, routes)?;
        // The address itself is the better witness of what was there before.
        outcome.unchanged = 0;
        let added = run(socket, &mut self.add, range, &self.addresses, "add", |errno| errno == Errno::EXIST)?;
        // A route and its address fail for one reason: named once.
        if added.failures.is_empty() {
            outcome.merge(added);
            Ok(outcome)
        } else {
            Ok(added)
        }
    }

    /// Accept packets to all IPv6 addresses before they are added: quick, however many they are.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn accept(&mut self, socket: &mut RequestSocket) -> Result<Outcome, NetlinkError> {
        self.accept_range(socket, 0..self.accept.len())
    }

    fn accept_range(&mut self, socket: &mut RequestSocket, routes: Range<usize>) -> Result<Outcome, NetlinkError> {
        run(socket, &mut self.accept, routes, &self.addresses, "accept packets to", |errno| errno == Errno::EXIST)
    }

    /// Remove all addresses. One that is not there, or whose device is gone, counts as success.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn delete(&mut self, socket: &mut RequestSocket) -> Result<Outcome, NetlinkError> {
        self.delete_range(socket, 0..self.addresses.len())
    }

    /// Remove the addresses of a range only.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn delete_range(&mut self, socket: &mut RequestSocket, range: Range<usize>) -> Result<Outcome, NetlinkError> {
        let gone = |errno| {
            matches!(errno, Errno::ADDRNOTAVAIL | Errno::NODEV | Errno::SRCH | Errno::NOENT | Errno::NETUNREACH)
        };
        let routes = self.routes(&range);
        let mut outcome = run(socket, &mut self.refuse, routes, &self.addresses, "refuse packets to", gone)?;
        outcome.unchanged = 0;
        outcome.merge(run(socket, &mut self.delete, range, &self.addresses, "delete", gone)?);
        Ok(outcome)
    }

    fn routes(&self, range: &Range<usize>) -> Range<usize> {
        let at = |i: usize| self.route_starts.get(i).copied().unwrap_or(self.accept.len());
        at(range.start)..at(range.end)
    }
}

/// Run a part of a batch.
fn run(
    socket: &mut RequestSocket,
    batch: &mut Batch,
    requests: Range<usize>,
    addresses: &[Address],
    action: &'static str,
    harmless: impl Fn(Errno) -> bool,
) -> Result<Outcome, NetlinkError> {
    let mut outcome = Outcome::default();
    socket.transact(batch, requests, |tag, errno, detail| {
        if harmless(errno) {
            outcome.unchanged += 1;
        } else {
            let object = addresses.get(tag).map_or_else(String::new, Address::describe);
            outcome.failures.push(NetlinkError::Refused { action, object, errno, detail: detail.to_owned() });
        }
    })?;
    Ok(outcome)
}

/// An address as the kernel reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Present {
    /// The device's ifindex.
    pub index: u32,
    /// The address.
    pub ip: IpAddr,
    /// Prefix length in bits.
    pub prefix: u8,
    /// Whether the kernel does not use it yet, or found a duplicate (IFA_F_TENTATIVE without OPTIMISTIC, IFA_F_DADFAILED).
    pub unusable: bool,
}

/// Read an RTM_NEWADDR or RTM_DELADDR payload.
pub fn parse(payload: &[u8]) -> Option<Present> {
    let prefix = *payload.get(1)?;
    let mut flags = u32::from(*payload.get(2)?);
    let index = wire::u32_at(payload, 4)?;
    let (mut local, mut remote) = (None, None);
    for (kind, value) in wire::attributes(payload, HEADER_LEN) {
        match kind {
            IFA_LOCAL => local = wire::ip(value),
            IFA_ADDRESS => remote = wire::ip(value),
            IFA_FLAGS => flags = wire::u32_at(value, 0).unwrap_or(flags),
            _ => {}
        }
    }
    let flags = AddressFlags::from_bits_retain(flags);
    let tentative = flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
    let unusable = tentative || flags.contains(AddressFlags::Dadfailed);
    // On point-to-point links IFA_ADDRESS is the peer's: the node's own is IFA_LOCAL where that is given.
    Some(Present { index, ip: local.or(remote)?, prefix, unusable })
}

/// The addresses on one device (`index`), or on all (0).
///
/// # Errors
/// As [`RequestSocket::dump`].
pub fn list(socket: &mut RequestSocket, index: u32) -> Result<BTreeSet<Present>, NetlinkError> {
    let mut message = AddressMessage::default();
    message.header.index = index;
    let kept = match socket.dump(RTM_GETADDR, &message) {
        // A device that is gone has no addresses.
        Err(error) if error.errno() == Some(Errno::NODEV) => Vec::new(),
        other => other?,
    };
    Ok(kept
        .iter()
        .filter(|(kind, _)| *kind == RTM_NEWADDR)
        .filter_map(|(_, payload)| parse(payload))
        .filter(|present| index == 0 || present.index == index)
        .collect())
}
