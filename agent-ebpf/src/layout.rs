//! The maps, row by row. Every field is a [`Word`]: both sides read and write them without a system call.
//!
//! A change of any structure here must raise [`LAYOUT_VERSION`]: pinned maps of another version are never adopted.

use crate::{
    histogram::Histogram,
    wire::{LINKS_MAX, VOTERS_MAX},
    word::Word,
};

/// The version of these layouts and of the map names; part of the folder in which they are pinned.
pub const LAYOUT_VERSION: u32 = 2;
/// Rows of the peer table: row = voter number, row 0 is unused.
pub const PEERS: usize = VOTERS_MAX + 1;
/// Rows of the gate table: one a group.
pub const SLOTS: usize = 256;
/// The most VIPs that the gate can hold.
pub const VIPS_MAX: usize = 4096;
/// Words of the filter before the VIP map.
pub const VIP_FILTER_WORDS: usize = 64;
/// The most tenures that are remembered.
pub const TENURES_MAX: usize = 4096;
/// The most processes whose end is told early.
pub const WATCHED_MAX: usize = 1024;
/// The floor that refuses every gate index.
pub const FLOOR_INFINITE: u64 = u64::MAX;
/// Role in a gate word: nothing passes.
pub const ROLE_CLOSED: u64 = 0;
/// The owner. With a peer: packets of flows that it does not know are steered there.
pub const ROLE_OWNER: u64 = 1;
/// The old owner after a move: it serves the flows it has, and steers new ones to the peer.
pub const ROLE_DRAIN: u64 = 2;
/// The next owner before a move is done: it takes what the peer, the owner, steers here.
pub const ROLE_RECEIVE: u64 = 3;

/// What the programs must know, and the lease. One row.
#[repr(C)]
#[derive(Debug)]
pub struct Control {
    /// The cluster's number (u32).
    pub cluster: Word,
    /// This voter's number.
    pub me: Word,
    /// The UDP port of the heartbeats, host byte order.
    pub port: Word,
    /// The other voters: bit = voter number.
    pub others: Word,
    /// How many of them, with this voter, make a majority.
    pub others_needed: Word,
    /// The lease, ns.
    pub lease_ns: Word,
    /// The signing key.
    pub key: [Word; 2],
    /// This agent's incarnation; 0 while it starts.
    pub incarnation: Word,
    /// When the incarnation was published (ns, boot clock): earlier stamps earn it nothing.
    pub started: Word,
    /// The newest log entry whose effect is in the gate.
    pub gate_index: Word,
    /// The interface of each link, 0 where there is none.
    pub link_ifindex: [Word; LINKS_MAX],
    /// Keeps the lease on a cache line of its own.
    pub reserved: Word,
    /// When this voter's lease ends (ns, boot clock); 0 when it never had one.
    pub lease_end: Word,
    /// Keeps the lease on a cache line of its own.
    pub reserved_lease: [Word; 7],
    /// The newest of this voter's stamps that each voter acknowledged.
    pub acked: [Word; PEERS],
    /// Fills the row.
    pub reserved_acked: [Word; 7],
    /// One bit for each VIP by [`vip_bit`]: where it is not set, the VIP map need not be asked.
    pub vip_filter: [Word; VIP_FILTER_WORDS],
}

/// One peer on one link.
#[repr(C)]
#[derive(Debug)]
pub struct PeerLink {
    /// The newest order taken.
    pub order: Word,
    /// When it arrived (ns, boot clock).
    pub last_seen: Word,
    /// Beats taken.
    pub received: Word,
    /// Sequence numbers that were jumped over; those that come late after all are in `reordered` as well.
    pub lost: Word,
    /// Beats that came after a later one.
    pub reordered: Word,
    /// Beats that came twice, or from a past incarnation.
    pub replayed: Word,
    /// The newest order that the peer acknowledged on this link.
    pub acked: Word,
    /// Acknowledgements taken.
    pub ack_received: Word,
    /// Acknowledgements that came after a later one or twice.
    pub ack_stale: Word,
    /// The sum of the round trips, ns.
    pub rtt_sum: Word,
    /// The sum of the inter-arrival times, ns.
    pub gap_sum: Word,
    /// Acknowledgements sent for the peer's beats.
    pub answered: Word,
    /// The MAC address that the newest beat came from, by [`crate::steering::mac_number`]; 0 where none was seen.
    pub mac: Word,
    /// Fills the cache lines.
    pub reserved: [Word; 3],
    /// Round trips, ns.
    pub rtt: Histogram,
    /// Inter-arrival times, ns.
    pub gap: Histogram,
}

/// One peer. The row is its voter number.
#[repr(C)]
#[derive(Debug)]
pub struct Peer {
    /// The lowest gate index that is acknowledged; [`FLOOR_INFINITE`] acknowledges nothing.
    pub floor: Word,
    /// R: when this machine last acknowledged a beat of the peer (ns, boot clock).
    pub acknowledged: Word,
    /// The newest incarnation seen.
    pub incarnation: Word,
    /// The newest departure stamp of that incarnation, on the peer's clock.
    pub stamp: Word,
    /// The flags of the newest beat.
    pub flags: Word,
    /// Its gate index.
    pub gate_index: Word,
    /// Its last log index.
    pub log_index: Word,
    /// Its token of progress.
    pub token: Word,
    /// Since when the token has stood still (ns, boot clock).
    pub token_since: Word,
    /// The leader it knows; 0 is none.
    pub leader: Word,
    /// The term it knows.
    pub term: Word,
    /// Its configuration's digest.
    pub digest: Word,
    /// The voters it finds silent: bit = voter number - 1.
    pub silent: Word,
    /// When a valid beat last arrived on any link (ns, boot clock).
    pub last_seen: Word,
    /// When a valid acknowledgement last arrived on any link: the host lives, whatever its agent does.
    pub host_seen: Word,
    /// Fills the cache lines.
    pub reserved: Word,
    /// Its links.
    pub links: [PeerLink; LINKS_MAX],
}

