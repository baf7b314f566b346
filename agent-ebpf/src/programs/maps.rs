//! The maps. Array maps are mmapped by the agent; the loader pins all in the node's folder, but for those of `exit`.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, RingBuf},
};
use baton_ebpf::{
    layout::{Control, Counters, GateGroup, PEERS, Peer, SLOTS, TENURES_MAX, Tenure, TenureKey, VIPS_MAX, WATCHED_MAX},
    steering::{FLOWS_MAX, FRAGMENTS_MAX, FlowKey, FlowState, FragmentKey, Steer},
    wire::LINKS_MAX,
};

/// `BPF_F_MMAPABLE` of linux/bpf.h: user space reads and writes the rows without a system call.
const MMAPABLE: u32 = 1 << 10;

/// Configuration and lease.
#[map]
pub static CONTROL: Array<Control> = Array::with_max_entries(1, MMAPABLE);

/// The peers, by voter number.
#[map]
pub static PEER: Array<Peer> = Array::with_max_entries(PEERS as u32, MMAPABLE);

/// Counters, by link.
#[map]
pub static COUNTERS: Array<Counters> = Array::with_max_entries(LINKS_MAX as u32, MMAPABLE);

/// The gate's groups, by slot.
#[map]
pub static GATE: Array<GateGroup> = Array::with_max_entries(SLOTS as u32, MMAPABLE);

/// VIP (IPv4 as IPv4-mapped IPv6, network byte order) to slot and front, by `vip_value`.
#[map]
pub static VIPS: HashMap<[u32; 4], u32> = HashMap::with_max_entries(VIPS_MAX as u32, 0);

/// What the gate let through, by group and epoch.
#[map]
pub static TENURES: LruHashMap<TenureKey, Tenure> = LruHashMap::with_max_entries(TENURES_MAX as u32, 0);

/// The ways to the peers, and the fronts.
#[map]
pub static STEER: Array<Steer> = Array::with_max_entries(1, MMAPABLE);

/// Whose flows are whose.
#[map]
pub static FLOWS: LruHashMap<FlowKey, FlowState> = LruHashMap::with_max_entries(FLOWS_MAX as u32, 0);

/// Whose fragments are whose.
#[map]
pub static FRAGMENTS: LruHashMap<FragmentKey, FlowState> = LruHashMap::with_max_entries(FRAGMENTS_MAX as u32, 0);

/// The processes whose end is told, by number.
#[map]
pub static WATCHED: HashMap<u32, u8> = HashMap::with_max_entries(WATCHED_MAX as u32, 0);

/// The numbers of those that end. The loader makes it a page at least.
#[map]
pub static EXITS: RingBuf = RingBuf::with_byte_size(4096, 0);
