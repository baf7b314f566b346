//! `programs`: what the BPF programs cost a packet, by BPF_PROG_TEST_RUN on crafted packets.
//!
//! Packets that a program may meet again are run many times over; beats and acknowledgements are taken only once each,
//! so those are run one by one, which includes the cost of cold caches and of the kernel's timer.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream},
};

use anyhow::{Result, bail, ensure};
use baton::{
    clock,
    cluster::{command::GateRole, ids::VoterId},
    kernel::{
        Chain, Flow, KernelConfig, Path, VipRow,
        run::{
            BEAT_EGRESS, BEAT_INGRESS, BEAT_XDP, GATE_EGRESS, GATE_INGRESS, Programs, Ran, STEER_INGRESS, TC_NEXT,
            TC_REDIRECT, measure,
        },
    },
};
use baton_ebpf::{
    steering::mac_number,
    wire::{self, Beat, KIND_ACK, KIND_BEAT},
};
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use etherparse::PacketBuilder;
use serde::Serialize;

const CLUSTER: u32 = 77;
const PORT: u16 = 7420;
const KEY: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfeed_f00d_dead_beef];
const INCARNATION: u64 = 5;
/// Runs of a packet that may be met again.
const REPEAT: u32 = 100_000;
/// Beats, of which each is taken once.
const ROUNDS: u64 = 5_000;
/// What the issue of the main job asks for, ns.
const FOREIGN_NS: u64 = 30;
const CHECKED_NS: u64 = 300;
const ACKNOWLEDGED_NS: u64 = 600;
/// What the issue of planned moves asks for, ns.
const STEERED_NS: u64 = 150;
/// The VIP of a group that moves: loopback's, so that it can have a socket.
const MOVING: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 77);

/// Options of `programs`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Print one JSON object on standard output.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Json {
    rows: Vec<JsonRow>,
}

#[derive(Serialize)]
struct JsonRow {
    program: &'static str,
    packet: &'static str,
    ns: u64,
    target_ns: u64,
}

/// The verb.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut bench = Bench { programs: Programs::load(&configuration())?, rows: Vec::new() };
    bench.foreign()?;
    bench.beats()?;
    bench.steering()?;
    let rows = bench.rows;

    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header(["program", "packet", "ns", "target"]);
    for row in &rows {
        table.add_row([row.program, row.packet, &row.ns.to_string(), &format!("≤ {}", row.target_ns)]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    eprintln!("{table}");
    if arguments.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&Json { rows })?)?;
    }
    Ok(())
}

struct Bench {
    programs: Programs,
    rows: Vec<JsonRow>,
}

impl Bench {
    fn add(&mut self, program: &'static str, packet: &'static str, ran: &Ran, target_ns: u64) {
        self.rows.push(JsonRow { program, packet, ns: ran.nanos, target_ns });
    }

    /// Packets that are none of ours, for every program.
    fn foreign(&mut self) -> Result<()> {
        self.programs.set_vips(&[VipRow { address: IpAddr::from([192, 0, 2, 100]), slot: 0, front: 0 }])?;
        let frame = udp(&[0; 100], PORT + 1)?;
        for program in [BEAT_INGRESS, BEAT_EGRESS, BEAT_XDP, GATE_INGRESS, GATE_EGRESS] {
            let ran = self.programs.run(program, &frame, REPEAT)?;
            self.add(program, "none of ours", &ran, FOREIGN_NS);
        }
        Ok(())
    }

