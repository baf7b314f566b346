//! The embedded BPF object: loading it, and finding its programs and maps.

use std::{os::fd::AsFd, path::Path};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData},
    programs::{ProgramError, SchedClassifier, Xdp},
};
use baton_ebpf::layout::{PEERS, SLOTS};
use baton_ebpf::wire::LINKS_MAX;

use super::{
    bpffs,
    error::{KernelError, map_error},
    region::{Region, Row},
    tables::Tables,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/baton-programs"));

/// tc ingress of a backplane link.
pub const BEAT_INGRESS: &str = "beat_ingress";
/// tc egress of a backplane link.
pub const BEAT_EGRESS: &str = "beat_egress";
/// XDP on a backplane link.
pub const BEAT_XDP: &str = "beat_xdp";
/// tc ingress of a front link.
pub const GATE_INGRESS: &str = "gate_ingress";
/// tc egress of a front link.
pub const GATE_EGRESS: &str = "gate_egress";
/// tc egress of any other device.
pub const GATE_OTHER: &str = "gate_other";

/// tc ingress of a backplane link, for what a peer steers here.
pub const STEER_INGRESS: &str = "steer_ingress";

/// sched_process_exit, for the ends of processes.
pub(super) const PROCESS_EXIT: &str = "process_exit";

/// The tc programs.
pub(super) const CLASSIFIERS: [&str; 6] =
    [BEAT_INGRESS, BEAT_EGRESS, GATE_INGRESS, GATE_EGRESS, GATE_OTHER, STEER_INGRESS];

/// Names of the maps in the object and in the node's folder on bpffs.
pub(super) const CONTROL: &str = "CONTROL";
pub(super) const PEER: &str = "PEER";
pub(super) const COUNTERS: &str = "COUNTERS";
pub(super) const GATE: &str = "GATE";
pub(super) const VIPS: &str = "VIPS";
pub(super) const TENURES: &str = "TENURES";
pub(super) const STEER: &str = "STEER";
pub(super) const FLOWS: &str = "FLOWS";
pub(super) const FRAGMENTS: &str = "FRAGMENTS";
/// Not pinned: they live with the program that reads them.
pub(super) const WATCHED: &str = "WATCHED";
pub(super) const EXITS: &str = "EXITS";
const MAPS: [&str; 9] = [CONTROL, PEER, COUNTERS, GATE, VIPS, TENURES, STEER, FLOWS, FRAGMENTS];

/// Loads the object. With a folder its maps are taken from there where they are pinned, and pinned there where not.
pub(super) fn load(folder: Option<&Path>) -> Result<Ebpf, KernelError> {
    let mut loader = EbpfLoader::new();
    // No kernel type is relocated against, and parsing the kernel's BTF is most of the loading time.
    loader.btf(None);
    for map in MAPS {
        if let Some(folder) = folder {
            loader.map_pin_path(map, folder.join(map));
        }
    }
    let mut ebpf = loader.load(OBJECT).map_err(|source| KernelError::Load(Box::new(source)))?;
    for name in CLASSIFIERS {
        classifier(&mut ebpf, name)?.load().map_err(program_error(name))?;
    }
    xdp(&mut ebpf, BEAT_XDP)?.load().map_err(program_error(BEAT_XDP))?;
    Ok(ebpf)
}

/// Names the program in an error.
pub(super) fn program_error(program: &'static str) -> impl FnOnce(ProgramError) -> KernelError {
    move |source| KernelError::Program { program, source: Box::new(source) }
}

/// A tc program of the object.
pub(super) fn classifier<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, KernelError> {
    let program = ebpf.program_mut(name).ok_or(KernelError::Missing(name))?;
    program.try_into().map_err(program_error(name))
}

/// An XDP program of the object.
pub(super) fn xdp<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, KernelError> {
    let program = ebpf.program_mut(name).ok_or(KernelError::Missing(name))?;
    program.try_into().map_err(program_error(name))
}

/// Maps the tables of a loaded object into memory.
pub(super) fn tables(ebpf: &Ebpf) -> Result<Tables, KernelError> {
    let array = |name| match ebpf.map(name) {
        Some(Map::Array(data)) => Ok(data),
        _ => Err(KernelError::Missing(name)),
    };
    Tables::new(
        region(array(CONTROL)?, CONTROL, 1, true)?,
        region(array(PEER)?, PEER, PEERS, true)?,
        region(array(COUNTERS)?, COUNTERS, LINKS_MAX, true)?,
        region(array(GATE)?, GATE, SLOTS, true)?,
        region(array(STEER)?, STEER, 1, true)?,
        true,
    )
}

/// Maps the tables pinned in a folder into memory, to be read alone.
pub(super) fn pinned_tables(folder: &Path) -> Result<Tables, KernelError> {
    let open = |name| MapData::from_pin(folder.join(name)).map_err(map_error(name));
    Tables::new(
        region(&open(CONTROL)?, CONTROL, 1, false)?,
        region(&open(PEER)?, PEER, PEERS, false)?,
        region(&open(COUNTERS)?, COUNTERS, LINKS_MAX, false)?,
        region(&open(GATE)?, GATE, SLOTS, false)?,
        region(&open(STEER)?, STEER, 1, false)?,
        true,
    )
}

/// Checks the shape as the kernel has it (aya takes a pinned map unseen), then maps the rows.
fn region<T: Row>(map: &MapData, name: &'static str, rows: usize, writable: bool) -> Result<Region<T>, KernelError> {
    let info = map.info().map_err(map_error(name))?;
    let expected = size_of::<T>();
    let found = info.value_size() as usize;
    if found != expected || info.max_entries() as usize != rows {
        return Err(KernelError::Shape { map: name, found, expected });
    }
    Region::of_map(map.fd().as_fd(), rows, writable).map_err(|source| KernelError::Memory { table: name, source })
}

/// Pins a program by its name, over the one of an earlier agent: for inspection and for BPF_PROG_TEST_RUN.
pub(super) fn pin_program(ebpf: &mut Ebpf, name: &'static str, folder: &Path) -> Result<(), KernelError> {
    let path = folder.join(name);
    bpffs::remove(&path)?;
    let program = ebpf.program_mut(name).ok_or(KernelError::Missing(name))?;
    program.pin(&path).map_err(|source| KernelError::Pinning { path, source: Box::new(source) })
}
