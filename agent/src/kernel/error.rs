//! What can go wrong between the agent and the kernel, with the next step in each text.

use std::{io, path::PathBuf};

use aya::{EbpfError, maps::MapError, pin::PinError, programs::ProgramError};
use thiserror::Error;

/// An error of the kernel side.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The configuration cannot be carried out.
    #[error("the kernel side cannot be set up: {0}")]
    Config(String),
    /// The clock that the lease lives on is shifted.
    #[error("this process is in a time namespace with a boot-clock offset of {offset}: start the agent outside of it")]
    TimeNamespace {
        /// The offset as /proc/self/timens_offsets shows it.
        offset: String,
    },
    /// A device cannot be looked at.
    #[error("device {device} cannot be looked at: is it in this network namespace?")]
    Device {
        /// The device.
        device: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// No bpffs where one should be.
    #[error(
        "{path} is no BPF file system and none can be mounted there: mount it (mount -t bpf bpf {path}) or run as root"
    )]
    Bpffs {
        /// The folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A folder or pin cannot be handled.
    #[error("{path} cannot be {action}")]
    Pin {
        /// The path.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The object cannot be loaded.
    #[error(
        "the BPF object cannot be loaded: needs Linux 5.18 or later with BPF, and CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    )]
    Load(#[source] Box<EbpfError>),
    /// A program is refused or missing.
    #[error("BPF program {program} cannot be used")]
    Program {
        /// The program.
        program: &'static str,
        /// The cause.
        #[source]
        source: Box<ProgramError>,
    },
    /// A program cannot be attached.
    #[error("BPF program {program} cannot be attached to {device}")]
    Attach {
        /// The program.
        program: &'static str,
        /// The device.
        device: String,
        /// The cause.
        #[source]
        source: Box<ProgramError>,
    },
    /// The object lacks something.
    #[error("the BPF object holds no {0}: build it again")]
    Missing(&'static str),
    /// A map cannot be used.
    #[error("BPF map {map} cannot be used")]
    Map {
        /// The map.
        map: &'static str,
        /// The cause.
        #[source]
        source: Box<MapError>,
    },
    /// A pinned map has another shape than this agent's.
    #[error("BPF map {map} has rows of {found} bytes where this agent has {expected}: remove its folder on bpffs")]
    Shape {
        /// The map.
        map: &'static str,
        /// Bytes of a row as the kernel has it.
        found: usize,
        /// Bytes of a row here.
        expected: usize,
    },
    /// A table cannot be mapped into memory.
    #[error("table {table} cannot be mapped into memory")]
    Memory {
        /// The table.
        table: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// What an earlier agent left cannot be kept.
    #[error("what the gates do cannot be kept: {0}")]
    NotAdopted(String),
    /// Processes' ends cannot be noticed early.
    #[error("the beginning of a process's end cannot be noticed, only that it is over")]
    Exits(#[source] io::Error),
    /// Pinning failed.
    #[error("{path} cannot be pinned")]
    Pinning {
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<PinError>,
    },
}

/// Gives an aya map error its map's name.
pub(super) fn map_error(map: &'static str) -> impl FnOnce(MapError) -> KernelError {
    move |source| KernelError::Map { map, source: Box::new(source) }
}
