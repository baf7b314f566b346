//! Reading and writing packets the same way under tc and XDP, by helpers: they also reach past the linear part.

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_F_INGRESS, BPF_F_MARK_MANGLED_0, xdp_action},
    helpers::generated::{
        bpf_clone_redirect, bpf_csum_diff, bpf_l4_csum_replace, bpf_redirect, bpf_skb_load_bytes, bpf_skb_store_bytes,
        bpf_xdp_load_bytes, bpf_xdp_store_bytes,
    },
    programs::{TcContext, XdpContext},
};

/// `TC_ACT_UNSPEC`, which is also `TCX_NEXT`: the next program decides.
pub const TC_NEXT: i32 = -1;
/// `TC_ACT_SHOT`, which is also `TCX_DROP`.
pub const TC_DROP: i32 = 2;

/// EtherTypes (IEEE 802 numbers), as the two bytes stand in the frame.
pub const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
pub const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
pub const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
pub const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0x00];
pub const ETHERTYPE_QINQ: [u8; 2] = [0x88, 0xa8];

/// IP protocol numbers (IANA).
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;

/// In-line VLAN tags that are looked past.
const VLAN_TAGS_MAX: usize = 2;

/// A packet under a program.
pub trait Frame {
    /// What the program returns.
    type Action;
    /// Reads bytes at an offset; `None` when the packet is shorter. `T` must be plain bytes or integers.
    fn get<T: Copy>(&self, offset: u32) -> Option<T>;
    /// The first bytes of the packet in place, where they are in its linear part: the fast way to see that it is foreign.
    fn linear<const N: usize>(&self) -> Option<&[u8; N]>;
    /// Reads bytes at an offset into `value`, which saves a copy on the small stack; false when the packet is shorter.
    fn fill<T: Copy>(&self, offset: u32, value: &mut T) -> bool;
    /// Writes bytes at an offset.
    fn put<T: Copy>(&self, offset: u32, value: &T) -> bool;
    /// The interface it came by, or leaves by.
    fn ifindex(&self) -> u32;
    /// Fixes the transport checksum at `offset`, now `check` (not 0), by a difference of [`difference`].
    fn fix_checksum(&self, offset: u32, check: u16, difference: i64) -> bool;
    /// Let others decide.
    fn pass(&self) -> Self::Action;
    /// Drop.
    fn drop(&self) -> Self::Action;
    /// Send back by the interface it came by.
    fn bounce(&self) -> Self::Action;
}

impl Frame for TcContext {
    type Action = i32;

    #[inline(always)]
    fn get<T: Copy>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes the whole value or fails.
        unsafe {
            let done = bpf_skb_load_bytes(self.as_ptr(), offset, value.as_mut_ptr().cast(), size_of::<T>() as u32);
            if done == 0 { Some(value.assume_init()) } else { None }
        }
    }

    #[inline(always)]
    fn linear<const N: usize>(&self) -> Option<&[u8; N]> {
        let (start, end) = (self.data(), self.data_end());
        if start + N > end {
            return None;
        }
        // SAFETY: the bounds were checked just now, and nothing moves the packet while the reference lives.
        Some(unsafe { &*(start as *const [u8; N]) })
    }

    #[inline(always)]
    fn fill<T: Copy>(&self, offset: u32, value: &mut T) -> bool {
        let to = (value as *mut T).cast();
        // SAFETY: the helper writes the whole value or fails.
        unsafe { bpf_skb_load_bytes(self.as_ptr(), offset, to, size_of::<T>() as u32) == 0 }
    }

    #[inline(always)]
    fn put<T: Copy>(&self, offset: u32, value: &T) -> bool {
        // SAFETY: the helper reads the value alone and checks the packet's bounds.
        unsafe { bpf_skb_store_bytes(self.skb.skb, offset, (value as *const T).cast(), size_of::<T>() as u32, 0) == 0 }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.skb.skb).ifindex }
    }

    #[inline(always)]
    fn fix_checksum(&self, offset: u32, _check: u16, difference: i64) -> bool {
        // The helper leaves checksums alone that the device is to fill in.
        // SAFETY: plain arguments.
        unsafe { bpf_l4_csum_replace(self.skb.skb, offset, 0, difference as u64, u64::from(BPF_F_MARK_MANGLED_0)) == 0 }
    }

    #[inline(always)]
    fn pass(&self) -> i32 {
        TC_NEXT
    }

    #[inline(always)]
    fn drop(&self) -> i32 {
        TC_DROP
    }

    #[inline(always)]
    fn bounce(&self) -> i32 {
        // SAFETY: plain arguments; flags 0 is the egress of the interface.
        unsafe { bpf_redirect(self.ifindex(), 0) as i32 }
    }
}

impl Frame for XdpContext {
    type Action = u32;

