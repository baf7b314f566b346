//! Membership in the VIPs' solicited-node groups (RFC 4291, 2.7.1) before the addresses are there.
//!
//! A switch that snoops MLD forwards a neighbour solicitation only to members. Joined in advance, a standby need not wait
//! for the switch to learn when it takes over.

use std::{collections::BTreeSet, net::Ipv6Addr, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt},
};

use super::error::NetlinkError;

/// Groups a socket: the kernel charges each to the socket's option memory (net.core.optmem_max, 20 KiB on old kernels).
const GROUPS_PER_SOCKET: usize = 128;

/// The solicited-node multicast address of an address.
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let o = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, o[13], o[14], o[15]])
}

/// Memberships on one device; they end when this is dropped.
#[derive(Debug)]
pub struct Membership {
    sockets: Vec<OwnedFd>,
    groups: usize,
}

impl Membership {
    /// Join the solicited-node groups of `addresses` on the device `index`. Addresses that share a group join it once.
    ///
    /// # Errors
    /// [`NetlinkError::Setup`] or [`NetlinkError::Refused`] with the group's name.
    pub fn join(device: &str, index: u32, addresses: &[Ipv6Addr]) -> Result<Self, NetlinkError> {
        let groups: BTreeSet<Ipv6Addr> = addresses.iter().map(|a| solicited_node(*a)).collect();
        let all: Vec<Ipv6Addr> = groups.into_iter().collect();
        let mut sockets = Vec::new();
        for chunk in all.chunks(GROUPS_PER_SOCKET) {
            let socket = socket_with(AddressFamily::INET6, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
                .map_err(|errno| NetlinkError::Setup { what: "the multicast membership's socket", errno })?;
            for group in chunk {
                match sockopt::set_ipv6_add_membership(&socket, group, index) {
                    Ok(()) | Err(Errno::ADDRINUSE) => {}
                    Err(errno) => {
                        let object = format!("multicast group {group} on {device}");
                        return Err(NetlinkError::Refused { action: "join", object, errno, detail: String::new() });
                    }
                }
            }
            sockets.push(socket);
        }
        Ok(Self { sockets, groups: all.len() })
    }

    /// How many groups were joined.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// How many sockets hold them.
    pub fn sockets(&self) -> usize {
        self.sockets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_made_of_the_last_three_bytes() {
        let group = solicited_node("2001:db8::12:3456:789a".parse().unwrap());
        assert_eq!(group, "ff02::1:ff56:789a".parse::<Ipv6Addr>().unwrap());
    }
}
