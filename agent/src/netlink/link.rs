//! Links: finding devices, and telling whether they can carry traffic.

use std::fmt;

use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use super::{error::NetlinkError, socket::RequestSocket, wire};

pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
/// struct ifinfomsg (linux/rtnetlink.h) is this long.
const HEADER_LEN: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
/// ARPHRD_ETHER (linux/if_arp.h).
const ETHERNET: u16 = 1;
/// AF_BRIDGE: such messages are about a bridge's port, not about the link.
const AF_BRIDGE: u8 = 7;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A device as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// ifindex; a device that is made again gets another one.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address; none on devices without one (loopback, tunnels).
    pub mac: Option<Mac>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Switched on by the administrator (IFF_UP).
    pub up: bool,
    /// A carrier is there (IFF_LOWER_UP).
    pub carrier: bool,
    /// Operational (IFF_RUNNING): up, with a carrier, and not dormant (RFC 2863).
    pub running: bool,
    /// The bond or bridge that it belongs to.
    pub controller: Option<u32>,
}

impl Link {
    /// Whether the device can carry traffic now.
    pub fn ready(&self) -> bool {
        self.up && self.carrier && self.running
    }

    /// What is wrong with the device, as a clause; none when it is ready.
    pub fn complaint(&self) -> Option<&'static str> {
        if !self.up {
            Some("it is switched off (ip link set DEVICE up)")
        } else if !self.carrier {
            Some("it has no carrier: check cable, switch port or peer")
        } else if !self.running {
            Some("it is not operational: its lower device is down or it waits for authentication")
        } else {
            None
        }
    }
}

/// Read an RTM_NEWLINK or RTM_DELLINK payload.
pub fn parse(payload: &[u8]) -> Option<Link> {
    if *payload.first()? == AF_BRIDGE {
        return None;
    }
    let ethernet = wire::u16_at(payload, 2)? == ETHERNET;
    let flags = LinkFlags::from_bits_retain(wire::u32_at(payload, 8)?);
    let mut link = Link {
        index: wire::u32_at(payload, 4)?,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        running: flags.contains(LinkFlags::Running),
        controller: None,
    };
    for (kind, value) in wire::attributes(payload, HEADER_LEN) {
        match kind {
            IFLA_IFNAME => link.name = wire::text(value),
            IFLA_ADDRESS if ethernet => link.mac = <[u8; 6]>::try_from(value).ok().map(Mac),
            IFLA_MTU => link.mtu = wire::u32_at(value, 0).unwrap_or(0),
            IFLA_MASTER => link.controller = wire::u32_at(value, 0),
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

/// All devices.
///
/// # Errors
/// As [`RequestSocket::dump`].
pub fn list(socket: &mut RequestSocket) -> Result<Vec<Link>, NetlinkError> {
    let kept = socket.dump(RTM_GETLINK, &LinkMessage::default())?;
    Ok(kept.iter().filter(|(kind, _)| *kind == RTM_NEWLINK).filter_map(|(_, payload)| parse(payload)).collect())
}

/// The device of a name.
///
/// # Errors
/// [`NetlinkError::Refused`] with ENODEV when there is none.
pub fn by_name(socket: &mut RequestSocket, name: &str) -> Result<Link, NetlinkError> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    one(socket, &message, format!("device {name}"))
}

/// The device of an ifindex.
///
/// # Errors
/// [`NetlinkError::Refused`] with ENODEV when there is none.
pub fn by_index(socket: &mut RequestSocket, index: u32) -> Result<Link, NetlinkError> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    one(socket, &message, format!("device with index {index}"))
}

/// The devices of an Ethernet address: several may share one (a bond and its members, VLANs).
///
/// # Errors
/// As [`RequestSocket::dump`].
pub fn by_mac(socket: &mut RequestSocket, mac: Mac) -> Result<Vec<Link>, NetlinkError> {
    Ok(list(socket)?.into_iter().filter(|link| link.mac == Some(mac)).collect())
}

fn one(socket: &mut RequestSocket, message: &LinkMessage, object: String) -> Result<Link, NetlinkError> {
    let (_, payload) = socket.get(RTM_GETLINK, message, &object)?;
    parse(&payload)
        .ok_or(NetlinkError::Invalid { object, why: "the kernel's answer has no name; report this as a bug" })
}
