//! `programs`: what the BPF programs cost a packet, by BPF_PROG_TEST_RUN on crafted packets.
//!
//! Packets that a program may meet again are run many times over; beats and acknowledgements are taken only once each,
//! so those are run one by one, which includes the cost of cold caches and of the kernel's timer.

use std::{io::Write, net::IpAddr};

use anyhow::{Result, ensure};
use baton::{
    clock,
    cluster::ids::VoterId,
    kernel::{
        Chain, KernelConfig, VipRow,
        run::{BEAT_EGRESS, BEAT_INGRESS, BEAT_XDP, GATE_EGRESS, GATE_INGRESS, Programs, Ran, measure},
    },
};
use baton_ebpf::wire::{self, Beat, KIND_ACK, KIND_BEAT};
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
