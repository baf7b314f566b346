//! Rules of policy routing: which routing table is asked for which packets.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily,
    route::RouteProtocol,
    rule::{RuleAction, RuleAttribute, RuleHeader, RuleMessage},
};
use rustix::io::Errno;

use super::{batch::Batch, error::NetlinkError, route::single, socket::RequestSocket};

const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;

/// A rule "packets like this are routed by that table".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whether the rule is for IPv6 packets.
    pub ipv6: bool,
    /// Smaller numbers are asked first.
    pub priority: u32,
    /// The table to ask.
    pub table: u32,
    /// Only packets from this prefix.
    pub from: Option<(IpAddr, u8)>,
    /// Only packets to this prefix.
    pub to: Option<(IpAddr, u8)>,
    /// Only packets that came in on this device.
    pub device: Option<String>,
    /// Only packets with this mark.
    pub mark: Option<u32>,
}

impl Rule {
    /// Name and place, for texts.
    pub fn describe(&self) -> String {
        format!("{} rule {} for table {}", if self.ipv6 { "IPv6" } else { "IPv4" }, self.priority, self.table)
    }

    fn message(&self) -> Result<RuleMessage, NetlinkError> {
        for (ip, prefix) in self.from.iter().chain(&self.to) {
            if ip.is_ipv6() != self.ipv6 || *prefix > if self.ipv6 { 128 } else { 32 } {
                let why = "its prefixes must be of the rule's own address family, and not longer than an address";
                return Err(NetlinkError::Invalid { object: self.describe(), why });
            }
        }
        let mut message = RuleMessage::default();
        message.header = RuleHeader {
            family: if self.ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet },
            dst_len: self.to.map_or(0, |(_, prefix)| prefix),
            src_len: self.from.map_or(0, |(_, prefix)| prefix),
            action: RuleAction::ToTable,
            ..RuleHeader::default()
        };
        let attributes = &mut message.attributes;
        attributes.push(RuleAttribute::Priority(self.priority));
        attributes.push(RuleAttribute::Table(self.table));
        attributes.push(RuleAttribute::Protocol(RouteProtocol::Static));
        attributes.extend(self.from.map(|(ip, _)| RuleAttribute::Source(ip)));
        attributes.extend(self.to.map(|(ip, _)| RuleAttribute::Destination(ip)));
        attributes.extend(self.device.clone().map(RuleAttribute::Iifname));
        attributes.extend(self.mark.map(RuleAttribute::FwMark));
        Ok(message)
    }

    /// Add the rule; one that is there already is success.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] or [`NetlinkError::Invalid`], or a transport error.
    pub fn add(&self, socket: &mut RequestSocket) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        batch.push(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, &self.message()?, 0);
        single(socket, &mut batch, "add", &[Errno::EXIST], || self.describe())
    }

    /// Remove the rule; one that is not there is success.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] or [`NetlinkError::Invalid`], or a transport error.
    pub fn delete(&self, socket: &mut RequestSocket) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        batch.push(RTM_DELRULE, 0, &self.message()?, 0);
        single(socket, &mut batch, "delete", &[Errno::NOENT, Errno::SRCH], || self.describe())
    }
}