/// What was counted on one backplane link. The row is the link.
#[repr(C)]
#[derive(Debug)]
pub struct Counters {
    /// Tags that did not fit.
    pub forged: Word,
    /// Datagrams on the heartbeat port that are no heartbeat.
    pub malformed: Word,
    /// Heartbeats of another cluster (passed on).
    pub other_cluster: Word,
    /// Heartbeats for somebody else, or from a stranger.
    pub stray: Word,
    /// Acknowledgements of another incarnation, or with a stamp out of bounds.
    pub outdated: Word,
    /// Beats below the floor, not acknowledged.
    pub refused: Word,
    /// Beats not acknowledged because an atomic loop was spent.
    pub busy: Word,
    /// Acknowledgements sent.
    pub answered: Word,
    /// Beats stamped and signed at egress.
    pub signed: Word,
    /// Heartbeats that came on another link than the one they name.
    pub miswired: Word,
    /// Fills the cache line.
    pub reserved: [Word; 6],
}

/// A group in the gate. The row is its slot.
#[repr(C)]
#[derive(Debug)]
pub struct GateGroup {
    /// epoch << 16 | peer << 8 | role, read at once.
    pub word: Word,
    /// Since when this node has had a role for the group without a pause (ns, boot clock): records of flows from before say
    /// nothing of where they are now.
    pub since: Word,
    /// Packets to a VIP of the group dropped at ingress.
    pub dropped_ingress: Word,
    /// Packets from a VIP of the group dropped at egress.
    pub dropped_egress: Word,
    /// The same on devices other than the front.
    pub dropped_other: Word,
    /// ARP or ND packets among the dropped ones.
    pub dropped_neighbour: Word,
    /// Packets to a VIP of the group dropped as they came over the backplane.
    pub dropped_backplane: Word,
    /// Fills the cache line.
    pub reserved: Word,
    /// Packets sent to the peer.
    pub steered: Word,
    /// Packets of the peer's sent back to it, as final.
    pub bounced: Word,
    /// Packets that came over the backplane and were passed.
    pub taken: Word,
    /// Among the steered ones: those that opened a flow.
    pub new_steered: Word,
    /// Packets that were passed while draining.
    pub drained: Word,
    /// When the last of them came that has no TCP socket here (ns, boot clock): other protocols, and flows that end in NAT.
    pub drained_at: Word,
    /// Packets that were to go to the peer, but there was no way, or the peer's host was silent.
    pub no_path: Word,
    /// Fills the cache line.
    pub reserved_steering: Word,
}

/// Which tenure: a group at an epoch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenureKey {
    /// The group's slot.
    pub slot: u64,
    /// The epoch.
    pub epoch: u64,
}

/// What the gate let through for a group at an epoch; instants on the boot clock, ns, 0 for never.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tenure {
    /// The first ARP or ND answer or announcement that left.
    pub first_answer: u64,
    /// The last one.
    pub last_answer: u64,
    /// The first packet that opened a flow, or belonged to a protocol without connections.
    pub first_flow: u64,
    /// The last one.
    pub last_flow: u64,
}

/// The word and the bit in [`Control::vip_filter`] of an address: IPv4 as ::ffff:a.b.c.d, words as they stand in memory.
#[inline(always)]
pub const fn vip_bit(address: &[u32; 4]) -> (usize, u64) {
    let folded = (address[0] ^ address[2]) as u64 | ((address[1] ^ address[3]) as u64) << 32;
    // Fibonacci hashing: the upper bits of a product depend on all bits of both factors.
    let hash = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52;
    ((hash >> 6) as usize & (VIP_FILTER_WORDS - 1), 1 << (hash & 63))
}

/// A gate word from its parts; `peer` is a voter number, 0 for none.
#[inline(always)]
pub const fn gate_word(epoch: u64, role: u64, peer: u8) -> u64 {
    epoch << 16 | (peer as u64) << 8 | role & 0xff
}

/// The epoch in a gate word.
#[inline(always)]
pub const fn gate_epoch(word: u64) -> u64 {
    word >> 16
}

/// The role in a gate word.
#[inline(always)]
pub const fn gate_role(word: u64) -> u64 {
    word & 0xff
}

/// The peer in a gate word; 0 for none.
#[inline(always)]
pub const fn gate_peer(word: u64) -> u8 {
    (word >> 8) as u8
}

// The rows must be whole words for the maps' stride, and the lease alone on its cache line.
const _: () = assert!(size_of::<Control>() == (40 + VIP_FILTER_WORDS) * 8);
const _: () = assert!(core::mem::offset_of!(Control, lease_end) == 128);
const _: () = assert!(size_of::<PeerLink>() == (16 + 64) * 8);
const _: () = assert!(size_of::<Peer>() == (16 + 4 * 80) * 8);
const _: () = assert!(size_of::<Counters>() == 128);
const _: () = assert!(size_of::<GateGroup>() == 128);
