//! The steps of a mount that call the kernel, and what its refusals mean.

use std::{fs, io, os::unix::fs::DirBuilderExt as _, path::Path};

use rustix::{
    io::Errno,
    mount::{MountFlags, mount},
};

use super::{
    holders::{Wanted, holders, named},
    look::{Seen, describe},
    mountinfo,
    options::Options,
    target::{Target, Unusable},
};
use crate::config::kinds::Filesystem;

/// A failure: what it is about, what happened, the kernel's number, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The object.
    pub object: String,
    /// What happened to it.
    pub cause: String,
    /// The kernel's error, if there is one.
    pub errno: Option<i32>,
    /// What to do.
    pub remedy: String,
}

impl Failure {
    /// A failure that is no error of the kernel.
    pub fn new(object: impl Into<String>, cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { object: object.into(), cause: cause.into(), errno: None, remedy: remedy.into() }
    }

    /// An error of the kernel.
    pub fn kernel(object: impl Into<String>, call: &str, error: &io::Error, remedy: impl Into<String>) -> Self {
        Self { errno: error.raw_os_error(), ..Self::new(object, format!("{call}: {error}"), remedy) }
    }
}

/// What is the case before a mount.
#[derive(Clone, Debug)]
pub enum Before {
    /// It is mounted already.
    Runs(Target),
    /// It can be mounted, the device being this.
    Free(Target),
    /// The device is not there yet.
    Wait(String),
}

/// Looks whether it can be mounted: nothing else stands there, and the device is mounted and claimed nowhere.
///
/// # Errors
/// [`Failure`].
pub fn before(spec: &Filesystem) -> Result<Before, Failure> {
    let point = spec.mount.display().to_string();
    let tables = |e: io::Error| Failure::kernel("/proc", "the mount table cannot be read", &e, "mount proc on /proc");
    let seen = Seen::look(spec, None).map_err(tables)?;
    let target = match &seen.target {
        Ok(target) => target.clone(),
        Err(Unusable::Missing(path)) => return Ok(Before::Wait(path.display().to_string())),
        Err(Unusable::NoDevice(path)) => {
            let help = "name a block device; an image must be attached to a loop device first (losetup)";
            return Err(Failure::new(path.display().to_string(), "it is no block device", help));
        }
        Err(Unusable::Unreadable(path, cause, errno)) => {
            let failure = Failure::new(path.display().to_string(), cause, "correct the permissions, or `device`");
            return Err(Failure { errno: *errno, ..failure });
        }
    };
    if let Some(top) = &seen.top {
        if target.is_of(top) {
            return Ok(Before::Runs(target));
        }
        let remedy = format!("unmount it (`umount {point}`), or choose another folder");
        return Err(Failure::new(&point, format!("{} is mounted there", describe(top)), remedy));
    }
    let device = match &target {
        Target::Block { path, .. } => path.display().to_string(),
        Target::Network(_) => return Ok(Before::Free(target)),
    };
    let namespaces = mountinfo::elsewhere().map_err(tables)?;
    if let Some(mount) = seen.copies(spec).next() {
        let at = mount.point.display();
        let cause = format!("it is mounted already, on {at}");
        return Err(Failure::new(device, cause, format!("unmount it there: `umount {at}`")));
    }
    if let Some((namespace, mount)) = seen.abroad(spec, &namespaces).next() {
        let (at, pid) = (mount.point.display(), namespace.pid);
        let cause =
            format!("it is mounted already, on {at} in the mount namespace of {} (process {pid})", namespace.name);
        return Err(Failure::new(device, cause, format!("unmount it there: `nsenter -m -t {pid} umount {at}`")));
    }
    match target.is_claimed() {
        Ok(false) => Ok(Before::Free(target)),
        Ok(true) => Err(claimed(&target, &device)),
        Err(e) => Err(Failure::kernel(device, "open(2)", &e, unopened(&e))),
    }
}

