//! What is done with an arriving heartbeat: by the ingress programs, and by the agent where there is no BPF.

use crate::{
    index::masked,
    layout::{Control, Counters, PEERS, Peer},
    lease,
    wire::{Beat, KIND_ACK, KIND_BEAT, LINKS_MAX, MAGIC, VOTERS_MAX, Words, acknowledge, incarnation, tag},
};

/// What becomes of the datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It belongs to somebody else on this port: let it pass.
    Pass,
    /// It has been dealt with.
    Consumed,
    /// The words are now an acknowledgement, signed: send them back the way they came.
    Answer,
}

/// How far behind a beat may be and still count as reordered rather than replayed.
const REORDER_WINDOW: u64 = 64;
/// All bits that the number of a link, or of a row of peers, can have.
const LINK_MASK: usize = LINKS_MAX.next_power_of_two() - 1;
const PEER_MASK: usize = PEERS.next_power_of_two() - 1;

/// Checks one heartbeat and records it. `now` is this machine's boot clock in ns, read after the arrival; `arrival`
/// is the link it came on; `source` the MAC address it came from ([`crate::steering::mac_number`]; 0: not known); `peer` gives
/// the row of a voter.
#[inline(always)]
pub fn receive<'a>(
    control: &Control,
    counters: &Counters,
    arrival: usize,
    source: u64,
    peer: impl FnOnce(usize) -> Option<&'a Peer>,
    words: &mut Words,
    now: u64,
) -> Verdict {
    if words[0] as u32 != MAGIC {
        counters.malformed.add(1);
        return Verdict::Consumed;
    }
    let beat = Beat::read(words);
    if u64::from(beat.cluster) != control.cluster.load() {
        counters.other_cluster.add(1);
        return Verdict::Pass;
    }
    let link = usize::from(beat.link);
    let node = usize::from(beat.node);
    if link >= LINKS_MAX || node == 0 || node > VOTERS_MAX {
        counters.malformed.add(1);
        return Verdict::Consumed;
    }
    if u64::from(beat.to) != control.me.load() || control.others.load() >> node & 1 == 0 {
        counters.stray.add(1);
        return Verdict::Consumed;
    }
    let key = [control.key[0].load(), control.key[1].load()];
    if tag(key, words) != words[8] {
        counters.forged.add(1);
        return Verdict::Consumed;
    }
    if link != arrival {
        counters.miswired.add(1);
    }
    let Some(peer) = peer(node) else {
        counters.malformed.add(1);
        return Verdict::Consumed;
    };
    match beat.kind {
        KIND_BEAT => {
            if !take_beat(counters, peer, &beat, link, source, now) || !may_answer(counters, peer, &beat, now) {
                return Verdict::Consumed;
            }
            counters.answered.add(1);
            if let Some(row) = peer.links.get(masked(link, LINK_MASK)) {
                row.answered.add(1);
            }
            acknowledge(words, key, beat.to);
            Verdict::Answer
        }
        KIND_ACK => {
            take_ack(control, counters, peer, &beat, node, link, now);
            Verdict::Consumed
        }
        _ => {
            counters.malformed.add(1);
            Verdict::Consumed
        }
    }
}

/// Takes a beat unless it, or a later one, was taken on its link. False: not taken, and counted.
#[inline(always)]
fn take_beat(counters: &Counters, peer: &Peer, beat: &Beat, link: usize, source: u64, now: u64) -> bool {
    let Some(row) = peer.links.get(masked(link, LINK_MASK)) else {
        return false;
    };
    let life = incarnation(beat.order);
    let known = peer.incarnation.load();
    if life < known || life == 0 {
        row.replayed.add(1);
        return false;
    }
    let last = row.order.load();
    if beat.order <= last {
        if last - beat.order < REORDER_WINDOW && last != beat.order {
            row.reordered.add(1);
        } else {
            row.replayed.add(1);
        }
        return false;
    }
    // The compare-and-exchange is the replay check: of two copies on two CPUs one loses, and is not answered.
    if !row.order.compare_exchange(last, beat.order) {
        counters.busy.add(1);
        return false;
    }
    let reborn = life > known && peer.incarnation.raise(life);
    if incarnation(last) == life {
        let jumped = beat.order - last - 1;
        if jumped != 0 {
            row.lost.add(jumped);
        }
    }
    let before = row.last_seen.load();
    if before != 0 && now > before {
        row.gap.record(now - before);
        row.gap_sum.add(now - before);
    }
    row.last_seen.store(now);
    row.received.add(1);
    if source != 0 && row.mac.load() != source {
        row.mac.store(source);
    }
    peer.last_seen.raise(now);
    // Links differ in delay: only the newest departure describes its sender. A new incarnation may have a new clock.
    if reborn || beat.stamp >= peer.stamp.load() {
        note(peer, beat, now, reborn);
    }
    true
}

/// Records what the newest beat says of its sender.
#[inline(always)]
fn note(peer: &Peer, beat: &Beat, now: u64, reborn: bool) {
    peer.stamp.store(beat.stamp);
    peer.flags.store(u64::from(beat.flags));
    peer.gate_index.store(beat.gate_index);
    peer.log_index.store(beat.log_index);
    if reborn || u64::from(beat.token) != peer.token.load() {
        peer.token.store(u64::from(beat.token));
        peer.token_since.store(now);
    }
    peer.leader.store(u64::from(beat.leader));
    peer.term.store(beat.term);
    peer.digest.store(u64::from(beat.digest));
    peer.silent.store(u64::from(beat.silent));
}

/// Rules 1 and 3: whether the beat is acknowledged. The floor is read on both sides of a full barrier that writes R;
/// the agent sets the floor, fences and reads R: one of the two always sees the other.
#[inline(always)]
fn may_answer(counters: &Counters, peer: &Peer, beat: &Beat, now: u64) -> bool {
    if beat.gate_index < peer.floor.load() {
        counters.refused.add(1);
        return false;
    }
    // R never falls: a CPU that stalled since it read the clock must not undo what another wrote since.
    if !peer.acknowledged.raise_fenced(now) {
        counters.busy.add(1);
        return false;
    }
    if beat.gate_index < peer.floor.load() {
        counters.refused.add(1);
        return false;
    }
    true
}

/// Takes an acknowledgement of one of this voter's beats, and renews the lease.
#[inline(always)]
fn take_ack(control: &Control, counters: &Counters, peer: &Peer, ack: &Beat, node: usize, link: usize, now: u64) {
    let (Some(row), Some(acked)) =
        (peer.links.get(masked(link, LINK_MASK)), control.acked.get(masked(node, PEER_MASK)))
    else {
        return;
    };
    let life = control.incarnation.load();
    if life == 0 || incarnation(ack.order) != life || ack.stamp > now || ack.stamp < control.started.load() {
        counters.outdated.add(1);
        return;
    }
    peer.host_seen.raise(now);
    if row.acked.raise(ack.order) {
        row.ack_received.add(1);
        row.rtt.record(now - ack.stamp);
        row.rtt_sum.add(now - ack.stamp);
    } else {
        row.ack_stale.add(1);
    }
    if acked.raise(ack.stamp) {
        lease::renew(control);
    }
}
