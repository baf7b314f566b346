//! The kernel side as the agent sees it: loading and pinning the BPF programs, the tables shared with them, and the same
//! tables in anonymous memory where there is no BPF.
//!
//! ```text
//! attach(config) ─► Kernel ─► Tables (Arc): floors, gates, lease, peers: plain atomics, from any thread
//!                     └─► set_vips, tenures, flows, hooks: system calls, from the shell
//! ```

mod adopt;
mod bpffs;
mod device;
mod error;
mod exits;
mod flows;
mod gate;
mod hooks;
mod host;
pub mod inspect;
mod object;
mod region;
pub mod run;
mod steer;
mod tables;
mod view;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aya::programs::TcAttachType;
use baton_ebpf::{
    layout::Tenure,
    steering::FRONTS_MAX,
    wire::{INCARNATION_MAX, LINKS_MAX},
};
use tracing::warn;

pub use adopt::{adopt, pinned};
pub use error::KernelError;
pub use exits::{Exits, Watch};
pub use flows::Flow;
pub use gate::VipRow;
pub use hooks::{Chain, Hook, Mechanism};
pub use steer::{GateCounters, Path};
pub use tables::{Said, Tables};
pub use view::{Buckets, CountersView, LinkView, PeerView};

use crate::cluster::ids::{Epoch, Incarnation, Nanos, VoterId};
use gate::GateMaps;
use hooks::Attacher;
use object::{BEAT_EGRESS, BEAT_INGRESS, BEAT_XDP, GATE_EGRESS, GATE_INGRESS, GATE_OTHER, STEER_INGRESS};

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its number.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
}

/// Where heartbeats are received on a backplane link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkHook {
    /// The one that is harmless on every device: tc, because attaching native XDP resets the rings of many NICs.
    #[default]
    Auto,
    /// tc.
    Tc,
    /// Native XDP; where the driver has none, tc, and the status says so.
    Xdp,
}

/// A backplane link. Its position in [`KernelConfig::links`] is its number.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// The device that carries the link's address.
    pub device: Device,
    /// Where heartbeats are received.
    pub hook: LinkHook,
}

/// What the kernel side is to do.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// The cluster's name, for the folder on bpffs.
    pub cluster: String,
    /// The cluster's number on the wire.
    pub cluster_id: u32,
    /// The node's name, for the folder on bpffs.
    pub node: String,
    /// Where bpffs is, or is to be mounted.
    pub bpffs: PathBuf,
    /// This voter.
    pub me: VoterId,
    /// All voters of the lease, this one included.
    pub voters: Vec<VoterId>,
    /// The signing key.
    pub key: [u64; 2],
    /// The UDP port of the heartbeats, source and destination.
    pub port: u16,
    /// This agent's incarnation, 1 to 2^24 - 1.
    pub incarnation: Incarnation,
    /// The lease.
    pub lease_ns: Nanos,
    /// The backplane links, at most 4.
    pub links: Vec<LinkConfig>,
    /// The front devices, gated both ways, at most 16. Its position is a front's number.
    pub fronts: Vec<Device>,
    /// Other Ethernet devices, gated at egress. Not loopback, not the backplane.
    pub others: Vec<Device>,
    /// The gate's VIPs. The gate knows them before it is on any device.
    pub vips: Vec<VipRow>,
    /// How tc programs are chained.
    pub chain: Chain,
    /// Whether threads of the kernel side run with realtime priority.
    pub realtime: bool,
}

/// The kernel side of a running agent. Dropping it leaves programs, maps and links in place (pinned).
#[derive(Debug)]
pub struct Kernel {
    tables: Arc<Tables>,
    bpf: Option<Bpf>,
    exits: Option<Arc<Exits>>,
}

/// What only exists with BPF.
#[derive(Debug)]
struct Bpf {
    maps: Mutex<GateMaps>,
    hooks: Vec<Hook>,
    folder: PathBuf,
}

/// Loads, pins and attaches the programs, or takes over what an earlier agent left pinned, and begins an incarnation.
///
/// # Errors
/// [`KernelError`] names the part and the next step. Gates are closed and floors infinite from the first write on, also
/// when a later step fails.
pub fn attach(config: &KernelConfig) -> Result<Kernel, KernelError> {
    check(config)?;
    host::refuse_time_namespace()?;
    let fronts = config.fronts.iter().map(ethernet_address).collect::<Result<Vec<_>, _>>()?;
    for device in config.others.iter().chain(config.links.iter().map(|link| &link.device)) {
        ethernet_address(device)?;
    }
    bpffs::ensure(&config.bpffs)?;
    let node = bpffs::node_folder(&config.bpffs, &config.cluster, &config.node);
    let folder = bpffs::version_folder(&node);
    bpffs::create(&folder)?;

    let mut ebpf = object::load(Some(&folder))?;
    let tables = object::tables(&ebpf)?;
    // An earlier agent's programs may be running: first they can do nothing new, then none is left that had begun before.
    tables.quiesce();
    host::wait_for_programs();
    tables.forget_lease();
    tables.configure(config);
    for (number, (front, mac)) in config.fronts.iter().zip(fronts).enumerate() {
        tables.set_front(number, front.ifindex, mac);
    }
    // Before the programs are on the devices, and before those of another version go: a gate that does not know a VIP yet would
    // let pass what an earlier agent left on the device, while another node serves it.
    let mut maps = GateMaps::take(&mut ebpf)?;
    maps.set_vips(&tables, &config.vips)?;

    let hooks = attach_programs(&mut ebpf, &folder, &node, config)?;
    let exits = exits(&mut ebpf, config);
    tables.publish(config.incarnation);
    Ok(Kernel { tables: Arc::new(tables), bpf: Some(Bpf { maps: Mutex::new(maps), hooks, folder: node }), exits })
}

