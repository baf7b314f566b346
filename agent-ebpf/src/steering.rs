//! What steering needs beside the gate: the ways to the peers, the front devices, and the flows.
//!
//! Words that belong together carry one generation in their upper 16 bits. A reader takes them only when all generations
//! are the same, so that a change in between is seen without any ordering of loads (BPF's instruction set v3 has none).

use crate::{layout::PEERS, word::Word};

/// The most front devices.
pub const FRONTS_MAX: usize = 16;
/// The number that stands for no front.
pub const NO_FRONT: u32 = 0xff;
/// The most flows that are remembered; the least recently used one goes first.
pub const FLOWS_MAX: usize = 65_536;
/// The most fragmented packets whose way is remembered.
pub const FRAGMENTS_MAX: usize = 4_096;
/// How long a flow of a protocol without connections counts as alive after its last packet, ns.
pub const FLOW_AGE_NS: u64 = 30_000_000_000;
/// How long fragments may follow their first one, ns: Linux gives up on a packet after 30 s (`ipfrag_time`).
pub const FRAGMENT_AGE_NS: u64 = 30_000_000_000;
/// The bit of a source MAC's first byte that is flipped in a frame that must not be sent back (IEEE 802: locally administered).
pub const MAC_FINAL: u64 = 0x02;
/// The mark of a packet that is handed in at a front again: it came over the backplane from the peer.
pub const MARK_TAKEN: u32 = 0xba70_0001;
/// The mark of one that must not be sent back.
pub const MARK_FINAL: u32 = 0xba70_0002;

/// Whether a mark is one of these.
#[inline(always)]
pub const fn is_ours(mark: u32) -> bool {
    mark == MARK_TAKEN || mark == MARK_FINAL
}

/// The lower 48 bits: the value of a word with a generation.
const VALUE: u64 = (1 << 48) - 1;

/// A MAC address as a number: its first byte is the lowest, as in memory on this endianness.
#[inline(always)]
pub const fn mac_number(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

/// The MAC address in the lower 48 bits of a number.
#[inline(always)]
pub const fn mac_bytes(number: u64) -> [u8; 6] {
    let [a, b, c, d, e, f, _, _] = number.to_le_bytes();
    [a, b, c, d, e, f]
}

/// A value that is written as a whole: each word holds 48 bits of it and a generation.
#[repr(transparent)]
#[derive(Debug)]
pub struct Together<const WORDS: usize>([Word; WORDS]);

impl<const WORDS: usize> Together<WORDS> {
    /// The values, if a single writing wrote them all; `None` while they are being changed.
    #[inline(always)]
    pub fn load(&self) -> Option<[u64; WORDS]> {
        let mut values = [0; WORDS];
        let mut different = 0;
        let first = self.0[0].load();
        let mut i = 0;
        while i < WORDS {
            let word = self.0[i].load();
            different |= (word ^ first) >> 48;
            values[i] = word & VALUE;
            i += 1;
        }
        if different == 0 { Some(values) } else { None }
    }

    /// Writes the values, of which the lower 48 bits count, under the next generation. One writer at a time.
    pub fn store(&self, values: [u64; WORDS]) {
        let generation = (self.0[0].load() >> 48).wrapping_add(1) << 48;
        for (word, value) in self.0.iter().zip(values) {
            word.store(generation | (value & VALUE));
        }
    }
}

/// The way to one peer: interface number (0: there is none), the peer's MAC address, this machine's.
pub type PathWords = Together<3>;

/// A front device: interface number (0: there is none), its MAC address.
pub type FrontWords = Together<2>;

/// Ways and fronts. One row.
#[repr(C)]
#[derive(Debug)]
pub struct Steer {
    /// The way to each peer, by voter number; row 0 is unused.
    pub paths: [PathWords; PEERS],
    /// Fills the cache lines.
    pub reserved: [Word; 5],
    /// The front devices, by their number.
    pub fronts: [FrontWords; FRONTS_MAX],
}

/// The value of a VIP in its map: the group's slot and the number of the front that carries it.
#[inline(always)]
pub const fn vip_value(slot: u32, front: u32) -> u32 {
    let slot = if slot > 0xffff { 0xffff } else { slot };
    slot | (front & 0xff) << 16
}

/// The slot in a VIP's value.
#[inline(always)]
pub const fn vip_slot(value: u32) -> u32 {
    value & 0xffff
}

/// The front's number in a VIP's value; [`NO_FRONT`] for none.
#[inline(always)]
pub const fn vip_front(value: u32) -> u32 {
    value >> 16
}

/// A flow as its packets arrive at the VIP: addresses as in the VIP map, ports in network byte order (0 where the protocol
/// has none).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowKey {
    /// The client.
    pub source: [u32; 4],
    /// The VIP.
    pub destination: [u32; 4],
    /// The client's port.
    pub source_port: u16,
    /// The VIP's port.
    pub destination_port: u16,
    /// The IP protocol.
    pub protocol: u8,
    /// Always 0.
    pub reserved: [u8; 3],
}

/// Its packets are taken by this node.
pub const HOME_LOCAL: u32 = 1;
/// Its packets belong to the other node of the move.
pub const HOME_PEER: u32 = 2;

/// What is known of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowState {
    /// When it was last seen (ns, boot clock); of TCP, when it was opened.
    pub last_seen: u64,
    /// [`HOME_LOCAL`] or [`HOME_PEER`].
    pub home: u32,
    /// The group's slot.
    pub slot: u32,
}

/// The fragments of one packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentKey {
    /// The client.
    pub source: [u32; 4],
    /// The VIP.
    pub destination: [u32; 4],
    /// The identification: 16 bits of IPv4, 32 of IPv6.
    pub id: u32,
    /// The IP protocol.
    pub protocol: u32,
}

const _: () = assert!(size_of::<Steer>() == (3 * PEERS + 5 + 2 * FRONTS_MAX) * 8);
const _: () = assert!(size_of::<Steer>().is_multiple_of(64));
const _: () = assert!(size_of::<FlowKey>() == 40);
const _: () = assert!(size_of::<FlowState>() == 16);
const _: () = assert!(size_of::<FragmentKey>() == 40);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_in_change_is_not_taken() {
        let path = Together::<3>([const { Word::new(0) }; 3]);
        assert_eq!(path.load(), Some([0; 3]));
        path.store([7, VALUE, 1]);
        assert_eq!(path.load(), Some([7, VALUE, 1]));
        // What a reader in the middle of the next writing finds.
        let before = path.0[1].load();
        path.store([7, 5, 1]);
        let after = path.0[1].load();
        path.0[1].store(before);
        assert_eq!(path.load(), None);
        path.0[1].store(after);
        assert_eq!(path.load(), Some([7, 5, 1]));
        for _ in 0..70_000 {
            path.store([1, 2, 3]);
        }
        assert_eq!(path.load(), Some([1, 2, 3]));
    }

    #[test]
    fn addresses_and_vips_come_back() {
        let mac = [2, 3, 4, 5, 6, 0xff];
        assert_eq!(mac_bytes(mac_number(mac)), mac);
        assert_eq!(mac_bytes(mac_number(mac) ^ MAC_FINAL), [0, 3, 4, 5, 6, 0xff]);
        let value = vip_value(255, 15);
        assert_eq!((vip_slot(value), vip_front(value)), (255, 15));
        let value = vip_value(100_000, NO_FRONT);
        assert_eq!((vip_slot(value), vip_front(value)), (0xffff, NO_FRONT));
        assert_ne!(value, u32::MAX);
    }
}
