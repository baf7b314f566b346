//! Routes: the few kinds that a group of resources needs.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use rustix::io::Errno;

use super::{batch::Batch, error::NetlinkError, socket::RequestSocket};

pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_DELROUTE: u16 = 25;
/// RT_TABLE_MAIN.
pub const TABLE_MAIN: u32 = 254;
/// RT_TABLE_LOCAL.
pub const TABLE_LOCAL: u32 = 255;
/// IP6_RT_PRIO_USER: what the kernel gives an IPv6 route without a metric; said explicitly, so that a delete matches.
const METRIC_IPV6_DEFAULT: u32 = 1024;

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: IpAddr,
    /// Prefix length in bits.
    pub prefix: u8,
    /// The next hop; none for what is on the link.
    pub gateway: Option<IpAddr>,
    /// The outgoing device's ifindex.
    pub index: Option<u32>,
    /// Preferred source.
    pub source: Option<IpAddr>,
    /// Metric.
    pub metric: Option<u32>,
    /// Table.
    pub table: u32,
    /// Whether packets to the destination are this machine's (RTN_LOCAL).
    pub local: bool,
}

impl Route {
    /// A route to a destination in the main table.
    pub fn to(destination: IpAddr, prefix: u8) -> Self {
        Self {
            destination,
            prefix,
            gateway: None,
            index: None,
            source: None,
            metric: None,
            table: TABLE_MAIN,
            local: false,
        }
    }

    /// The local route of one address: packets to it are accepted.
    pub fn local(address: IpAddr, index: u32) -> Self {
        let v4 = address.is_ipv4();
        Self {
            index: Some(index),
            metric: (!v4).then_some(METRIC_IPV6_DEFAULT),
            table: TABLE_LOCAL,
            local: true,
            ..Self::to(address, if v4 { 32 } else { 128 })
        }
    }

    /// Name and place, for texts.
    pub fn describe(&self) -> String {
        let via = self.gateway.map(|g| format!(" via {g}")).unwrap_or_default();
        let device = self.index.map(|i| format!(" on device {i}")).unwrap_or_default();
        format!("route to {}/{}{via}{device} in table {}", self.destination, self.prefix, self.table)
    }

    pub(super) fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: if self.destination.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 },
            destination_prefix_length: self.prefix,
            // Tables above 255 go by attribute only (RTA_TABLE); the header's field is then RT_TABLE_UNSPEC.
            table: u8::try_from(self.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC),
            protocol: RouteProtocol::Static,
            scope: match (self.local, self.gateway) {
                (true, _) => RouteScope::Host,
                (false, None) => RouteScope::Link,
                (false, Some(_)) => RouteScope::Universe,
            },
            kind: if self.local { RouteType::Local } else { RouteType::Unicast },
            ..RouteHeader::default()
        };
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Destination(self.destination.into()));
        attributes.push(RouteAttribute::Table(self.table));
        attributes.extend(self.gateway.map(|g| RouteAttribute::Gateway(g.into())));
        attributes.extend(self.index.map(RouteAttribute::Oif));
        attributes.extend(self.source.map(|s| RouteAttribute::PrefSource(s.into())));
        attributes.extend(self.metric.map(RouteAttribute::Priority));
        message
    }

    /// Add the route; one that is there already is success.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`], or a transport error.
    pub fn add(&self, socket: &mut RequestSocket) -> Result<(), NetlinkError> {
        self.run(socket, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, "add", &[Errno::EXIST])
    }

    /// Remove the route; one that is not there is success.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`], or a transport error.
    pub fn delete(&self, socket: &mut RequestSocket) -> Result<(), NetlinkError> {
        self.run(socket, RTM_DELROUTE, 0, "delete", &[Errno::SRCH, Errno::NOENT, Errno::NODEV])
    }

    fn run(
        &self,
        socket: &mut RequestSocket,
        kind: u16,
        flags: u16,
        action: &'static str,
        harmless: &[Errno],
    ) -> Result<(), NetlinkError> {
        if self.prefix > if self.destination.is_ipv4() { 32 } else { 128 } {
            let why = "the prefix length must be at most 32 for IPv4 and 128 for IPv6";
            return Err(NetlinkError::Invalid { object: self.describe(), why });
        }
        let mut batch = Batch::new();
        batch.push(kind, flags, &self.message(), 0);
        single(socket, &mut batch, action, harmless, || self.describe())
    }
}

/// Run a batch of one request.
pub(super) fn single(
    socket: &mut RequestSocket,
    batch: &mut Batch,
    action: &'static str,
    harmless: &[Errno],
    describe: impl Fn() -> String,
) -> Result<(), NetlinkError> {
    let mut failure = None;
    socket.transact(batch, 0..batch.len(), |_, errno, detail| {
        if !harmless.contains(&errno) {
            failure = Some(NetlinkError::Refused { action, object: describe(), errno, detail: detail.to_owned() });
        }
    })?;
    failure.map_or(Ok(()), Err)
}