fn claimed(target: &Target, device: &str) -> Failure {
    let claimants = target.claimants();
    if !claimants.is_empty() {
        let cause = format!("it is part of {}", claimants.join(", "));
        return Failure::new(device, cause, "mount that instead, or take it apart");
    }
    let hidden = match target {
        Target::Block { dev, .. } => holders(&Wanted::hidden(*dev)).unwrap_or_default(),
        Target::Network(_) => Vec::new(),
    };
    let cause = "the kernel has it claimed, although no mount of it is to be seen: a lazy unmount, a program that has it \
                 for itself, or a mount namespace without a process";
    let remedy = match hidden.as_slice() {
        [] => "find who has it open (`lsof`), or restart the machine".to_owned(),
        found => format!("end these: {}", named(found, &[])),
    };
    Failure::new(device, cause, remedy)
}

fn unopened(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EMEDIUMTYPE) => "a replica of DRBD must be primary first".to_owned(),
        Some(libc::ENOMEDIUM | libc::ENXIO | libc::ENODEV) => "the device has no medium, or is gone".to_owned(),
        _ => "see what the kernel says of the device (dmesg)".to_owned(),
    }
}

/// Sees to it that there is a folder to mount on.
///
/// # Errors
/// [`Failure`].
pub fn folder(spec: &Filesystem) -> Result<(), Failure> {
    let point = spec.mount.display().to_string();
    match fs::symlink_metadata(&spec.mount) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(metadata) if metadata.is_symlink() => {
            let help = "name the folder to which it leads";
            Err(Failure::new(point, "it is a symbolic link", help))
        }
        Ok(_) => Err(Failure::new(point, "it is no folder", "choose another one")),
        Err(e) if e.kind() == io::ErrorKind::NotFound && spec.create => {
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(&spec.mount);
            made.map_err(|e| Failure::kernel(&point, "it cannot be made", &e, "make it by hand"))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let remedy = format!("make it on every node (`mkdir -p {point}`), or write `create = true`");
            Err(Failure::kernel(&point, "there is no such folder", &e, remedy))
        }
        Err(e) => Err(Failure::kernel(&point, "it cannot be looked at", &e, "see its permissions")),
    }
}

/// mount(2).
///
/// # Errors
/// [`Failure`], in words.
pub fn mount_block(spec: &Filesystem, device: &Path) -> Result<(), Failure> {
    let object = format!("{} on {}", device.display(), spec.mount.display());
    let options = Options::read(&spec.options)
        .map_err(|e| Failure::new(&object, format!("an option cannot be given: {e}"), "correct `options`"))?;
    mount(device, &spec.mount, spec.fs_type.as_str(), options.flags, options.data.as_deref()).map_err(|errno| {
        let remedy = remedy(errno, spec, device, options.flags);
        Failure { errno: Some(errno.raw_os_error()), ..Failure::new(object, format!("mount(2): {errno}"), remedy) }
    })
}

fn remedy(errno: Errno, spec: &Filesystem, device: &Path, flags: MountFlags) -> String {
    let (kind, device) = (&spec.fs_type, device.display());
    match errno {
        Errno::INVAL => format!(
            "there is no {kind} on it, or an option is unknown: see `blkid -p {device}` and what the kernel says (dmesg)"
        ),
        Errno::NODEV => format!("the kernel knows no {kind}: `modprobe {kind}`, or correct `type`"),
        Errno::BUSY => "the device or the folder is in use".to_owned(),
        Errno::ROFS | Errno::ACCESS if !flags.contains(MountFlags::RDONLY) => {
            "the device is write-protected: mount it with the option \"ro\", or make it writable".to_owned()
        }
        Errno::UCLEAN | Errno::BADMSG | Errno::IO => match kind.as_str() {
            "xfs" => format!("the filesystem is damaged or the device fails: see dmesg, then `xfs_repair {device}`"),
            _ => format!("the filesystem is damaged or the device fails: see dmesg, then `fsck.{kind} {device}`"),
        },
        Errno::PERM => {
            "the agent may not mount: it needs CAP_SYS_ADMIN, and a unit without restrictions on mounts".to_owned()
        }
        Errno::NOTBLK => "name a block device".to_owned(),
        _ => "see what the kernel says (dmesg)".to_owned(),
    }
}
