//! The way between the two nodes of a move: frames go out with the peer's MAC address, and are handed in at the VIP's front.
//!
//! A frame that must not be sent back has a bit of its source MAC address flipped ([`MAC_FINAL`]). Between this program and the
//! gate the packet's mark tells where it came from.

use aya_ebpf::{macros::classifier, programs::TcContext};
use baton_ebpf::{
    layout::{Control, Peer, ROLE_CLOSED, gate_peer, gate_role},
    steering::{MAC_FINAL, MARK_FINAL, MARK_TAKEN, is_ours, mac_bytes, mac_number, vip_front},
};

use super::{
    frame::{Frame, copy_by, hand_in, is_plain, mark, send_by},
    maps::{GATE, PEER, STEER},
    vip::{NO_VIP, NOTHING, find, look, quick},
};

/// Where a packet came from. Numbers rather than an enumeration, so that they can be blurred.
pub mod came {
    /// From a client.
    pub const FRONT: u32 = 0;
    /// From the peer, over the backplane.
    pub const PEER: u32 = 1;
    /// The same, and it must not be sent back.
    pub const FINAL: u32 = 2;
}

/// The two MAC addresses at a frame's begin.
type Macs = [[u8; 6]; 2];

/// Where a packet at a front came from. A device may be front and backplane at once: then its source tells.
#[inline(always)]
pub fn origin(frame: &TcContext, control: &Control, peer: u8, mark: u32) -> u32 {
    if mark == MARK_TAKEN {
        return came::PEER;
    }
    if mark == MARK_FINAL {
        return came::FINAL;
    }
    if !is_link(control, frame.ifindex()) {
        return came::FRONT;
    }
    sender(frame, peer)
}

/// Whether a device is one of the backplane's.
#[inline(always)]
fn is_link(control: &Control, ifindex: u32) -> bool {
    let wanted = u64::from(ifindex);
    let mut found = false;
    for known in &control.link_ifindex {
        found |= known.load() == wanted;
    }
    found
}

/// By the source MAC address: the peer, as final or not, or [`came::FRONT`] for anybody else.
#[inline(always)]
fn sender(frame: &TcContext, peer: u8) -> u32 {
    let (Some(macs), Some(row)) = (frame.get::<Macs>(0), PEER.get(u32::from(peer))) else {
        return came::FRONT;
    };
    let source = mac_number(macs[1]);
    let mut origin = came::FRONT;
    for link in &row.links {
        let known = link.mac.load();
        if known == 0 {
            continue;
        }
        if source == known {
            origin = came::PEER;
        } else if source == known ^ MAC_FINAL {
            origin = came::FINAL;
        }
    }
    origin
}

/// Whether the peer's host was heard of within the time that a lease takes to run out (docs/safety.md, rule 2).
#[inline(always)]
fn is_alive(control: &Control, peer: &Peer, now: u64) -> bool {
    let lease = control.lease_ns.load();
    let hold = lease + lease / 4 + 500_000;
    let (beat, host) = (peer.last_seen.load(), peer.host_seen.load());
    let last = if beat > host { beat } else { host };
    now < last + hold
}

/// Turns the frame towards the peer. Gives the device to send it by, 0 when there is no way or the peer's host is silent.
#[inline(always)]
fn turn(frame: &TcContext, control: &Control, peer: u8, back: bool, now: u64) -> u32 {
    let (Some(steer), Some(row)) = (STEER.get(0), PEER.get(u32::from(peer))) else {
        return 0;
    };
    let Some(path) = steer.paths.get(usize::from(peer)) else {
        return 0;
    };
    let Some([ifindex, theirs, ours]) = path.load() else {
        return 0;
    };
    if ifindex == 0 || !is_alive(control, row, now) {
        return 0;
    }
    let ours = if back { ours ^ MAC_FINAL } else { ours };
    let macs: Macs = [mac_bytes(theirs), mac_bytes(ours)];
    if !frame.put(0, &macs) {
        return 0;
    }
    ifindex as u32
}

/// Sends the packet to the peer; `back`: as final. `None`: there is no way, and the packet is as it was.
#[inline(always)]
pub fn send(frame: &TcContext, control: &Control, peer: u8, back: bool, now: u64) -> Option<i32> {
    match turn(frame, control, peer, back, now) {
        0 => None,
        ifindex => Some(send_by(ifindex)),
    }
}

/// Sends a copy of the packet to the peer; the packet stays as it was. False: there is no way.
#[inline(always)]
pub fn copy(frame: &TcContext, control: &Control, peer: u8, now: u64) -> bool {
    let Some(macs) = frame.get::<Macs>(0) else {
        return false;
    };
    let ifindex = turn(frame, control, peer, false, now);
    if ifindex == 0 {
        return false;
    }
    let sent = copy_by(frame, ifindex);
    frame.put(0, &macs) && sent
}

#[inline(always)]
fn ingress(frame: &TcContext) -> i32 {
    let mut found = NOTHING;
    match quick(frame, true, &mut found) {
        look::FOREIGN => return frame.pass(),
        look::FOUND => {}
        _ => found = find(frame, true),
    }
    // What this program handed in comes by here again where a device is front and backplane at once.
    if is_ours(mark(frame)) {
        return frame.pass();
    }
    // Tagged frames are of devices above this one, and what is sent to others is none of ours.
    if found.vip == NO_VIP || found.neighbour || found.network != 14 || !is_plain(frame) {
        return frame.pass();
    }
    let (Some(group), Some(steer)) = (GATE.get(found.slot()), STEER.get(0)) else {
        return frame.drop();
    };
    let (mut ifindex, mut mac) = (0, 0);
    if let Some(front) = steer.fronts.get(vip_front(found.vip) as usize)
        && let Some(front) = front.load()
    {
        [ifindex, mac] = front;
    }
    if ifindex == u64::from(frame.ifindex()) {
        // The gate is on this very device and tells by the source.
        return frame.pass();
    }
    let word = group.word.load();
    let peer = gate_peer(word);
    let origin = if gate_role(word) == ROLE_CLOSED || peer == 0 { came::FRONT } else { sender(frame, peer) };
    if origin == came::FRONT || ifindex == 0 || mac == 0 || !frame.put(0, &mac_bytes(mac)) {
        group.dropped_backplane.add(1);
        return frame.drop();
    }
    frame.set_mark(if origin == came::FINAL { MARK_FINAL } else { MARK_TAKEN });
    hand_in(ifindex as u32)
}

/// tc ingress of a backplane link: hands what the peer of a move steers here in at the VIP's front.
#[classifier]
pub fn steer_ingress(ctx: TcContext) -> i32 {
    ingress(&ctx)
}