/// The same tables without BPF: the agent stamps, checks and answers by itself, and no gate is enforced.
///
/// # Errors
/// [`KernelError::Config`], memory that cannot be had, or programs of an earlier agent that cannot be removed: they would go on
/// acknowledging by their own floors what this agent promises not to.
pub fn in_memory(config: &KernelConfig) -> Result<Kernel, KernelError> {
    check(config)?;
    host::refuse_time_namespace()?;
    remove_leftovers(config)?;
    let tables = Tables::in_memory()?;
    tables.quiesce();
    tables.configure(config);
    tables.publish(config.incarnation);
    Ok(Kernel { tables: Arc::new(tables), bpf: None, exits: None })
}

/// What an earlier agent, or an attachment that failed halfway, left in the kernel would take the heartbeats away before
/// user space sees them, and answer them. Without BPF there is most often nothing.
fn remove_leftovers(config: &KernelConfig) -> Result<(), KernelError> {
    let node = bpffs::node_folder(&config.bpffs, &config.cluster, &config.node);
    let left = node.exists();
    if left {
        bpffs::remove(&node)?;
    }
    let links = config.links.iter().map(|link| &link.device);
    for device in config.fronts.iter().chain(&config.others).chain(links) {
        hooks::remove_filters(device);
    }
    if left {
        host::wait_for_programs();
    }
    Ok(())
}

/// Puts the programs on all devices, and removes what an earlier agent has left of others.
fn attach_programs(
    ebpf: &mut aya::Ebpf,
    folder: &std::path::Path,
    node: &std::path::Path,
    config: &KernelConfig,
) -> Result<Vec<Hook>, KernelError> {
    let mut attacher = Attacher { ebpf, folder, chain: config.chain, hooks: Vec::new() };
    attach_all(&mut attacher, config)?;
    attacher.remove_stale()?;
    let hooks = attacher.hooks;
    for program in object::CLASSIFIERS.into_iter().chain([BEAT_XDP]) {
        object::pin_program(ebpf, program, folder)?;
    }
    bpffs::remove_other_versions(node)?;
    Ok(hooks)
}

fn attach_all(attacher: &mut Attacher<'_>, config: &KernelConfig) -> Result<(), KernelError> {
    // The gate first: nothing is served that it has not seen.
    for front in &config.fronts {
        attacher.tc(GATE_INGRESS, front, TcAttachType::Ingress, None)?;
        attacher.tc(GATE_EGRESS, front, TcAttachType::Egress, None)?;
    }
    for other in &config.others {
        attacher.tc(GATE_OTHER, other, TcAttachType::Egress, None)?;
    }
    for link in &config.links {
        attacher.tc(BEAT_EGRESS, &link.device, TcAttachType::Egress, None)?;
        // Before the heartbeats' program, so that in a TCX chain that one comes first.
        attacher.tc(STEER_INGRESS, &link.device, TcAttachType::Ingress, None)?;
        let refused = match link.hook {
            LinkHook::Xdp => attacher.xdp(&link.device).err(),
            LinkHook::Auto | LinkHook::Tc => None,
        };
        if link.hook != LinkHook::Xdp || refused.is_some() {
            let fallback = refused.map(|error| text(&error));
            attacher.tc(BEAT_INGRESS, &link.device, TcAttachType::Ingress, fallback)?;
        }
    }
    Ok(())
}

/// The MAC address of a device, which must have Ethernet headers.
fn ethernet_address(device: &Device) -> Result<[u8; 6], KernelError> {
    let seen =
        device::look(device.ifindex).map_err(|source| KernelError::Device { device: device.name.clone(), source })?;
    seen.mac.ok_or_else(|| {
        KernelError::Config(format!("{} is no Ethernet device: backplane links and gated devices must be", device.name))
    })
}

/// Early notice of processes' ends is a convenience: without it they are noticed by their descriptors.
fn exits(ebpf: &mut aya::Ebpf, config: &KernelConfig) -> Option<Arc<Exits>> {
    let attached = Exits::attach(ebpf, config.realtime);
    attached.map(Arc::new).map_err(|error| warn!(error = text(&error), "ends of processes are noticed late")).ok()
}

