//! The heartbeat on the wire: 64 signed bytes and an 8-byte SipHash-2-4 tag, little-endian, one UDP datagram.
//!
//! ```text
//! word 0  magic u32 (wire version in the low byte) · cluster u32
//! word 1  kind · node · to · link · flags · leader · silent · reserved (u8 each)
//! word 2  order: incarnation << 40 | sequence number on this link to this peer
//! word 3  stamp: departure on the sender's CLOCK_BOOTTIME, ns
//! word 4  gate index        word 5  token u32 · digest u32
//! word 6  term              word 7  last log index
//! word 8  tag
//! ```

use crate::siphash::siphash24;

/// "BTN" and the version of this layout.
pub const MAGIC: u32 = 0x4e54_4200 | 1;
/// Words of a heartbeat, the tag included.
pub const WORDS: usize = 9;
/// Bytes of a heartbeat, the tag included.
pub const BYTES: usize = WORDS * 8;
/// The largest voter number.
pub const VOTERS_MAX: usize = 8;
/// The largest number of backplane links.
pub const LINKS_MAX: usize = 4;
/// Bits of [`Beat::order`] that the sequence number takes.
pub const SEQUENCE_BITS: u32 = 40;
/// The largest incarnation that [`Beat::order`] can carry.
pub const INCARNATION_MAX: u64 = (1 << (64 - SEQUENCE_BITS)) - 1;

/// Kind of a heartbeat: a beat, which asks for an acknowledgement.
pub const KIND_BEAT: u8 = 1;
/// Kind of a heartbeat: the acknowledgement of a beat.
pub const KIND_ACK: u8 = 2;
/// Flag: the sender holds a lease.
pub const FLAG_LEASE: u8 = 1;
/// Flag: the sender is a node, not an arbiter.
pub const FLAG_NODE: u8 = 2;

/// A heartbeat as it travels: its eight signed words and the tag.
pub type Words = [u64; WORDS];

/// A heartbeat, read. In an acknowledgement `node` acknowledges, `to` is the beat's sender, `order` and `stamp` are the beat's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// The cluster's number.
    pub cluster: u32,
    /// [`KIND_BEAT`] or [`KIND_ACK`].
    pub kind: u8,
    /// The sender.
    pub node: u8,
    /// The receiver.
    pub to: u8,
    /// The backplane link, from 0.
    pub link: u8,
    /// [`FLAG_LEASE`], [`FLAG_NODE`].
    pub flags: u8,
    /// The raft leader that the sender knows; 0 is none.
    pub leader: u8,
    /// The voters that the sender finds silent: bit id - 1.
    pub silent: u8,
    /// Incarnation and sequence number, see [`order`].
    pub order: u64,
    /// Departure on the sender's clock, ns; 0 until stamped.
    pub stamp: u64,
    /// The newest log entry whose effect is in the sender's gate.
    pub gate_index: u64,
    /// The token of progress of the sender's asynchronous part.
    pub token: u32,
    /// The digest of the shared configuration.
    pub digest: u32,
    /// The raft term that the sender knows.
    pub term: u64,
    /// The sender's last log index.
    pub log_index: u64,
}

/// The order of a heartbeat from its parts.
#[inline(always)]
pub const fn order(incarnation: u64, sequence: u64) -> u64 {
    incarnation << SEQUENCE_BITS | sequence & ((1 << SEQUENCE_BITS) - 1)
}

/// The incarnation in an order.
#[inline(always)]
pub const fn incarnation(order: u64) -> u64 {
    order >> SEQUENCE_BITS
}

impl Beat {
    /// The words, with a tag of 0: to be stamped and signed by [`seal`], or by the egress program.
    pub const fn words(&self) -> Words {
        [
            MAGIC as u64 | (self.cluster as u64) << 32,
            u64::from_le_bytes([self.kind, self.node, self.to, self.link, self.flags, self.leader, self.silent, 0]),
            self.order,
            self.stamp,
            self.gate_index,
            self.token as u64 | (self.digest as u64) << 32,
            self.term,
            self.log_index,
            0,
        ]
    }

    /// Reads words; magic and tag are not looked at.
    #[inline(always)]
    pub const fn read(words: &Words) -> Self {
        let [kind, node, to, link, flags, leader, silent, _] = words[1].to_le_bytes();
        Self {
            cluster: (words[0] >> 32) as u32,
            kind,
            node,
            to,
            link,
            flags,
            leader,
            silent,
            order: words[2],
            stamp: words[3],
            gate_index: words[4],
            token: words[5] as u32,
            digest: (words[5] >> 32) as u32,
            term: words[6],
            log_index: words[7],
        }
    }
}

/// The tag that the eight signed words should carry.
#[inline(always)]
pub fn tag(key: [u64; 2], words: &Words) -> u64 {
    let [w0, w1, w2, w3, w4, w5, w6, w7, _] = *words;
    siphash24(key, &[w0, w1, w2, w3, w4, w5, w6, w7])
}

/// Stamps a beat with its departure (ns, boot clock) and signs it: what the egress program does, for those who have none.
#[inline(always)]
pub fn seal(words: &mut Words, key: [u64; 2], stamp: u64) {
    words[3] = stamp;
    words[8] = tag(key, words);
}

/// Turns a beat into its acknowledgement by `me`, signed. The other fields echo the beat's.
#[inline(always)]
pub fn acknowledge(words: &mut Words, key: [u64; 2], me: u8) {
    let [_, node, _, link, flags, leader, silent, reserved] = words[1].to_le_bytes();
    words[1] = u64::from_le_bytes([KIND_ACK, me, node, link, flags, leader, silent, reserved]);
    words[8] = tag(key, words);
}

/// The bytes of a datagram from its words.
pub fn to_bytes(words: &Words) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// The words of a datagram; `None` when it has another length.
pub fn from_bytes(bytes: &[u8]) -> Option<Words> {
    if bytes.len() != BYTES {
        return None;
    }
    let mut words = [0; WORDS];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(chunk.try_into().ok()?);
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_fields_agree() {
        let beat = Beat {
            cluster: 0xdead_beef,
            kind: KIND_BEAT,
            node: 1,
            to: 2,
            link: 3,
            flags: FLAG_LEASE,
            leader: 4,
            silent: 0x81,
            order: order(7, 9),
            stamp: 10,
            gate_index: 11,
            token: 12,
            digest: 13,
            term: 14,
            log_index: 15,
        };
        let words = beat.words();
        assert_eq!(Beat::read(&words), beat);
        assert_eq!(from_bytes(&to_bytes(&words)), Some(words));
        assert_eq!(incarnation(beat.order), 7);
        assert_eq!(from_bytes(&[0; 71]), None);
    }
}
