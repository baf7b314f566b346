//! The shared tables: heartbeats, lease and gate, read and written by plain atomics. Safe to use from any thread.

use std::sync::atomic::{Ordering, fence};

use baton_ebpf::{
    layout::{
        Control, Counters, FLOOR_INFINITE, GateGroup, PEERS, Peer, ROLE_CLOSED, SLOTS, VIP_FILTER_WORDS, gate_epoch,
        gate_word, vip_bit,
    },
    lease,
    receive::{self, Verdict},
    steering::Steer,
    wire::{self, Beat, LINKS_MAX, Words},
};

use super::{
    KernelConfig,
    error::KernelError,
    region::Region,
    view::{CountersView, LinkView, PeerView},
};
use crate::{
    clock,
    cluster::{
        ids::{Incarnation, Index, Nanos, VoterId},
        timing::majority,
    },
};

/// The tables of one node.
#[derive(Debug)]
pub struct Tables {
    control: Region<Control>,
    peers: Region<Peer>,
    counters: Region<Counters>,
    gate: Region<GateGroup>,
    steer: Region<Steer>,
    in_kernel: bool,
}

/// What the agent says of itself in its beats.
#[derive(Clone, Copy, Debug, Default)]
pub struct Said {
    /// Whose beat it is; none: the published incarnation's.
    pub incarnation: Option<Incarnation>,
    /// [`wire::FLAG_LEASE`] and [`wire::FLAG_NODE`].
    pub flags: u8,
    /// The raft leader it knows.
    pub leader: Option<VoterId>,
    /// The voters it finds silent: bit = voter number - 1.
    pub silent: u8,
    /// Its token of progress.
    pub token: u32,
    /// The digest of its configuration.
    pub digest: u32,
    /// The term it knows.
    pub term: u64,
    /// Its last log index.
    pub log_index: Index,
}

impl Tables {
    /// Tables over regions; `in_kernel` when BPF programs read them.
    pub(super) fn new(
        control: Region<Control>,
        peers: Region<Peer>,
        counters: Region<Counters>,
        gate: Region<GateGroup>,
        steer: Region<Steer>,
        in_kernel: bool,
    ) -> Result<Self, KernelError> {
        if control.rows().is_empty() || peers.rows().len() != PEERS || steer.rows().is_empty() {
            return Err(KernelError::Missing("row of the control table"));
        }
        Ok(Self { control, peers, counters, gate, steer, in_kernel })
    }

    /// Tables in anonymous memory: where there is no BPF, the agent itself does what the programs would do.
    pub(super) fn in_memory() -> Result<Self, KernelError> {
        let error = |table| move |source| KernelError::Memory { table, source };
        Self::new(
            Region::anonymous(1).map_err(error("control"))?,
            Region::anonymous(PEERS).map_err(error("peer"))?,
            Region::anonymous(LINKS_MAX).map_err(error("counters"))?,
            Region::anonymous(SLOTS).map_err(error("gate"))?,
            Region::anonymous(1).map_err(error("steering"))?,
            false,
        )
    }

    /// Whether BPF programs stamp, check, answer and enforce; else the sender stamps and [`Tables::receive`] answers.
    pub fn in_kernel(&self) -> bool {
        self.in_kernel
    }

    /// Configuration and lease.
    pub fn control(&self) -> &Control {
        &self.control.rows()[0]
    }

    /// A peer's row. A number that is no voter's gives row 0, which no heartbeat touches.
    pub fn peer(&self, voter: VoterId) -> &Peer {
        let row = usize::from(voter.0);
        &self.peers.rows()[if row < PEERS { row } else { 0 }]
    }

    /// A group's row in the gate; `None` beyond [`SLOTS`].
    pub fn gate(&self, slot: u32) -> Option<&GateGroup> {
        self.gate.rows().get(slot as usize)
    }

    /// The ways to the peers, and the fronts.
    pub(super) fn steer(&self) -> &Steer {
        &self.steer.rows()[0]
    }

    /// A link's counters; `None` beyond [`LINKS_MAX`].
    pub fn counters(&self, link: usize) -> Option<&Counters> {
        self.counters.rows().get(link)
    }

    /// When this voter's lease ends; 0 when it never had one.
    pub fn lease_end(&self) -> Nanos {
        self.control().lease_end.load()
    }

    /// The gate index that beats carry.
    pub fn gate_index(&self) -> Index {
        self.control().gate_index.load()
    }

    /// Sets the floor for a peer, then fences: R is to be read after this returns (rule 3).
    pub fn set_floor(&self, voter: VoterId, floor: Index) {
        self.peer(voter).floor.store(floor);
        fence(Ordering::SeqCst);
    }

    /// Closes every gate, each at its epoch.
    pub fn close_gates(&self) {
        for group in self.gate.rows() {
            group.word.store(gate_word(gate_epoch(group.word.load()), ROLE_CLOSED, 0));
        }
        fence(Ordering::SeqCst);
    }

    /// Publishes the gate index: every gate change up to this entry is done and visible before it.
    pub fn set_gate_index(&self, index: Index) {
        fence(Ordering::SeqCst);
        self.control().gate_index.store(index);
    }

    /// What the heartbeats show of a peer.
    pub fn peer_view(&self, voter: VoterId) -> PeerView {
        PeerView::of(self.peer(voter))
    }