    fn beats(&mut self) -> Result<()> {
        let tables = self.programs.tables();
        tables.set_floor(VoterId(2), 0);
        let beats = frames(beat)?;
        let ran = measure(&self.programs, BEAT_INGRESS, &beats)?;
        let answered = tables.counters_view(0).map_or(0, |counters| counters.answered);
        ensure!(answered == ROUNDS, "the program acknowledged {answered} of {ROUNDS} beats");
        self.add(BEAT_INGRESS, "beat checked and acknowledged", &ran, ACKNOWLEDGED_NS);

        let replayed = self.programs.run(BEAT_INGRESS, &beats[0], REPEAT)?;
        self.add(BEAT_INGRESS, "beat checked (a replay)", &replayed, CHECKED_NS);
        tables.set_floor(VoterId(2), u64::MAX);
        let ran = measure(&self.programs, BEAT_INGRESS, &frames(|n| beat(ROUNDS + n))?)?;
        self.add(BEAT_INGRESS, "beat checked and recorded, no acknowledgement", &ran, CHECKED_NS);

        let now = clock::now();
        let ran = measure(&self.programs, BEAT_INGRESS, &frames(|n| acknowledgement(n, now - ROUNDS + n))?)?;
        self.add(BEAT_INGRESS, "acknowledgement checked, lease renewed", &ran, CHECKED_NS);
        Ok(())
    }
}

/// Steering, by the kinds of packets and ways to decide.
impl Bench {
    fn steering(&mut self) -> Result<()> {
        let tables = self.programs.tables();
        let far = clock::now() + 3_600_000_000_000;
        let peer = VoterId(2);
        let mac = |last| [2, 0, 0, 0, 0, last];
        tables.set_front(0, FRONT, mac(1));
        self.programs.set_vips(&[VipRow { address: MOVING.into(), slot: 0, front: FRONT }])?;
        tables.set_path(peer, Some(Path { ifindex: 200, peer_mac: mac(2), own_mac: mac(1) }));
        tables.peer(peer).links[0].mac.store(mac_number(mac(2)));
        tables.peer(peer).host_seen.store(far);
        tables.control().lease_end.store(far);
        let role = |role| ensure_row(tables.set_gate(0, 1, role));
        let listener = TcpListener::bind((MOVING, 0))?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        let (ours, theirs) = (stream.local_addr()?, stream.peer_addr()?);
        let IpAddr::V4(client) = ours.ip() else { bail!("loopback has another family") };
        let known = tcp(client, ours.port(), theirs.port(), ACK)?;
        let unknown = tcp(client, 9, 9, ACK)?;
        let syn = tcp(client, 10, 9, SYN)?;
        let datagram = to_vip(client, 11)?;

        role(GateRole::Owner { steer: None })?;
        self.case("owner, steers nothing: TCP", &known, TC_NEXT)?;
        self.case("owner, steers nothing: SYN recorded", &syn, TC_NEXT)?;
        self.case("owner, steers nothing: UDP recorded", &datagram, TC_NEXT)?;
        role(GateRole::Owner { steer: Some(peer) })?;
        self.case("new owner: TCP, its socket found", &known, TC_NEXT)?;
        self.case("new owner: TCP, known by record", &tcp(client, 10, 9, ACK)?, TC_NEXT)?;
        self.case("new owner: TCP, sent to the old one", &unknown, TC_REDIRECT)?;
        self.case("new owner: SYN recorded", &syn, TC_NEXT)?;
        self.case("new owner: UDP, its own", &datagram, TC_NEXT)?;
        let old = Flow {
            source: client.into(),
            destination: MOVING.into(),
            source_port: 12,
            destination_port: 9,
            protocol: 17,
            age_ns: 0,
        };
        self.programs.learn_flows(0, &[old])?;
        self.case("new owner: UDP, sent to the old one", &to_vip(client, 12)?, TC_REDIRECT)?;
        role(GateRole::Drain { to: peer })?;
        self.case("old owner: TCP, its socket found", &known, TC_NEXT)?;
        self.case("old owner: TCP, sent to the new one", &unknown, TC_REDIRECT)?;
        self.case("old owner: SYN sent to the new one", &tcp(client, 13, 9, SYN)?, TC_REDIRECT)?;
        self.case("old owner: UDP, its own", &datagram, TC_NEXT)?;

        let mut steered = unknown.clone();
        steered[6..12].copy_from_slice(&mac(2));
        let ran = measure(&self.programs, STEER_INGRESS, &vec![steered; ROUNDS as usize])?;
        ensure!(ran.action == TC_REDIRECT, "what the peer sends is not handed in: {}", ran.action);
        self.add(STEER_INGRESS, "handed in at the front (one by one)", &ran, STEERED_NS);
        let foreign = self.programs.run(STEER_INGRESS, &udp(&[0; 100], PORT + 1)?, REPEAT)?;
        self.add(STEER_INGRESS, "none of ours", &foreign, FOREIGN_NS);
        Ok(())
    }

