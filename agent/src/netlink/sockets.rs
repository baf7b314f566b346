//! TCP sockets by their local address: counting the flows that are here, and resetting those that are left.
//!
//! By sock_diag(7), linux/inet_diag.h; the sockets of the calling thread's network namespace alone.

use std::{collections::BTreeSet, net::IpAddr};

use netlink_packet_core::{Emitable, NLM_F_ACK};
use rustix::io::Errno;

use super::{batch::Batch, error::NetlinkError, socket::RequestSocket};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// struct inet_diag_sockid: ports, addresses, interface, cookie.
const ID_LEN: usize = 48;
/// struct inet_diag_req_v2.
const REQUEST_LEN: usize = 8 + ID_LEN;
/// Bits are `1 << state` (net/tcp_states.h): all but TIME_WAIT (6), CLOSE (7) and LISTEN (10), in which nobody waits for data.
const ALIVE: u32 = 0x1fff & !(1 << 6 | 1 << 7 | 1 << 10 | 1);
/// How many sockets are reset at a time.
const RESET_MAX: usize = 512;

/// The sockets of one network namespace. One thread uses it at a time.
#[derive(Debug)]
pub struct Sockets(RequestSocket);

/// A request of sock_diag(7).
struct Request([u8; REQUEST_LEN]);

impl Request {
    fn new(family: u8, states: u32, id: &[u8]) -> Self {
        let mut bytes = [0; REQUEST_LEN];
        bytes[0] = family;
        bytes[1] = IPPROTO_TCP;
        bytes[4..8].copy_from_slice(&states.to_ne_bytes());
        bytes[8..8 + id.len()].copy_from_slice(id);
        Self(bytes)
    }
}

impl Emitable for Request {
    fn buffer_len(&self) -> usize {
        REQUEST_LEN
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer[..REQUEST_LEN].copy_from_slice(&self.0);
    }
}

impl Sockets {
    /// Open a socket to the kernel in the calling thread's network namespace.
    ///
    /// # Errors
    /// As [`RequestSocket::open`]; a kernel without INET_DIAG refuses the first request.
    pub fn open() -> Result<Self, NetlinkError> {
        RequestSocket::open_diagnostics().map(Self)
    }

    /// How many TCP connections have one of these as their local address, those that are being opened or closed included.
    ///
    /// # Errors
    /// The transport errors of [`RequestSocket::dump`].
    pub fn alive(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<usize, NetlinkError> {
        let mut count = 0;
        self.each(addresses, |_, _| count += 1)?;
        Ok(count)
    }

    /// Reset the connections that have one of these as their local address: their clients are told at once. Returns how many.
    ///
    /// # Errors
    /// As [`Self::alive`]. A socket that ended meanwhile is no error.
    pub fn reset(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<usize, NetlinkError> {
        let mut found = Vec::new();
        self.each(addresses, |family, id| found.push((family, id.to_vec())))?;
        let mut reset = 0;
        for some in found.chunks(RESET_MAX) {
            let mut batch = Batch::new();
            for (family, id) in some {
                batch.push(SOCK_DESTROY, NLM_F_ACK, &Request::new(*family, 0, id), 0);
            }
            reset += some.len();
            let mut refused = None;
            self.0.transact(&mut batch, 0..some.len(), |_, errno, _| {
                reset -= 1;
                if errno != Errno::NOENT {
                    refused = Some(errno);
                }
            })?;
            if let Some(errno) = refused {
                return Err(NetlinkError::Refused {
                    action: "reset",
                    object: "TCP sockets".to_owned(),
                    errno,
                    detail: "the kernel needs CONFIG_INET_DIAG_DESTROY".to_owned(),
                });
            }
        }
        Ok(reset)
    }

    /// Calls `see` with the family and the identity (inet_diag_sockid) of each live socket on one of the addresses.
    fn each(&mut self, addresses: &BTreeSet<IpAddr>, mut see: impl FnMut(u8, &[u8])) -> Result<(), NetlinkError> {
        let plain: BTreeSet<IpAddr> = addresses.iter().map(IpAddr::to_canonical).collect();
        for family in [AF_INET, AF_INET6] {
            // A list that changed while it was read is as good as any: the caller looks again.
            self.0.dump_each(SOCK_DIAG_BY_FAMILY, &Request::new(family, ALIVE, &[]), |_, payload| {
                if let Some((id, local)) = identity(payload)
                    && plain.contains(&local)
                {
                    see(family, id);
                }
            })?;
        }
        Ok(())
    }
}

/// The identity of a socket in an inet_diag_msg, and its local address (IPv4-mapped ones as IPv4).
fn identity(payload: &[u8]) -> Option<(&[u8], IpAddr)> {
    let family = *payload.first()?;
    let id = payload.get(4..4 + ID_LEN)?;
    let source: [u8; 16] = id.get(4..20)?.try_into().ok()?;
    let local = match family {
        AF_INET => IpAddr::from([source[0], source[1], source[2], source[3]]),
        AF_INET6 => IpAddr::from(source),
        _ => return None,
    };
    Some((id, local.to_canonical()))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// Addresses of loopback that no other test uses.
    #[test]
    fn connections_are_counted_by_address_and_reset() {
        let here: BTreeSet<IpAddr> = [[127, 83, 17, 9].into()].into();
        let mut sockets = Sockets::open().unwrap();
        assert_eq!(sockets.alive(&here).unwrap(), 0);
        let listener = TcpListener::bind("127.83.17.9:0").unwrap();
        let mut clients: Vec<_> = (0..3).map(|_| TcpStream::connect(listener.local_addr().unwrap()).unwrap()).collect();
        let _accepted: Vec<_> = (0..3).map(|_| listener.accept().unwrap()).collect();
        assert_eq!(sockets.alive(&here).unwrap(), 3, "the listener is no connection");
        assert_eq!(sockets.alive(&["127.83.17.8".parse().unwrap()].into()).unwrap(), 0);
        assert_eq!(sockets.reset(&here).unwrap(), 3);
        for client in &mut clients {
            let error = client.read(&mut [0; 1]).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
        assert_eq!(sockets.alive(&here).unwrap(), 0);
    }

    #[test]
    fn short_answers_are_no_sockets() {
        assert!((0..52).all(|length| identity(&vec![2; length]).is_none()));
    }
}
