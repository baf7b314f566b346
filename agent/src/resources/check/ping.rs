//! One echo request (RFC 792, RFC 4443) and its answer, without a program: by a raw socket, or a datagram one where that is not
//! allowed (icmp(7), `ping_group_range`).

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicU16, Ordering::Relaxed},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::clock;

const PAYLOAD_BYTES: usize = 16;
/// What an answer has at most of what was asked: an IPv4 header with options, the ICMP header, and the payload.
const ANSWER_BYTES_MAX: usize = 60 + 8 + PAYLOAD_BYTES;

/// Asks once, and waits for the answer for as long as it takes.
///
/// # Errors
/// The kernel's.
pub async fn ping(address: IpAddr) -> io::Result<()> {
    static SEQUENCE: AtomicU16 = AtomicU16::new(0);
    let sequence = SEQUENCE.fetch_add(1, Relaxed);
    let (socket, raw) = open(address)?;
    let mut payload = [0; PAYLOAD_BYTES];
    payload[..8].copy_from_slice(&clock::now().to_ne_bytes());
    payload[8..12].copy_from_slice(&std::process::id().to_ne_bytes());
    payload[12..14].copy_from_slice(&sequence.to_ne_bytes());
    // tokio's word for a socket that sends and receives whole messages.
    let socket = tokio::net::UdpSocket::from_std(socket)?;
    socket.send(&request(address, sequence, &payload)).await?;
    let mut bytes = [0; ANSWER_BYTES_MAX];
    loop {
        let length = socket.recv(&mut bytes).await?;
        let message = bytes.get(..length).unwrap_or_default();
        if is_answer(message, address, raw, &payload) {
            return Ok(());
        }
    }
}

fn open(address: IpAddr) -> io::Result<(UdpSocket, bool)> {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let (socket, raw) = match Socket::new(domain, Type::RAW, Some(protocol)) {
        Ok(socket) => (socket, true),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            (Socket::new(domain, Type::DGRAM, Some(protocol))?, false)
        }
        Err(e) => return Err(e),
    };
    socket.set_nonblocking(true)?;
    socket.connect(&SocketAddr::new(address, 0).into())?;
    Ok((socket.into(), raw))
}

fn request(address: IpAddr, sequence: u16, payload: &[u8; PAYLOAD_BYTES]) -> Vec<u8> {
    let mut message = vec![if address.is_ipv4() { 8 } else { 128 }, 0, 0, 0];
    // A datagram socket sets its own identifier; the payload tells answers apart.
    message.extend([0xba, 0x70]);
    message.extend(sequence.to_be_bytes());
    message.extend(payload);
    // The kernel computes that of IPv6, which covers addresses.
    if address.is_ipv4() {
        let sum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
    }
    message
}

fn is_answer(message: &[u8], address: IpAddr, raw: bool, payload: &[u8; PAYLOAD_BYTES]) -> bool {
    // A raw socket of IPv4 hands over the IP header, too.
    let header = if raw && address.is_ipv4() { message.first().map_or(0, |b| usize::from(b & 0xf) * 4) } else { 0 };
    let Some(message) = message.get(header..) else { return false };
    let wanted = if address.is_ipv4() { 0 } else { 129 };
    message.first() == Some(&wanted) && message.get(8..) == Some(payload)
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_sums_up_to_nothing_and_only_its_answer_is_one() {
        let (v4, v6): (IpAddr, IpAddr) = ("127.0.0.1".parse().unwrap(), "::1".parse().unwrap());
        let payload = *b"sixteen bytes of";
        let sent = request(v4, 7, &payload);
        assert_eq!(checksum(&sent), 0);
        let mut answer = sent.clone();
        answer[0] = 0;
        assert!(is_answer(&answer, v4, false, &payload));
        assert!(!is_answer(&sent, v4, false, &payload), "loopback shows the request, too");
        let mut with_header = vec![0x45; 20];
        with_header.extend(&answer);
        assert!(is_answer(&with_header, v4, true, &payload) && !is_answer(&with_header, v4, false, &payload));
        assert!(!is_answer(&answer, v4, false, b"of another asker"));
        let mut answer = request(v6, 7, &payload);
        answer[0] = 129;
        assert!(is_answer(&answer, v6, true, &payload));
        for short in [&[][..], &[0], &[0x4f; 3]] {
            assert!(!is_answer(short, v4, true, &payload));
        }
    }
}