    fn case(&mut self, packet: &'static str, frame: &[u8], action: u32) -> Result<()> {
        let ran = self.programs.run(GATE_INGRESS, frame, REPEAT)?;
        ensure!(ran.action == action, "{packet}: the gate returned {} where {action} is right", ran.action);
        self.add(GATE_INGRESS, packet, &ran, STEERED_NS);
        Ok(())
    }
}

fn ensure_row(set: bool) -> Result<()> {
    ensure!(set, "the gate has no row for the group");
    Ok(())
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// The number of the front; no device of a test run is looked at.
const FRONT: u32 = 300;

/// A TCP segment from a client to the moving VIP, addressed to loopback's MAC, which a test run's packets come by.
fn tcp(client: Ipv4Addr, from: u16, to: u16, flags: u8) -> Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [0; 6]);
    let builder = builder.ipv4(client.octets(), MOVING.octets(), 64).tcp(from, to, 1, 1000);
    let mut frame = Vec::new();
    builder.write(&mut frame, &[0; 100])?;
    frame[47] = flags;
    Ok(frame)
}

/// A UDP datagram likewise.
fn to_vip(client: Ipv4Addr, from: u16) -> Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [0; 6]);
    let builder = builder.ipv4(client.octets(), MOVING.octets(), 64).udp(from, 9);
    let mut frame = Vec::new();
    builder.write(&mut frame, &[0; 100])?;
    Ok(frame)
}

fn configuration() -> KernelConfig {
    KernelConfig {
        cluster: "bench".into(),
        cluster_id: CLUSTER,
        node: "one".into(),
        bpffs: "/sys/fs/bpf".into(),
        me: VoterId(1),
        voters: vec![VoterId(1), VoterId(2), VoterId(3)],
        key: KEY,
        port: PORT,
        incarnation: INCARNATION,
        lease_ns: 50_000_000,
        links: Vec::new(),
        fronts: Vec::new(),
        others: Vec::new(),
        vips: Vec::new(),
        chain: Chain::Auto,
        realtime: false,
    }
}

/// A beat of voter 2 to voter 1.
fn beat(sequence: u64) -> Beat {
    Beat {
        cluster: CLUSTER,
        kind: KIND_BEAT,
        node: 2,
        to: 1,
        link: 0,
        flags: wire::FLAG_LEASE | wire::FLAG_NODE,
        leader: 3,
        silent: 0,
        order: wire::order(3, sequence),
        stamp: 1_000_000 + sequence,
        gate_index: 10,
        token: 99,
        digest: 0xabcd,
        term: 4,
        log_index: 12,
    }
}

/// Voter 2's acknowledgement of a beat of voter 1.
fn acknowledgement(sequence: u64, stamp: u64) -> Beat {
    Beat { kind: KIND_ACK, order: wire::order(INCARNATION, sequence), stamp, ..beat(0) }
}

/// Signed frames, one for each of the rounds.
fn frames(make: impl Fn(u64) -> Beat) -> Result<Vec<Vec<u8>>> {
    let frame = |n| {
        let mut words = make(n).words();
        words[8] = wire::tag(KEY, &words);
        udp(&wire::to_bytes(&words), PORT)
    };
    (1..=ROUNDS).map(frame).collect()
}

/// A UDP frame to `port`; without a checksum, as the agents send their beats.
fn udp(payload: &[u8], port: u16) -> Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
    let builder = builder.ipv4([10, 77, 0, 2], [10, 77, 0, 1], 64).udp(port, port);
    let mut frame = Vec::new();
    builder.write(&mut frame, payload)?;
    frame[40..42].fill(0);
    Ok(frame)
}
