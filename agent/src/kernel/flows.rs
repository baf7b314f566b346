//! The table of flows as user space reads and fills it: what the next owner of a group must know of protocols without
//! connections.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use aya::{
    Pod,
    maps::{HashMap, Map, MapData, MapError},
    sys::SyscallError,
};
use baton_ebpf::steering::{FLOWS_MAX, FlowKey, FlowState, HOME_LOCAL, HOME_PEER};
use serde::{Deserialize, Serialize};

use super::{
    error::{KernelError, map_error},
    gate,
    object::FLOWS,
};
use crate::{clock, cluster::ids::Nanos};

/// A flow of a protocol without connections, as its packets arrive at the VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// The client.
    pub source: IpAddr,
    /// The VIP.
    pub destination: IpAddr,
    /// The client's port; 0 where the protocol has none.
    pub source_port: u16,
    /// The VIP's port; 0 where the protocol has none.
    pub destination_port: u16,
    /// The IP protocol.
    pub protocol: u8,
    /// How long ago its last packet came, ns: an instant would mean nothing on another machine.
    pub age_ns: Nanos,
}

/// A key as aya wants it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
struct Key(FlowKey);
// SAFETY: integers without padding between them.
unsafe impl Pod for Key {}

/// A value as aya wants it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
struct State(FlowState);
// SAFETY: integers without padding between them.
unsafe impl Pod for State {}

/// The table of flows.
#[derive(Debug)]
pub(super) struct Flows {
    map: HashMap<MapData, Key, State>,
    fd: OwnedFd,
}

const IPPROTO_TCP: u8 = 6;

impl Flows {
    /// The map of a loaded object.
    pub(super) fn take(map: Map) -> Result<Self, KernelError> {
        let Map::LruHashMap(data) = &map else {
            return Err(KernelError::Missing(FLOWS));
        };
        let fd = data.fd().as_fd().try_clone_to_owned().map_err(syscall("dup"))?;
        Ok(Self { map: HashMap::try_from(map).map_err(map_error(FLOWS))?, fd })
    }

    /// A group's flows of protocols without connections whose home is here, last seen at or after `since`.
    pub(super) fn recent(&self, slot: u32, since: Nanos) -> Result<Vec<Flow>, KernelError> {
        let now = clock::now();
        // By key: a table that is written meanwhile may show an entry twice.
        let mut found = BTreeMap::new();
        read_all(&self.fd, |key, state| {
            if state.slot == slot && state.home == HOME_LOCAL && key.protocol != IPPROTO_TCP && state.last_seen >= since
            {
                let flow = flow(key, now.saturating_sub(state.last_seen));
                found
                    .insert((flow.source, flow.destination, key.source_port, key.destination_port, key.protocol), flow);
            }
        })?;
        Ok(found.into_values().collect())
    }

    /// Records flows as the peer's. One that was seen here since, as this node's own, stays.
    pub(super) fn learn(&mut self, slot: u32, flows: &[Flow]) -> Result<(), KernelError> {
        const BPF_NOEXIST: u64 = 1;
        let now = clock::now();
        for flow in flows {
            let key = Key(flow_key(flow));
            let state = State(FlowState { last_seen: now.saturating_sub(flow.age_ns), home: HOME_PEER, slot });
            match self.map.get(&key, 0) {
                Ok(State(known)) if known.home == HOME_LOCAL && known.last_seen >= state.0.last_seen => continue,
                Ok(_) => self.map.remove(&key).or_else(absent)?,
                Err(error) => absent(error)?,
            }
            // A program that recorded the flow meanwhile knows better.
            if let Err(error) = self.map.insert(key, state, BPF_NOEXIST)
                && !exists(&error)
            {
                return Err(map_error(FLOWS)(error));
            }
        }
        Ok(())
    }
}

/// That an entry is not there is no error.
fn absent(error: MapError) -> Result<(), KernelError> {
    match error {
        MapError::KeyNotFound => Ok(()),
        MapError::SyscallError(ref call) if call.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        error => Err(map_error(FLOWS)(error)),
    }
}

fn exists(error: &MapError) -> bool {
    matches!(error, MapError::SyscallError(call) if call.io_error.raw_os_error() == Some(libc::EEXIST))
}

fn syscall(call: &'static str) -> impl FnOnce(io::Error) -> KernelError {
    move |io_error| map_error(FLOWS)(MapError::SyscallError(SyscallError { call, io_error }))
}

fn flow(key: &FlowKey, age_ns: Nanos) -> Flow {
    Flow {
        source: address(&key.source),
        destination: address(&key.destination),
        source_port: u16::from_be(key.source_port),
        destination_port: u16::from_be(key.destination_port),
        protocol: key.protocol,
        age_ns,
    }
}

fn flow_key(flow: &Flow) -> FlowKey {
    FlowKey {
        source: words(flow.source),
        destination: words(flow.destination),
        source_port: flow.source_port.to_be(),
        destination_port: flow.destination_port.to_be(),
        protocol: flow.protocol,
        reserved: [0; 3],
    }
}

fn address(words: &[u32; 4]) -> IpAddr {
    let mut bytes = [0; 16];
    for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
}

fn words(address: IpAddr) -> [u32; 4] {
    let bytes = gate::key(address);
    let (chunks, _) = bytes.as_chunks::<4>();
    std::array::from_fn(|i| u32::from_ne_bytes(chunks[i]))
}

/// The part of `union bpf_attr` for the batch commands (linux/bpf.h).
#[derive(Default)]
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Reads the whole table, thousands of entries a system call: one by one it would take a tenth of a second.
fn read_all(fd: &OwnedFd, mut each: impl FnMut(&FlowKey, &FlowState)) -> Result<(), KernelError> {
    const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
    const AT_ONCE: usize = 4096;
    /// A call ends with a bucket that does not fit any more; a bucket holds a few entries.
    const CALLS_MAX: usize = 4 * FLOWS_MAX / AT_ONCE;
    let mut keys = vec![FlowKey::default(); AT_ONCE];
    let mut values = vec![FlowState::default(); AT_ONCE];
    // The kernel's position in the table: of a hash map a bucket's number.
    let mut position = 0u64;
    for call in 0..CALLS_MAX {
        let place = (&raw mut position) as u64;
        let mut batch = Batch {
            in_batch: if call == 0 { 0 } else { place },
            out_batch: place,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: AT_ONCE as u32,
            map_fd: fd.as_raw_fd() as u32,
            ..Batch::default()
        };
        // SAFETY: the buffers hold `count` keys and values of the map's sizes, and live through the call.
        let done =
            unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut batch, size_of::<Batch>() as u32) };
        let error = io::Error::last_os_error();
        let finished = done != 0 && error.raw_os_error() == Some(libc::ENOENT);
        if done != 0 && !finished {
            return Err(syscall("bpf_map_lookup_batch")(error));
        }
        let count = (batch.count as usize).min(AT_ONCE);
        keys[..count].iter().zip(&values[..count]).for_each(|(key, state)| each(key, state));
        if finished {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_comes_back_from_its_key() {
        for (source, destination) in [("192.0.2.1", "192.0.2.2"), ("fd00::1", "fd00::2")] {
            let known = Flow {
                source: source.parse().expect("an address"),
                destination: destination.parse().expect("an address"),
                source_port: 1234,
                destination_port: 53,
                protocol: 17,
                age_ns: 5,
            };
            let key = flow_key(&known);
            assert_eq!(key.source_port.to_ne_bytes(), 1234u16.to_be_bytes());
            assert_eq!(flow(&key, 5), known);
        }
    }
}
