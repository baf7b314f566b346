//! The gate: a VIP's packets pass only while this node has a role for its group and holds the lease, at every packet.
//!
//! At ingress a packet *to* a VIP is held, and a question for it; at egress a packet *from* a VIP, and an answer or
//! announcement of it. Packets of VIPs that this gate does not know pass untouched. What the owner need not think about
//! is decided here; all else is up to `policy`.

use aya_ebpf::{helpers::generated::bpf_ktime_get_boot_ns, macros::classifier, programs::TcContext};
use baton_ebpf::{
    layout::{GateGroup, ROLE_CLOSED, ROLE_OWNER, Tenure, TenureKey, gate_epoch, gate_peer, gate_role},
    steering::is_ours,
};

use super::{
    blank::blank,
    frame::{Frame, TCP, mark},
    maps::{CONTROL, GATE, TENURES},
    policy::{self, blur},
    vip::{Found, NO_VIP, NOTHING, find, look, quick},
};

/// Which way, and on what kind of device.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    FrontIngress,
    FrontEgress,
    OtherEgress,
}

#[inline(always)]
fn gate(frame: &TcContext, side: Side) -> i32 {
    let ingress = side == Side::FrontIngress;
    let mut found = NOTHING;
    match quick(frame, ingress, &mut found) {
        look::FOREIGN => return frame.pass(),
        look::FOUND => {}
        _ => found = find(frame, ingress),
    }
    if found.vip == NO_VIP {
        return frame.pass();
    }
    // A VIP whose group has no row is nobody's: it is held, and there is no counter for it.
    let (Some(group), Some(control)) = (GATE.get(found.slot()), CONTROL.get(0)) else {
        return frame.drop();
    };
    let word = group.word.load();
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if gate_role(word) == ROLE_CLOSED || now >= control.lease_end.load() {
        return held(frame, group, side, found.neighbour);
    }
    let owner = gate_role(word) == ROLE_OWNER;
    if !ingress {
        return leave(frame, group, side, &found, word, now);
    }
    if found.neighbour {
        // Questions for the VIP are the owner's alone.
        return if owner { frame.pass() } else { held(frame, group, side, true) };
    }
    if owner && gate_peer(word) == 0 && found.counts == 0 && !is_ours(mark(frame)) {
        return frame.pass();
    }
    policy::arrive(frame, &found.blurred(blur(now)), word, now)
}

/// What leaves while there is a role. Only the owner answers for the VIP and opens connections from it: the next one lets
/// its answers to what was steered to it out, the old one those to its remaining flows.
#[inline(always)]
fn leave(frame: &TcContext, group: &GateGroup, side: Side, found: &Found, word: u64, now: u64) -> i32 {
    if gate_role(word) == ROLE_OWNER {
        if found.neighbour && found.counts != 0 {
            let key = TenureKey { slot: u64::from(found.slot()), epoch: gate_epoch(word) };
            record(&key, true, now);
        }
        return frame.pass();
    }
    if found.neighbour || (found.counts != 0 && found.protocol == TCP) {
        return held(frame, group, side, found.neighbour);
    }
    frame.pass()
}

/// Drops and counts.
#[inline(always)]
fn held(frame: &TcContext, group: &GateGroup, side: Side, neighbour: bool) -> i32 {
    match side {
        Side::FrontIngress => group.dropped_ingress.add(1),
        Side::FrontEgress => group.dropped_egress.add(1),
        Side::OtherEgress => group.dropped_other.add(1),
    }
    if neighbour {
        group.dropped_neighbour.add(1);
    }
    frame.drop()
}

/// Notes what passed. Two CPUs may overwrite each other by the time between their clocks' readings: microseconds.
#[inline(always)]
pub fn record(key: &TenureKey, answer: bool, now: u64) {
    let known = TENURES.get_ptr_mut(key).or_else(|| {
        const BPF_NOEXIST: u64 = 1;
        // A failure means that another CPU was first, or that the map is full of younger ones.
        // SAFETY: plain words.
        let tenure: Tenure = unsafe { blank() };
        match TENURES.insert(key, tenure, BPF_NOEXIST) {
            Ok(()) | Err(_) => TENURES.get_ptr_mut(key),
        }
    });
    let Some(tenure) = known else {
        return;
    };
    // SAFETY: a row of the map, which outlives the program's run; racing writers are described above.
    unsafe {
        if answer {
            if (*tenure).first_answer == 0 {
                (*tenure).first_answer = now;
            }
            (*tenure).last_answer = now;
        } else {
            if (*tenure).first_flow == 0 {
                (*tenure).first_flow = now;
            }
            (*tenure).last_flow = now;
        }
    }
}

/// tc ingress of a front link.
#[classifier]
pub fn gate_ingress(ctx: TcContext) -> i32 {
    gate(&ctx, Side::FrontIngress)
}

/// tc egress of a front link.
#[classifier]
pub fn gate_egress(ctx: TcContext) -> i32 {
    gate(&ctx, Side::FrontEgress)
}

/// tc egress of any other device: the same rule, counted apart.
#[classifier]
pub fn gate_other(ctx: TcContext) -> i32 {
    gate(&ctx, Side::OtherEgress)
}
