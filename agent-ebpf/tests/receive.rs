//! The shared receive logic against plain reference models, and the race of floor and R, on the host.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering, fence},
    thread,
    time::{Duration, Instant},
};

use baton_ebpf::{
    layout::{Control, Counters, FLOOR_INFINITE, PEERS, Peer},
    lease::majority_stamp,
    receive::{Verdict, receive},
    wire::{self, Beat, KIND_ACK, KIND_BEAT, VOTERS_MAX, Words},
    word::Word,
};
use proptest::prelude::*;

const KEY: [u64; 2] = [1, 2];
const CLUSTER: u32 = 7;
const LEASE: u64 = 1_000;
/// The MAC address that the heartbeats come from.
const SOURCE: u64 = 0x0605_0403_0202;

/// The tables of voter 1.
struct Machine {
    control: Box<Control>,
    peers: Vec<Peer>,
    counters: Box<Counters>,
}

/// A structure of words, all zero.
fn zeroed<T>() -> T {
    // SAFETY: used with `repr(C)` structures of atomics alone, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

impl Machine {
    fn new(voters: u64) -> Self {
        let machine = Self {
            control: Box::new(zeroed()),
            peers: (0..PEERS).map(|_| zeroed()).collect(),
            counters: Box::new(zeroed()),
        };
        let control = &machine.control;
        control.cluster.store(u64::from(CLUSTER));
        control.me.store(1);
        control.others.store((2..=voters).fold(0, |mask, voter| mask | 1 << voter));
        control.others_needed.store(voters / 2);
        control.lease_ns.store(LEASE);
        control.key[0].store(KEY[0]);
        control.key[1].store(KEY[1]);
        control.incarnation.store(5);
        control.started.store(1);
        machine
    }

    fn receive(&self, words: &mut Words, now: u64) -> Verdict {
        receive(&self.control, &self.counters, 0, SOURCE, |node| self.peers.get(node), words, now)
    }
}

fn signed(beat: &Beat) -> Words {
    let mut words = beat.words();
    words[8] = wire::tag(KEY, &words);
    words
}

fn beat(order: u64, gate_index: u64) -> Beat {
    Beat { cluster: CLUSTER, kind: KIND_BEAT, node: 2, to: 1, order, stamp: order, gate_index, ..Beat::default() }
}

/// S by its definition: try every stamp.
fn reference_stamp(stamps: &[u64; VOTERS_MAX], needed: u64) -> u64 {
    let reached = |s: u64| stamps.iter().filter(|stamp| **stamp >= s).count() as u64 >= needed;
    stamps.iter().copied().filter(|s| reached(*s)).max().unwrap_or(0)
}

proptest! {
    #[test]
    fn the_majority_stamp_is_the_newest_that_enough_have_reached(
        stamps in prop::array::uniform8(0u64..6),
        needed in 1u64..=8,
    ) {
        prop_assert_eq!(majority_stamp(&stamps, needed), reference_stamp(&stamps, needed));
    }

    #[test]
    fn the_majority_stamp_holds_at_the_far_end_of_the_clock(
        stamps in prop::array::uniform8((1u64 << 63) - 4..(1u64 << 63)),
        needed in 1u64..=8,
    ) {
        prop_assert_eq!(majority_stamp(&stamps, needed), reference_stamp(&stamps, needed));
    }

    #[test]
    fn no_bytes_at_all_make_it_panic_or_answer(bytes in prop::collection::vec(any::<u8>(), 72)) {
        let machine = Machine::new(3);
        let mut words = wire::from_bytes(&bytes).expect("72 bytes");
        prop_assert_ne!(machine.receive(&mut words, 9), Verdict::Answer);
        words[0] = u64::from(wire::MAGIC) | u64::from(CLUSTER) << 32;
        prop_assert_ne!(machine.receive(&mut words, 9), Verdict::Answer);
        // Signed nonsense is taken for what it says, and still nothing breaks.
        words[8] = wire::tag(KEY, &words);
        machine.receive(&mut words, 9);
    }

    /// A beat is taken if and only if its order is above every one taken before on its link.
    #[test]
    fn each_order_is_taken_once_and_never_after_a_later_one(orders in prop::collection::vec(1u64..40, 1..60)) {
        let machine = Machine::new(3);
        let (mut newest, mut taken) = (0, 0);
        for (now, order) in orders.iter().enumerate() {
            let mut words = signed(&beat(wire::order(1, *order), 3));
            let expected = *order > newest;
            newest = newest.max(*order);
            taken += u64::from(expected);
            let answered = machine.receive(&mut words, now as u64 + 1) == Verdict::Answer;
            prop_assert_eq!(answered, expected);
        }
        let row = &machine.peers[2].links[0];
        prop_assert_eq!(row.received.load(), taken);
        prop_assert_eq!(row.received.load() + row.reordered.load() + row.replayed.load(), orders.len() as u64);
        // Everything up to the newest either came in order or was counted lost.
        prop_assert!(row.received.load() + row.lost.load() <= newest);
    }

    /// The lease against a model that keeps every acknowledgement.
    #[test]
    fn the_lease_follows_the_acknowledgements(
        voters in 2u64..=8,
        acks in prop::collection::vec((2u64..=8, 1u64..50, 4u64..=6), 1..60),
    ) {
        let machine = Machine::new(voters);
        let mut model = [0u64; VOTERS_MAX];
        let mut end = 0;
        for (sequence, (node, stamp, incarnation)) in acks.iter().enumerate() {
            let now = 30;
            let order = wire::order(*incarnation, sequence as u64);
            let ack = Beat { kind: KIND_ACK, node: *node as u8, stamp: *stamp, ..beat(order, 0) };
            machine.receive(&mut signed(&ack), now);
            if *node <= voters && *incarnation == 5 && *stamp <= now {
                let newest = &mut model[*node as usize - 1];
                *newest = (*newest).max(*stamp);
            }
            let reached = reference_stamp(&model, voters / 2);
            if reached > 0 {
                end = end.max(reached + LEASE);
            }
            prop_assert_eq!(machine.control.lease_end.load(), end);
        }
    }
}

#[test]
fn what_an_earlier_incarnation_earned_counts_for_nothing() {
    let machine = Machine::new(3);
    machine.control.started.store(100);
    machine.control.acked[2].store(99);
    let mut words = signed(&Beat { kind: KIND_ACK, node: 3, stamp: 99, ..beat(wire::order(5, 1), 0) });
    machine.receive(&mut words, 200);
    assert_eq!(machine.control.lease_end.load(), 0);
    let mut words = signed(&Beat { kind: KIND_ACK, node: 3, stamp: 100, ..beat(wire::order(5, 2), 0) });
    machine.receive(&mut words, 200);
    assert_eq!(machine.control.lease_end.load(), 100 + LEASE);
}

#[test]
fn r_never_falls() {
    let machine = Machine::new(3);
    // A CPU that read the clock at 10 writes after another wrote 20: it may answer, R stays.
    assert_eq!(machine.receive(&mut signed(&beat(wire::order(1, 1), 0)), 20), Verdict::Answer);
    assert_eq!(machine.receive(&mut signed(&beat(wire::order(1, 2), 0)), 10), Verdict::Answer);
    assert_eq!(machine.peers[2].acknowledged.load(), 20);
}

#[test]
fn a_beat_that_is_taken_shows_its_senders_address() {
    let machine = Machine::new(3);
    let mut words = signed(&beat(wire::order(1, 1), 0));
    machine.receive(&mut words, 10);
    assert_eq!(machine.peers[2].links[0].mac.load(), SOURCE);
    // The same beat again, from elsewhere: not taken.
    let peers = &machine.peers;
    let mut words = signed(&beat(wire::order(1, 1), 0));
    receive(&machine.control, &machine.counters, 0, 99, |node| peers.get(node), &mut words, 11);
    assert_eq!(peers[2].links[0].mac.load(), SOURCE);
    // A user-space receiver sees no address, and forgets none.
    let mut words = signed(&beat(wire::order(1, 2), 0));
    receive(&machine.control, &machine.counters, 0, 0, |node| peers.get(node), &mut words, 12);
    assert_eq!(peers[2].links[0].mac.load(), SOURCE);
}

/// Rule 3: whoever sets the floor, fences and reads R has seen every answer that was given, or will be.
///
/// A race is only found by many tries: each is a few hundred nanoseconds where two CPUs are free, so tries are bounded by
/// number and by time.
#[test]
fn an_answer_is_either_seen_in_r_or_not_given() {
    const ROUNDS: u64 = 400_000;
    const LIMIT: Duration = Duration::from_secs(5);
    let begun = Instant::now();
    let clock = || begun.elapsed().as_nanos() as u64 + 1;
    let machine = Machine::new(3);
    let (stop, last_answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let floor = &machine.peers[2].floor;
    let grows = |counter: &Word, by: u64| {
        let from = counter.load();
        let mut spins = 0u32;
        while counter.load() < from + by {
            spins += 1;
            if spins.is_multiple_of(1_000) {
                thread::yield_now();
            }
            std::hint::spin_loop();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            for sequence in 1.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let mut words = signed(&beat(wire::order(1, sequence), 3));
                let now = clock();
                if machine.receive(&mut words, now) == Verdict::Answer {
                    last_answered.store(now, Ordering::SeqCst);
                }
            }
        });
        let mut violation = None;
        for round in 0..ROUNDS {
            if violation.is_some() || (round.is_multiple_of(64) && begun.elapsed() > LIMIT) {
                break;
            }
            floor.store(0);
            grows(&machine.counters.answered, 1);
            floor.store(FLOOR_INFINITE);
            fence(Ordering::SeqCst);
            let seen = machine.peers[2].acknowledged.load();
            // The first refusal may have begun before the floor; the second one's beat came after any answer was noted.
            grows(&machine.counters.refused, 2);
            let answered = last_answered.load(Ordering::SeqCst);
            if answered > seen {
                violation = Some((round, answered, seen));
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(violation, None, "round, instant of an answer, R as it was read before");
    });
}
