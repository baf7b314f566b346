//! Attaching programs to devices: TCX from Linux 6.6, clsact below, XDP where it is asked for and native.
//!
//! TCX and XDP links are pinned, so that they outlive the agent and the next one swaps its programs in without a gap.
//! A clsact filter stays by itself; the next agent replaces it under the same priority and handle.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, ProgramInfo, SchedClassifier, TcAttachType, XdpMode,
        links::{FdLink, LinkError, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
    },
    util::KernelVersion,
};

use super::{
    Device, bpffs, device,
    error::KernelError,
    object::{self, BEAT_EGRESS, BEAT_INGRESS, BEAT_XDP, GATE_EGRESS, GATE_INGRESS, GATE_OTHER},
};

/// How tc programs are chained on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chain {
    /// TCX where the kernel has it (6.6), else clsact.
    #[default]
    Auto,
    /// clsact always.
    Clsact,
}

impl Chain {
    fn tcx(self) -> bool {
        self == Self::Auto && KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
    }
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// A TCX link.
    Tcx,
    /// A clsact filter.
    Clsact,
    /// Native XDP.
    Xdp,
}

/// A program on a device, for status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The program's name.
    pub program: &'static str,
    /// The device.
    pub device: Device,
    /// How.
    pub mechanism: Mechanism,
    /// The way, for tc.
    pub(super) direction: Option<TcAttachType>,
    /// The program's number in the kernel.
    pub(super) program_id: u32,
    /// Why it is not attached as was asked for.
    pub fallback: Option<String>,
}

/// The handle of clsact filters: the first that there is.
const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 1);

/// Attaches programs of one object, and keeps the list of what is attached.
pub(super) struct Attacher<'a> {
    pub(super) ebpf: &'a mut Ebpf,
    pub(super) folder: &'a Path,
    pub(super) chain: Chain,
    pub(super) hooks: Vec<Hook>,
}

impl Attacher<'_> {
    /// Attaches a tc program first in its chain, or swaps it into its pinned link.
    pub(super) fn tc(
        &mut self,
        program: &'static str,
        device: &Device,
        direction: TcAttachType,
        fallback: Option<String>,
    ) -> Result<(), KernelError> {
        let pin = self.pin(program, device);
        let priority = priority(program);
        let classifier = object::classifier(self.ebpf, program)?;
        let error = attach_error(program, device);
        let mechanism = if self.chain.tcx() { Mechanism::Tcx } else { Mechanism::Clsact };
        match mechanism {
            Mechanism::Tcx => tcx(classifier, device, direction, &pin).map_err(error)?,
            _ => clsact(classifier, device, direction, program, priority).map_err(error)?,
        }
        let program_id = classifier.info().map_err(object::program_error(program))?.id();
        self.hooks.push(Hook {
            program,
            device: device.clone(),
            mechanism,
            direction: Some(direction),
            program_id,
            fallback,
        });
        Ok(())
    }

    /// Attaches the XDP program in native mode, or swaps it into its pinned link.
    pub(super) fn xdp(&mut self, device: &Device) -> Result<(), KernelError> {
        let pin = self.pin(BEAT_XDP, device);
        let program = object::xdp(self.ebpf, BEAT_XDP)?;
        let error = attach_error(BEAT_XDP, device);
        let attached = (|| {
            if let Some(old) = pinned(&pin) {
                if let Ok(link) = old.try_into()
                    && let Ok(id) = program.attach_to_link(link)
                    && device::look(device.ifindex)?.xdp == Some(program.info()?.id())
                {
                    return keep(owned(program.take_link(id)?)?, &pin);
                }
                forget(&pin)?;
            }
            let id = program.attach_to_if_index(device.ifindex, XdpMode::Driver)?;
            keep(owned(program.take_link(id)?)?, &pin)
        })();
        attached.map_err(error)?;
        let program_id = program.info().map_err(object::program_error(BEAT_XDP))?.id();
        self.hooks.push(Hook {
            program: BEAT_XDP,
            device: device.clone(),
            mechanism: Mechanism::Xdp,
            direction: None,
            program_id,
            fallback: None,
        });
        Ok(())
    }

    /// Removes the links of devices and programs that are no longer configured.
    pub(super) fn remove_stale(&self) -> Result<(), KernelError> {
        let wanted: Vec<_> = self.hooks.iter().map(|hook| link_name(hook.program, &hook.device)).collect();
        for name in bpffs::names(self.folder)? {
            if name.starts_with(LINK_PREFIX) && !wanted.contains(&name) {
                bpffs::remove(&self.folder.join(name))?;
            }
        }
        Ok(())
    }

    fn pin(&self, program: &str, device: &Device) -> PathBuf {
        self.folder.join(link_name(program, device))
    }
}

const LINK_PREFIX: &str = "link_";

/// By interface number: names may hold dots, which bpffs reserves, and move between devices.
fn link_name(program: &str, device: &Device) -> String {
    format!("{LINK_PREFIX}{program}_{}", device.ifindex)
}

