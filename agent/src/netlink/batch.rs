//! Netlink requests encoded in advance, so that sending them later copies and allocates nothing.

use netlink_packet_core::{Emitable, NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader};

use super::wire::{HEADER_LEN, align};

/// Where nlmsg_flags and nlmsg_seq stand in a header (linux/netlink.h).
const FLAGS_AT: usize = 6;
const SEQUENCE_AT: usize = 8;

/// One encoded request: where it starts, and the caller's number for it.
#[derive(Clone, Copy, Debug)]
struct Request {
    start: usize,
    tag: usize,
}

/// A list of encoded requests. Several requests may carry one tag, such as an address and its route.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    requests: Vec<Request>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many requests it holds.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether it holds no request.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Encode a request of type `kind` (RTM_*), with `flags` beside NLM_F_REQUEST. `tag` comes back with a refusal.
    pub fn push(&mut self, kind: u16, flags: u16, body: &impl Emitable, tag: usize) {
        let start = self.bytes.len();
        let length = HEADER_LEN + body.buffer_len();
        self.bytes.resize(start + align(length), 0);
        let mut header = NetlinkHeader::default();
        header.length = u32::try_from(length).unwrap_or(u32::MAX);
        header.message_type = kind;
        header.flags = flags | NLM_F_REQUEST;
        header.emit(&mut self.bytes[start..start + HEADER_LEN]);
        body.emit(&mut self.bytes[start + HEADER_LEN..start + length]);
        self.requests.push(Request { start, tag });
    }

    /// The tag of a request by its position.
    pub(super) fn tag(&self, position: usize) -> Option<usize> {
        self.requests.get(position).map(|r| r.tag)
    }

    /// The bytes of requests `from..to`, numbered from `sequence` on; the last asks for an acknowledgement.
    ///
    /// Refusals are always reported by the kernel, so one acknowledgement at the end closes the whole range:
    /// a successful batch costs one read instead of one a request.
    pub(super) fn stamp(&mut self, from: usize, to: usize, sequence: u32) -> &[u8] {
        let to = to.min(self.requests.len());
        let mut number = sequence;
        for (i, request) in self.requests.iter().enumerate().take(to).skip(from) {
            let Some(header) = self.bytes.get_mut(request.start..request.start + HEADER_LEN) else {
                continue;
            };
            header[SEQUENCE_AT..SEQUENCE_AT + 4].copy_from_slice(&number.to_ne_bytes());
            let mut flags = u16::from_ne_bytes([header[FLAGS_AT], header[FLAGS_AT + 1]]) & !NLM_F_ACK;
            if i + 1 == to {
                flags |= NLM_F_ACK;
            }
            header[FLAGS_AT..FLAGS_AT + 2].copy_from_slice(&flags.to_ne_bytes());
            number = number.wrapping_add(1);
        }
        let start = self.requests.get(from).map_or(self.bytes.len(), |r| r.start);
        let end = self.requests.get(to).map_or(self.bytes.len(), |r| r.start);
        self.bytes.get(start..end).unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::address::AddressMessage;

    use super::*;
    use crate::netlink::wire;

    #[test]
    fn only_the_last_request_of_a_range_asks_for_an_acknowledgement() {
        let mut batch = Batch::new();
        for tag in 0..5 {
            batch.push(20, 0, &AddressMessage::default(), tag);
        }
        let stamped: Vec<_> =
            wire::messages(batch.stamp(1, 4, u32::MAX)).map(|m| (m.sequence, m.flags & NLM_F_ACK)).collect();
        assert_eq!(stamped, [(u32::MAX, 0), (0, 0), (1, NLM_F_ACK)]);
        let again: Vec<_> = wire::messages(batch.stamp(0, 5, 9)).map(|m| m.flags & NLM_F_ACK).collect();
        assert_eq!(again, [0, 0, 0, 0, NLM_F_ACK]);
    }
}
