//! Whether this machine has a TCP socket for a segment.

use aya_ebpf::{
    EbpfContext,
    bindings::{bpf_sock, bpf_sock_tuple},
    helpers::generated::{bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_check_syncookie},
    programs::TcContext,
};
use baton_ebpf::steering::FlowKey;

use super::{blank::blank, frame::Frame, vip::Found};

/// There is none, or one that listens and never heard of the flow.
pub const NONE: u32 = 0;
/// There is one in TIME_WAIT: of this flow, or of an earlier one with the same addresses and ports, which a client may use again
/// at the other node. Only a record tells.
pub const ENDED: u32 = 1;
/// There is one of the flow, or a listening one whose SYN cookie the segment brings back. From here on the flow is known.
pub const FLOW: u32 = 2;
/// There is one that waits for the end of the handshake.
pub const HALF_OPEN: u32 = 3;

/// States of `enum` in linux/bpf.h, which are those of net/tcp_states.h.
const BPF_TCP_TIME_WAIT: u32 = 6;
const BPF_TCP_LISTEN: u32 = 10;
const BPF_TCP_NEW_SYN_RECV: u32 = 12;
/// `BPF_F_CURRENT_NETNS` of linux/bpf.h.
const CURRENT_NETNS: u64 = u64::MAX;

/// `bpf_sock_tuple` of IPv4.
#[repr(C)]
struct Tuple4 {
    source: u32,
    destination: u32,
    ports: [u16; 2],
}

/// `bpf_sock_tuple` of IPv6 is how a flow's key begins.
const TUPLE6: u32 = core::mem::offset_of!(FlowKey, protocol) as u32;
const _: () = assert!(TUPLE6 == 36);

/// Looks the flow's socket up. `segment`: the packet is one of the flow, which may bring a SYN cookie back.
#[inline(always)]
pub fn lookup(frame: &TcContext, found: &Found, key: &FlowKey, segment: bool) -> u32 {
    let socket = find(frame, found, key);
    if socket.is_null() {
        return NONE;
    }
    // SAFETY: the lookup gave a socket, which is held until its release below.
    let state = unsafe { (&raw const (*socket).state).read_volatile() };
    let outcome = match state {
        BPF_TCP_LISTEN if segment && cookie(frame, found, socket) => FLOW,
        BPF_TCP_LISTEN => NONE,
        BPF_TCP_NEW_SYN_RECV => HALF_OPEN,
        BPF_TCP_TIME_WAIT => ENDED,
        _ => FLOW,
    };
    // SAFETY: the socket is held, and not used any more.
    unsafe { bpf_sk_release(socket.cast()) };
    outcome
}

#[inline(always)]
fn find(frame: &TcContext, found: &Found, key: &FlowKey) -> *mut bpf_sock {
    if found.ipv6 != 0 {
        let tuple: *const FlowKey = key;
        // SAFETY: the helper reads the tuple alone.
        return unsafe {
            bpf_skc_lookup_tcp(frame.as_ptr(), tuple.cast::<bpf_sock_tuple>().cast_mut(), TUPLE6, CURRENT_NETNS, 0)
        };
    }
    let mut tuple = Tuple4 {
        source: key.source[3],
        destination: key.destination[3],
        ports: [key.source_port, key.destination_port],
    };
    let size = size_of::<Tuple4>() as u32;
    // SAFETY: the helper reads the tuple alone.
    unsafe { bpf_skc_lookup_tcp(frame.as_ptr(), (&raw mut tuple).cast(), size, CURRENT_NETNS, 0) }
}

/// Whether the segment brings back a SYN cookie of the listening socket: then this machine answered the SYN.
#[inline(always)]
fn cookie(frame: &TcContext, found: &Found, socket: *mut bpf_sock) -> bool {
    // SAFETY: plain words.
    let (mut tcp, mut ip): ([u32; 5], [u32; 10]) = unsafe { (blank(), blank()) };
    if !frame.fill(found.transport, &mut tcp) {
        return false;
    }
    let length = if found.ipv6 != 0 {
        if !frame.fill(found.network, &mut ip) {
            return false;
        }
        40
    } else {
        let Some(header) = frame.get::<[u32; 5]>(found.network) else {
            return false;
        };
        ip[..5].copy_from_slice(&header);
        20
    };
    // SAFETY: a socket that is held, and headers of the lengths given.
    let checked =
        unsafe { bpf_tcp_check_syncookie(socket.cast(), ip.as_mut_ptr().cast(), length, tcp.as_mut_ptr().cast(), 20) };
    checked == 0
}