fn attach_error(program: &'static str, device: &Device) -> impl FnOnce(ProgramError) -> KernelError + use<> {
    let device = device.name.clone();
    move |source| KernelError::Attach { program, device, source: Box::new(source) }
}

fn tcx(
    program: &mut SchedClassifier,
    device: &Device,
    direction: TcAttachType,
    pin: &Path,
) -> Result<(), ProgramError> {
    if let Some(old) = pinned(pin) {
        // A link whose device is gone refuses the update, and a device that was moved to another namespace may have left
        // its number to this one: only a program that is seen on the device counts.
        if let Ok(link) = old.try_into()
            && let Ok(id) = program.attach_to_link(link)
            && position(device, direction, program.info()?.id()).is_some()
        {
            return keep(owned(program.take_link(id)?)?, pin);
        }
        forget(pin)?;
    }
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(&device.name, direction, first)?;
    keep(owned(program.take_link(id)?)?, pin)
}

/// How many programs of others run before ours in a device's TCX chain; `None` when ours is not there.
fn position(device: &Device, direction: TcAttachType, program: u32) -> Option<usize> {
    let (_, programs) = SchedClassifier::query_tcx(&device.name, direction).ok()?;
    let ours = programs.iter().position(|known| known.id() == program)?;
    // A device that is front and backplane at once has several of ours, in any order.
    let foreign = |known: &&ProgramInfo| !known.name_as_str().is_some_and(|name| object::CLASSIFIERS.contains(&name));
    Some(programs[..ours].iter().filter(foreign).count())
}

/// Removes the clsact filters of any agent from a device; that there are none is no error.
pub(super) fn remove_filters(device: &Device) {
    for program in object::CLASSIFIERS {
        for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
            if let Err(error) = tc::qdisc_detach_program(&device.name, direction, program) {
                tracing::trace!(device = device.name, program, %error, "no filter to remove");
            }
        }
    }
}

/// The priority of a clsact filter: the same at every start, so that the next agent finds it, and another one for each
/// kind, so that on a device that is front and backplane at once none replaces another. Steering comes last.
fn priority(program: &str) -> u16 {
    match program {
        GATE_INGRESS | GATE_EGRESS | GATE_OTHER => 1,
        BEAT_INGRESS | BEAT_EGRESS => 2,
        _ => 3,
    }
}

fn clsact(
    program: &mut SchedClassifier,
    device: &Device,
    direction: TcAttachType,
    name: &'static str,
    priority: u16,
) -> Result<(), ProgramError> {
    // It is there already, or the attachment below says what is wrong.
    if let Err(error) = tc::qdisc_add_clsact(&device.name) {
        tracing::debug!(device = device.name, %error, "clsact not added");
    }
    let known = SchedClassifierLink::attached(&device.name, direction, priority, CLSACT_HANDLE, None)
        .map_err(|error| ProgramError::TcError(error.into()))?;
    let id = match program.attach_to_link(known) {
        Ok(id) => id,
        Err(error) => {
            tracing::debug!(device = device.name, program = name, %error, "no filter to replace");
            let options = NlOptions { priority, handle: CLSACT_HANDLE, classid: None };
            program.attach_with_options(&device.name, direction, TcAttachOptions::Netlink(options))?
        }
    };
    // The filter is to outlive this process; dropping the handle would remove it.
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

fn pinned(pin: &Path) -> Option<FdLink> {
    pin.exists().then(|| PinnedLink::from_pin(pin).ok()).flatten().map(FdLink::from)
}

/// A link of a program as one by file descriptor; older kernels' XDP has none.
fn owned(link: impl TryInto<FdLink, Error = LinkError>) -> Result<FdLink, ProgramError> {
    link.try_into().map_err(|error| ProgramError::IOError(io::Error::other(error)))
}

/// Pins a link; one that was adopted is pinned already.
fn keep(link: FdLink, pin: &Path) -> Result<(), ProgramError> {
    if pin.exists() {
        return Ok(());
    }
    link.pin(pin).map(drop).map_err(|error| ProgramError::IOError(io::Error::other(error)))
}

fn forget(pin: &Path) -> Result<(), ProgramError> {
    std::fs::remove_file(pin).map_err(ProgramError::IOError)
}

impl Hook {
    /// Whether no program of others runs before this one in its chain; `None` for what has no chain to ask about (clsact, XDP).
    /// To be called in the agent's network namespace.
    pub fn is_first(&self) -> Option<bool> {
        match (self.mechanism, self.direction) {
            (Mechanism::Tcx, Some(direction)) => Some(position(&self.device, direction, self.program_id) == Some(0)),
            _ => None,
        }
    }

    /// Removes a clsact filter. TCX and XDP links go with their pins.
    pub(super) fn remove_filter(&self) {
        if let (Mechanism::Clsact, Some(direction)) = (self.mechanism, self.direction)
            && let Err(error) = tc::qdisc_detach_program(&self.device.name, direction, self.program)
        {
            tracing::warn!(device = self.device.name, program = self.program, %error, "filter not removed");
        }
    }
}