    /// What was measured of a peer on a link; `None` beyond [`LINKS_MAX`].
    pub fn link_view(&self, voter: VoterId, link: usize) -> Option<LinkView> {
        self.peer(voter).links.get(link).map(LinkView::of)
    }

    /// What was counted on a link; `None` beyond [`LINKS_MAX`].
    pub fn counters_view(&self, link: usize) -> Option<CountersView> {
        self.counters(link).map(CountersView::of)
    }

    /// The datagram of a beat, ready to send: with BPF the egress program stamps and signs it, else it is done here.
    pub fn beat(&self, to: VoterId, link: u8, sequence: u64, said: &Said) -> [u8; wire::BYTES] {
        let control = self.control();
        let mut words = Beat {
            cluster: control.cluster.load() as u32,
            kind: wire::KIND_BEAT,
            node: control.me.load() as u8,
            to: to.0,
            link,
            flags: said.flags,
            leader: said.leader.map_or(0, |leader| leader.0),
            silent: said.silent,
            order: wire::order(said.incarnation.unwrap_or_else(|| control.incarnation.load()), sequence),
            stamp: 0,
            gate_index: control.gate_index.load(),
            token: said.token,
            digest: said.digest,
            term: said.term,
            log_index: said.log_index,
        }
        .words();
        if !self.in_kernel {
            wire::seal(&mut words, self.key(), clock::now());
        }
        wire::to_bytes(&words)
    }

    /// The programs' part, in user space: checks and records one datagram. `Some`: the answer to send back.
    /// A datagram of another length is counted as malformed.
    pub fn receive(&self, link: usize, datagram: &[u8]) -> Option<[u8; wire::BYTES]> {
        let counters = self.counters(link)?;
        let Some(mut words): Option<Words> = wire::from_bytes(datagram) else {
            counters.malformed.add(1);
            return None;
        };
        let peers = self.peers.rows();
        let verdict =
            receive::receive(self.control(), counters, link, 0, |node| peers.get(node), &mut words, clock::now());
        (verdict == Verdict::Answer).then(|| wire::to_bytes(&words))
    }

    /// A cluster of one voter is its own majority: the pulse renews by this. Does nothing in a larger one.
    pub fn renew_alone(&self) {
        lease::renew_alone(self.control(), clock::now());
    }

    /// Makes the filter before the VIP map let exactly these addresses through (and what shares their bits).
    pub(super) fn filter_vips<'a>(&self, addresses: impl Iterator<Item = &'a [u8; 16]>) {
        let mut filter = [0; VIP_FILTER_WORDS];
        for address in addresses {
            let (chunks, _) = address.as_chunks::<4>();
            let (word, bit) = vip_bit(&std::array::from_fn(|i| u32::from_ne_bytes(chunks[i])));
            filter[word] |= bit;
        }
        for (word, value) in self.control().vip_filter.iter().zip(filter) {
            word.store(value);
        }
        fence(Ordering::SeqCst);
    }

    fn key(&self) -> [u64; 2] {
        let control = self.control();
        [control.key[0].load(), control.key[1].load()]
    }

    /// Makes all floors infinite: nobody is acknowledged.
    pub(super) fn refuse_all(&self) {
        for peer in self.peers.rows() {
            peer.floor.store(FLOOR_INFINITE);
        }
        fence(Ordering::SeqCst);
    }

    /// Stops everything that a former incarnation could still do: floors, gates, then its right to acknowledgements.
    pub(super) fn quiesce(&self) {
        self.refuse_all();
        self.close_gates();
        self.control().incarnation.store(0);
        self.forget_lease();
    }

    /// Takes back what a former incarnation earned. To be repeated when no program of before is running any more.
    pub(super) fn forget_lease(&self) {
        let control = self.control();
        for acked in &control.acked {
            acked.store(0);
        }
        control.lease_end.store(0);
        control.gate_index.store(0);
        fence(Ordering::SeqCst);
    }

    /// Writes the configuration. The incarnation stays 0 until [`Tables::publish`].
    pub(super) fn configure(&self, config: &KernelConfig) {
        let control = self.control();
        let others = config.voters.iter().filter(|voter| **voter != config.me);
        control.cluster.store(u64::from(config.cluster_id));
        control.me.store(u64::from(config.me.0));
        control.others.store(others.fold(0, |mask, voter| mask | u64::from(voter.bit())));
        control.others_needed.store(majority(config.voters.len()) as u64 - 1);
        control.lease_ns.store(config.lease_ns);
        control.key[0].store(config.key[0]);
        control.key[1].store(config.key[1]);
        for (link, word) in control.link_ifindex.iter().enumerate() {
            word.store(config.links.get(link).map_or(0, |link| u64::from(link.device.ifindex)));
        }
        self.configure_steering(config);
        control.port.store(u64::from(config.port));
        fence(Ordering::SeqCst);
    }

    /// Publishes the new incarnation: from here on acknowledgements of its beats earn it a lease.
    pub(super) fn publish(&self, incarnation: Incarnation) {
        let control = self.control();
        control.started.store(clock::now());
        fence(Ordering::SeqCst);
        control.incarnation.store(incarnation);
        fence(Ordering::SeqCst);
    }
}
