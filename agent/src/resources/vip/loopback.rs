//! A group's addresses on loopback: there they accept what the peer forwards during a planned move, and no neighbour is told of
//! them. IPv4 with host scope and IPv6 deprecated, so that nothing here chooses them as a source.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{Tally, VipSpec};
use crate::netlink::{
    NetlinkError, RequestSocket,
    address::{self, Address, AddressSet, Scope},
};

/// Loopback is the first device of every network namespace (LOOPBACK_IFINDEX, include/net/flow.h).
const INDEX: u32 = 1;

/// The addresses, prepared.
#[derive(Debug)]
pub(super) struct Loopback {
    set: AddressSet,
    /// Whether some may be there: not known at first.
    perhaps: bool,
}

impl Loopback {
    pub(super) fn new<'a>(specs: impl Iterator<Item = &'a VipSpec>) -> Result<Self, NetlinkError> {
        let device: Arc<str> = Arc::from("lo");
        let address = |spec: &VipSpec| Address {
            ip: spec.ip,
            prefix: if spec.ip.is_ipv4() { 32 } else { 128 },
            device: Arc::clone(&device),
            index: INDEX,
            label: None,
            scope: Scope::Host,
            prefix_route: false,
            preferred: false,
        };
        Ok(Self { set: AddressSet::new(specs.map(address).collect())?, perhaps: true })
    }

    /// Adds all of them; those that are there stay.
    pub(super) fn add(&mut self, requests: &mut RequestSocket, tally: &mut Tally) {
        self.perhaps = true;
        tally.take(self.set.add(requests));
    }

    /// Removes all of them.
    pub(super) fn remove(&mut self, requests: &mut RequestSocket, tally: &mut Tally) {
        if !self.perhaps {
            return;
        }
        let outcome = self.set.delete(requests);
        self.perhaps = !outcome.as_ref().is_ok_and(|outcome| outcome.failures.is_empty());
        tally.take(outcome);
    }

    /// How many of them are there.
    ///
    /// # Errors
    /// As [`address::list`].
    pub(super) fn count(&self, requests: &mut RequestSocket) -> Result<usize, NetlinkError> {
        let ours: BTreeSet<IpAddr> = self.set.addresses().iter().map(|address| address.ip).collect();
        Ok(address::list(requests, INDEX)?.into_iter().filter(|present| ours.contains(&present.ip)).count())
    }
}