    #[inline(always)]
    fn get<T: Copy>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes the whole value or fails.
        unsafe {
            let done = bpf_xdp_load_bytes(self.ctx, offset, value.as_mut_ptr().cast(), size_of::<T>() as u32);
            if done == 0 { Some(value.assume_init()) } else { None }
        }
    }

    #[inline(always)]
    fn linear<const N: usize>(&self) -> Option<&[u8; N]> {
        let (start, end) = (self.data(), self.data_end());
        if start + N > end {
            return None;
        }
        // SAFETY: the bounds were checked just now, and nothing moves the packet while the reference lives.
        Some(unsafe { &*(start as *const [u8; N]) })
    }

    #[inline(always)]
    fn fill<T: Copy>(&self, offset: u32, value: &mut T) -> bool {
        let to = (value as *mut T).cast();
        // SAFETY: the helper writes the whole value or fails.
        unsafe { bpf_xdp_load_bytes(self.ctx, offset, to, size_of::<T>() as u32) == 0 }
    }

    #[inline(always)]
    fn put<T: Copy>(&self, offset: u32, value: &T) -> bool {
        // SAFETY: the helper reads the value alone and checks the packet's bounds.
        unsafe {
            bpf_xdp_store_bytes(self.ctx, offset, (value as *const T).cast_mut().cast(), size_of::<T>() as u32) == 0
        }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn fix_checksum(&self, offset: u32, check: u16, difference: i64) -> bool {
        // RFC 1624: HC' = ~(~HC + difference), folded twice; 0 is written as its other form.
        let mut sum = u64::from(!check) + (difference as u64 & 0xffff_ffff);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        let folded = !(sum as u16);
        self.put(offset, &if folded == 0 { 0xffff } else { folded })
    }

    #[inline(always)]
    fn pass(&self) -> u32 {
        xdp_action::XDP_PASS
    }

    #[inline(always)]
    fn drop(&self) -> u32 {
        xdp_action::XDP_DROP
    }

    #[inline(always)]
    fn bounce(&self) -> u32 {
        xdp_action::XDP_TX
    }
}

/// The packet's mark.
#[inline(always)]
pub fn mark(frame: &TcContext) -> u32 {
    // SAFETY: the kernel passes a valid context.
    unsafe { (*frame.skb.skb).mark }
}

/// Whether the packet is sent to this machine alone, without a VLAN tag that the device took off.
#[inline(always)]
pub fn is_plain(frame: &TcContext) -> bool {
    /// `PACKET_HOST` of linux/if_packet.h.
    const PACKET_HOST: u32 = 0;
    // SAFETY: the kernel passes a valid context.
    unsafe { (*frame.skb.skb).pkt_type == PACKET_HOST && (*frame.skb.skb).vlan_present == 0 }
}

/// Whether a leaving packet came by a device: this machine did not make it.
#[inline(always)]
pub fn is_forwarded(frame: &TcContext) -> bool {
    // SAFETY: the kernel passes a valid context.
    unsafe { (*frame.skb.skb).ingress_ifindex != 0 }
}

/// Hands the packet out by a device.
#[inline(always)]
pub fn send_by(ifindex: u32) -> i32 {
    // SAFETY: plain arguments; flags 0 is the egress of the interface.
    unsafe { bpf_redirect(ifindex, 0) as i32 }
}

/// Hands the packet in at a device, as if it had come there.
#[inline(always)]
pub fn hand_in(ifindex: u32) -> i32 {
    // SAFETY: plain arguments.
    unsafe { bpf_redirect(ifindex, u64::from(BPF_F_INGRESS)) as i32 }
}

/// Sends a copy of the packet out by a device.
#[inline(always)]
pub fn copy_by(frame: &TcContext, ifindex: u32) -> bool {
    // SAFETY: a valid context and plain arguments.
    unsafe { bpf_clone_redirect(frame.skb.skb, ifindex, 0) == 0 }
}

/// The one's-complement difference between two runs of 64-bit words, for [`Frame::fix_checksum`].
#[inline(always)]
pub fn difference(from: &mut [u64; 2], to: &mut [u64; 2]) -> i64 {
    // SAFETY: both runs are valid for their length.
    unsafe { bpf_csum_diff(from.as_mut_ptr().cast(), 16, to.as_mut_ptr().cast(), 16, 0) }
}

/// The first bytes of every frame that may concern us: Ethernet, and as much as the smallest IPv4 header has.
#[derive(Clone, Copy)]
#[repr(C, align(2))]
pub struct Head {
    pub macs: [[u8; 6]; 2],
    pub ethertype: [u8; 2],
    pub ip: [u8; 20],
}

/// Where the network header is, and the frame's head with any VLAN tags taken out.
#[inline(always)]
pub fn head<F: Frame>(frame: &F) -> Option<(u32, Head)> {
    let mut head: Head = frame.get(0)?;
    let mut network = 14;
    for _ in 0..VLAN_TAGS_MAX {
        if head.ethertype != ETHERTYPE_VLAN && head.ethertype != ETHERTYPE_QINQ {
            break;
        }
        network += 4;
        head.ethertype = frame.get(network - 2)?;
        head.ip = frame.get(network)?;
    }
    Some((network, head))
}
