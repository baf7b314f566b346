//! Reading netlink messages: bounds-checked iteration over messages and attributes.
//!
//! Only the attributes that are needed are read, so that a newer kernel's additions never spoil a message.

use std::net::IpAddr;

/// nlmsghdr (linux/netlink.h) is this long.
pub(crate) const HEADER_LEN: usize = 16;

/// Messages and attributes start at multiples of four bytes.
pub(crate) const fn align(len: usize) -> usize {
    (len + 3) & !3
}

/// Four bytes at `at`, in host order.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_ne_bytes)
}

/// Two bytes at `at`, in host order.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_ne_bytes)
}

/// One netlink message within a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// nlmsg_type.
    pub kind: u16,
    /// nlmsg_flags.
    pub flags: u16,
    /// nlmsg_seq.
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// The messages of one datagram; a malformed rest ends the iteration.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let payload = rest.get(HEADER_LEN..length)?;
        let message = Message { kind: u16_at(rest, 4)?, flags: u16_at(rest, 6)?, sequence: u32_at(rest, 8)?, payload };
        rest = rest.get(align(length)..).unwrap_or(&[]);
        Some(message)
    })
}

/// The attributes of a payload behind its family header of `header_len` bytes, as (type, value).
///
/// The flag bits NLA_F_NESTED and NLA_F_NET_BYTEORDER are masked; a malformed rest ends the iteration.
pub fn attributes(payload: &[u8], header_len: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = payload.get(align(header_len)..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(align(length)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// An address from an attribute's value: 4 bytes are IPv4, 16 are IPv6.
pub fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}

/// A zero-terminated string from an attribute's value.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&b| b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_two_messages_and_their_attributes() {
        let mut bytes = Vec::new();
        for sequence in [7u32, 8] {
            bytes.extend(25u32.to_ne_bytes());
            bytes.extend(20u16.to_ne_bytes());
            bytes.extend(0u16.to_ne_bytes());
            bytes.extend(sequence.to_ne_bytes());
            bytes.extend(0u32.to_ne_bytes());
            bytes.extend(9u16.to_ne_bytes());
            bytes.extend((3u16 | 0x8000).to_ne_bytes());
            bytes.extend(b"eth0\0\0\0\0");
        }
        let all: Vec<_> = messages(&bytes).collect();
        assert_eq!(all.iter().map(|m| m.sequence).collect::<Vec<_>>(), [7, 8]);
        let first: Vec<_> = attributes(all[0].payload, 0).collect();
        assert_eq!(first, [(3, &b"eth0\0"[..])]);
        assert_eq!(text(first[0].1), "eth0");
    }

    proptest! {
        #[test]
        fn any_bytes_end_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256), header in 0usize..20) {
            let found: usize = messages(&bytes).map(|m| 1 + attributes(m.payload, header).count()).sum();
            prop_assert!(found <= bytes.len());
        }

        #[test]
        fn small_lengths_do_not_loop(lengths in proptest::collection::vec(0u16..8, 0..64)) {
            let bytes: Vec<u8> = lengths.iter().flat_map(|l| l.to_ne_bytes()).collect();
            prop_assert!(attributes(&bytes, 0).count() <= bytes.len());
        }
    }
}