/// An error with its causes, in one line.
fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn check(config: &KernelConfig) -> Result<(), KernelError> {
    let wrong = |text: String| Err(KernelError::Config(text));
    if config.incarnation == 0 || config.incarnation > INCARNATION_MAX {
        return wrong(format!("incarnation {} is not between 1 and {INCARNATION_MAX}", config.incarnation));
    }
    if let Some(voter) = config.voters.iter().find(|voter| voter.0 == 0 || voter.0 > VoterId::MAX) {
        return wrong(format!("voter {voter} is not between 1 and {}", VoterId::MAX));
    }
    if (1..config.voters.len()).any(|end| config.voters[..end].contains(&config.voters[end])) {
        return wrong("a voter is named twice".into());
    }
    if !config.voters.contains(&config.me) {
        return wrong(format!("voter {} is this machine, but not among the voters", config.me));
    }
    if config.links.len() > LINKS_MAX {
        return wrong(format!("{} backplane links are more than {LINKS_MAX}", config.links.len()));
    }
    if config.fronts.len() > FRONTS_MAX {
        return wrong(format!("{} front devices are more than {FRONTS_MAX}", config.fronts.len()));
    }
    if config.port == 0 || config.lease_ns == 0 {
        return wrong("the heartbeat port and the lease must not be 0".into());
    }
    Ok(())
}

impl Kernel {
    /// The tables, to be shared with the pulse thread and the core's driver.
    pub fn tables(&self) -> Arc<Tables> {
        Arc::clone(&self.tables)
    }

    /// Whether the gate is enforced, by BPF programs.
    pub fn enforced(&self) -> bool {
        self.bpf.is_some()
    }

    /// The front devices that the gate is on, by number and name; `None` where nothing is enforced.
    pub fn gated(&self) -> Option<Vec<Device>> {
        self.bpf.as_ref()?;
        let hooks = self.hooks().iter().filter(|hook| hook.program == GATE_INGRESS);
        Some(hooks.map(|hook| hook.device.clone()).collect())
    }

    /// Makes these the gate's VIPs. New ones are added before old ones are removed.
    ///
    /// # Errors
    /// A map that is full or refuses an entry.
    pub fn set_vips(&self, vips: &[VipRow]) -> Result<(), KernelError> {
        match &self.bpf {
            Some(bpf) => bpf.maps().set_vips(&self.tables, vips),
            None => Ok(()),
        }
    }

    /// What the gate let through, by group slot and epoch; the oldest may be forgotten. Nothing without BPF.
    ///
    /// # Errors
    /// A map that cannot be read.
    pub fn tenures(&self) -> Result<Vec<(u32, Epoch, Tenure)>, KernelError> {
        match &self.bpf {
            Some(bpf) => bpf.maps().tenures(),
            None => Ok(Vec::new()),
        }
    }

    /// The flows of protocols without connections that this node served for a group at or after `since` (boot clock, ns): what
    /// the next owner must know before it announces. Nothing without BPF. Takes milliseconds when there are many.
    ///
    /// # Errors
    /// A map that cannot be read.
    pub fn recent_flows(&self, slot: u32, since: Nanos) -> Result<Vec<Flow>, KernelError> {
        match &self.bpf {
            Some(bpf) => bpf.maps().flows().recent(slot, since),
            None => Ok(Vec::new()),
        }
    }

    /// Learns flows that the peer of a move serves. One that this node has served since is left alone. Nothing without BPF.
    ///
    /// # Errors
    /// A map that refuses an entry.
    pub fn learn_flows(&self, slot: u32, flows: &[Flow]) -> Result<(), KernelError> {
        match &self.bpf {
            Some(bpf) => bpf.maps().flows().learn(slot, flows),
            None => Ok(()),
        }
    }

    /// Early notice of the ends of processes. None without BPF, in a process namespace, or where the kernel refuses it.
    pub fn exits(&self) -> Option<Arc<Exits>> {
        self.exits.clone()
    }

    /// The programs and the devices that they are attached to.
    pub fn hooks(&self) -> &[Hook] {
        self.bpf.as_ref().map_or(&[], |bpf| &bpf.hooks)
    }

    /// Front devices with an XDP program of somebody else's, and its number: what it handles never meets the gate.
    /// To be called in the agent's network namespace.
    ///
    /// # Errors
    /// A front that does not exist any more, or netlink that cannot be used.
    pub fn bypasses(&self) -> io::Result<Vec<(Device, u32)>> {
        let mut found = Vec::new();
        for hook in self.hooks().iter().filter(|hook| hook.program == GATE_INGRESS) {
            if let Some(program) = device::look(hook.device.ifindex)?.xdp
                && !self.hooks().iter().any(|own| own.program_id == program)
            {
                found.push((hook.device.clone(), program));
            }
        }
        Ok(found)
    }

    /// Takes everything out of the kernel: programs, links, maps. Nothing is gated afterwards.
    ///
    /// # Errors
    /// A pin that cannot be removed.
    pub fn unpin_all(self) -> Result<(), KernelError> {
        let Some(bpf) = self.bpf else {
            return Ok(());
        };
        for hook in &bpf.hooks {
            hook.remove_filter();
        }
        bpffs::remove(&bpf.folder)
    }
}

impl Bpf {
    /// The maps hold no invariant that a panic elsewhere could break.
    fn maps(&self) -> MutexGuard<'_, GateMaps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
