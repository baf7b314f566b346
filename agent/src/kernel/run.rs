//! Running the programs on crafted packets by BPF_PROG_TEST_RUN: for the tests and the benchmark, on unpinned maps.

use std::sync::Arc;

use aya::{
    Ebpf, TestRun, TestRunOptions,
    programs::{Program, ProgramError},
};
use baton_ebpf::layout::Tenure;

use super::{
    Exits, Flow, KernelConfig, VipRow, check,
    error::KernelError,
    gate::GateMaps,
    object::{self, program_error},
    tables::Tables,
};
use crate::cluster::ids::{Epoch, Nanos};

pub use super::object::{BEAT_EGRESS, BEAT_INGRESS, BEAT_XDP, GATE_EGRESS, GATE_INGRESS, GATE_OTHER, STEER_INGRESS};

/// What tc programs return to let the next one decide.
pub const TC_NEXT: u32 = u32::MAX;
/// What tc programs return to drop.
pub const TC_DROP: u32 = 2;
/// What tc programs return to redirect, here: back where it came from.
pub const TC_REDIRECT: u32 = 7;
/// What the XDP program returns to drop.
pub const XDP_DROP: u32 = 1;
/// What the XDP program returns to pass.
pub const XDP_PASS: u32 = 2;
/// What the XDP program returns to send back.
pub const XDP_TX: u32 = 3;

/// The largest packet that comes back.
const PACKET_MAX: usize = 2048;
/// Where fields are in `struct __sk_buff` (linux/bpf.h); the kernel takes what is left out behind them for zero.
const MARK_AT: usize = 8;
const INGRESS_IFINDEX_AT: usize = 36;
/// Room for `struct __sk_buff` of this kernel and of later ones.
const CONTEXT_MAX: usize = 1024;

/// The programs, loaded but attached to nothing, with tables of their own.
#[derive(Debug)]
pub struct Programs {
    ebpf: Ebpf,
    maps: GateMaps,
    tables: Arc<Tables>,
}

/// The outcome of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// What the program returned, see the constants.
    pub action: u32,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// The packet's mark afterwards; 0 where none was handed over.
    pub mark: u32,
    /// ns a packet, as the kernel measured it.
    pub nanos: u64,
}

impl Programs {
    /// Loads the programs and configures their tables as [`super::attach`] would; devices are not looked at.
    ///
    /// # Errors
    /// As [`super::attach`].
    pub fn load(config: &KernelConfig) -> Result<Self, KernelError> {
        check(config)?;
        let mut ebpf = object::load(None)?;
        let tables = object::tables(&ebpf)?;
        let maps = GateMaps::take(&mut ebpf)?;
        tables.quiesce();
        tables.configure(config);
        tables.publish(config.incarnation);
        Ok(Self { ebpf, maps, tables: Arc::new(tables) })
    }

    /// Early notice of the ends of processes, see [`super::Kernel::exits`]; the one program that is attached. Only once.
    ///
    /// # Errors
    /// A kernel that refuses the program, or a process namespace.
    pub fn exits(&mut self) -> Result<Exits, KernelError> {
        Exits::attach(&mut self.ebpf, false)
    }

    /// The tables.
    pub fn tables(&self) -> Arc<Tables> {
        Arc::clone(&self.tables)
    }

    /// See [`super::Kernel::set_vips`].
    ///
    /// # Errors
    /// As there.
    pub fn set_vips(&mut self, vips: &[VipRow]) -> Result<(), KernelError> {
        self.maps.set_vips(&self.tables, vips)
    }

    /// See [`super::Kernel::tenures`].
    ///
    /// # Errors
    /// As there.
    pub fn tenures(&self) -> Result<Vec<(u32, Epoch, Tenure)>, KernelError> {
        self.maps.tenures()
    }

    /// See [`super::Kernel::recent_flows`].
    ///
    /// # Errors
    /// As there.
    pub fn recent_flows(&mut self, slot: u32, since: Nanos) -> Result<Vec<Flow>, KernelError> {
        self.maps.flows().recent(slot, since)
    }

    /// See [`super::Kernel::learn_flows`].
    ///
    /// # Errors
    /// As there.
    pub fn learn_flows(&mut self, slot: u32, flows: &[Flow]) -> Result<(), KernelError> {
        self.maps.flows().learn(slot, flows)
    }

    /// Runs a program on a packet `repeat` times; the packet is handed over again as it was left.
    ///
    /// # Errors
    /// A name that is no program's, or a packet that the kernel refuses (below 14 bytes).
    pub fn run(&self, program: &'static str, packet: &[u8], repeat: u32) -> Result<Ran, KernelError> {
        self.run_in(program, packet, repeat, None)
    }

    /// The same with a mark on the packet; for tc programs.
    ///
    /// # Errors
    /// As [`Programs::run`].
    pub fn run_marked(&self, program: &'static str, packet: &[u8], mark: u32) -> Result<Ran, KernelError> {
        self.run_in(program, packet, 1, Some(&[(MARK_AT, mark)]))
    }

    /// The same for a packet that came by a device before.
    ///
    /// # Errors
    /// As [`Programs::run`].
    pub fn run_forwarded(&self, program: &'static str, packet: &[u8], ifindex: u32) -> Result<Ran, KernelError> {
        self.run_in(program, packet, 1, Some(&[(INGRESS_IFINDEX_AT, ifindex)]))
    }

    fn run_in(
        &self,
        program: &'static str,
        packet: &[u8],
        repeat: u32,
        fields: Option<&[(usize, u32)]>,
    ) -> Result<Ran, KernelError> {
        let mut out = vec![0; PACKET_MAX.max(packet.len() + 64)];
        let context = fields.map(|fields| {
            let mut context = [0; INGRESS_IFINDEX_AT + 4];
            for (at, value) in fields {
                context[*at..at + 4].copy_from_slice(&value.to_ne_bytes());
            }
            context
        });
        let mut context_out = [0; CONTEXT_MAX];
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ctx_in: context.as_ref().map(|context| &context[..]),
            ctx_out: context.is_some().then_some(&mut context_out[..]),
            repeat,
            ..TestRunOptions::default()
        };
        let result = match self.ebpf.program(program).ok_or(KernelError::Missing(program))? {
            Program::SchedClassifier(classifier) => classifier.test_run(options),
            Program::Xdp(xdp) => xdp.test_run(options),
            _ => Err(ProgramError::UnexpectedProgramType),
        }
        .map_err(program_error(program))?;
        out.truncate(result.data_size_out as usize);
        let nanos = u64::try_from(result.duration.as_nanos()).unwrap_or(u64::MAX);
        let [a, b, c, d] = [0, 1, 2, 3].map(|byte| context_out[MARK_AT + byte]);
        Ok(Ran { action: result.return_value, packet: out, mark: u32::from_ne_bytes([a, b, c, d]), nanos })
    }
}

/// Runs a program once on each of many packets and takes the median time: for packets that must differ, as beats must.
/// A single run pays for cold caches and for the timer, so it reads higher than a repeated one.
///
/// # Errors
/// As [`Programs::run`]; no packets.
pub fn measure(programs: &Programs, program: &'static str, packets: &[Vec<u8>]) -> Result<Ran, KernelError> {
    let mut runs: Vec<_> = packets.iter().map(|packet| programs.run(program, packet, 1)).collect::<Result<_, _>>()?;
    runs.sort_by_key(|run| run.nanos);
    let median = runs.len() / 2;
    runs.into_iter().nth(median).ok_or_else(|| KernelError::Config("no packets to measure with".into()))
}
