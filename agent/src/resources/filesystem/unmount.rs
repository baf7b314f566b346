//! One attempt to unmount: all copies of the mount first, in all namespaces, then the mount itself; and whether it is really
//! gone. A lazy unmount is never done: the device stays claimed until the last file is closed.

use std::{fs::File, io, path::PathBuf};

use rustix::{
    io::Errno,
    mount::{UnmountFlags, unmount},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};
use std::os::fd::AsFd as _;

use super::{
    holders::{Holder, Wanted, holders, others},
    look::{self, Seen, describe},
    mountinfo::{self, Mount},
    target::{Target, Unusable},
};
use crate::config::kinds::{Busy, Filesystem};

/// What an attempt came to.
#[derive(Clone, Debug)]
pub enum Attempt {
    /// Nothing of it is mounted anywhere on this machine.
    Gone,
    /// It is still in use.
    InUse(Report),
    /// What is there is not this resource's.
    Foreign(String),
    /// The kernel refuses.
    Refused {
        /// What could not be done.
        what: String,
        /// Why.
        errno: i32,
    },
}

/// Who stands in the way.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was looked for, to look again before a signal is sent.
    pub wanted: Wanted,
    /// Processes.
    pub holders: Vec<Holder>,
    /// Anything else.
    pub others: Vec<String>,
}

/// What opening a device gives that nobody can have mounted.
const ABSENT: [i32; 5] = [libc::ENOENT, libc::ENXIO, libc::ENODEV, libc::ENOMEDIUM, libc::EMEDIUMTYPE];

/// Tries once. `mine`: it was mounted by this agent, so all its copies go too. `force`: requests to a server that does not
/// answer are given up (MNT_FORCE).
///
/// # Errors
/// The kernel's, when its tables cannot be read.
pub fn attempt(spec: &Filesystem, known: Option<&Target>, mine: bool, force: bool) -> io::Result<Attempt> {
    let seen = Seen::look(spec, known)?;
    let namespaces = mountinfo::elsewhere()?;
    let runs = seen.runs(spec);
    if seen.is_root(spec) {
        return Ok(Attempt::Foreign("it is the filesystem on which this machine runs".to_owned()));
    }
    if let (Err(Unusable::NoDevice(path)), Some(_)) = (&seen.target, &seen.top) {
        return Ok(Attempt::Foreign(format!(
            "{} is no block device, so what is mounted cannot be told",
            path.display()
        )));
    }
    if let Some(top) = seen.top.as_ref().filter(|_| !runs)
        && seen.target.is_ok()
        && seen.mounts.iter().any(|m| m.point == seen.point && seen.is_ours(m, spec))
    {
        return Ok(Attempt::Foreign(format!("{} is mounted over it", describe(top))));
    }
    if !runs && !mine && seen.target.is_ok() {
        let places = seen.copies(spec).map(|m| (None, m));
        if let Some((namespace, mount)) = places.chain(seen.abroad(spec, &namespaces).map(|(n, m)| (Some(n), m))).next()
        {
            let at = mount.point.display();
            return Ok(Attempt::Foreign(match namespace {
                Some(n) => format!("it is mounted on {at} in the mount namespace of {} (process {})", n.name, n.pid),
                None => format!("it is mounted on {at}"),
            }));
        }
    }
    // Without its device, what is not ours at the folder cannot be told from ours elsewhere; there is nothing to take away.
    if seen.target.is_err() && !runs {
        return Ok(Attempt::Gone);
    }
    let mut report = Report::default();
    let take = spec.busy == Busy::Kill;
    for (namespace, mount) in seen.abroad(spec, &namespaces) {
        let beneath = look::beneath(&namespace.mounts, &mount.point).into_iter().filter(|_| take);
        let mut points: Vec<PathBuf> = beneath.map(|m| m.point.clone()).collect();
        points.push(mount.point.clone());
        if let Err(error) = unmount_abroad(namespace.pid, points) {
            let at = mount.point.display();
            report.others.push(format!(
                "{} (process {}), in whose mount namespace it is mounted on {at} ({error})",
                namespace.name, namespace.pid
            ));
        }
    }
    let more: Vec<&Mount> =
        look::beneath(&seen.mounts, &seen.point).into_iter().filter(|_| runs).chain(seen.copies(spec)).collect();
    for mount in more {
        let at = mount.point.display();
        match take.then(|| unmount(&mount.point, UnmountFlags::NOFOLLOW)) {
            Some(Ok(()) | Err(Errno::INVAL | Errno::NOENT)) => {}
            Some(Err(error)) => report.others.push(format!("the mount of {} on {at} ({error})", describe(mount))),
            None => report.others.push(format!("the mount of {} on {at} (end it by `umount {at}`)", describe(mount))),
        }
    }
    if report.others.is_empty()
        && let Some(refused) = unmount_here(&seen, spec, force)
    {
        return Ok(refused);
    }
    let left = still(spec, known, &seen)?;
    if left.is_none() && report.others.is_empty() {
        return Ok(Attempt::Gone);
    }
    report.wanted = left.unwrap_or_default();
    report.holders = holders(&report.wanted)?;
    report.others.extend(others(&report.wanted));
    Ok(Attempt::InUse(report))
}

/// Unmounts what stands at the folder, as often as it stands there; what is busy is no refusal.
fn unmount_here(seen: &Seen, spec: &Filesystem, force: bool) -> Option<Attempt> {
    let flags = if force { UnmountFlags::NOFOLLOW | UnmountFlags::FORCE } else { UnmountFlags::NOFOLLOW };
    let at = seen.mounts.iter().filter(|m| m.point == seen.point);
    // From the top down, and never through somebody else's.
    let mut stack: Vec<&Mount> = at.collect();
    stack.sort_by_key(|m| std::cmp::Reverse(m.id));
    for mount in stack {
        if !seen.is_ours(mount, spec) {
            return None;
        }
        match unmount(&seen.point, flags) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(Errno::BUSY) => return None,
            Err(errno) => {
                let what = format!("umount(2) of {}: {errno}", seen.point.display());
                return Some(Attempt::Refused { what, errno: errno.raw_os_error() });
            }
        }
    }
    None
}

/// What is still mounted anywhere; `None` when nothing is, and the kernel lets the device be claimed.
fn still(spec: &Filesystem, known: Option<&Target>, before: &Seen) -> io::Result<Option<Wanted>> {
    let seen = Seen::look(spec, known)?;
    let namespaces = mountinfo::elsewhere()?;
    let ours = |m: &&Mount| (m.point == seen.point || !spec.is_network()) && seen.is_ours(m, spec);
    let mut left: Vec<&Mount> = seen.mounts.iter().filter(ours).collect();
    left.extend(seen.abroad(spec, &namespaces).map(|(_, m)| m));
    if !left.is_empty() {
        // The ways to a file of it may lead through mounts that were there before.
        let all =
            before.mounts.iter().filter(|m| before.is_ours(m, spec) && (m.point == before.point || !spec.is_network()));
        return Ok(Some(Wanted::of(all.chain(left), spec.is_network())));
    }
    match &seen.target {
        Ok(target @ Target::Block { dev, .. }) => match target.is_claimed() {
            // What is part of another device, or swap, is not mounted.
            Ok(true) if target.claimants().is_empty() => Ok(Some(Wanted::hidden(*dev))),
            Ok(_) => Ok(None),
            // Its node or the device is gone, or (a replica of DRBD) passive: nobody can mount it.
            Err(e) if e.raw_os_error().is_some_and(|errno| ABSENT.contains(&errno)) => Ok(None),
            Err(e) => Err(e),
        },
        Ok(Target::Network(_)) | Err(_) => Ok(None),
    }
}

/// Unmounts folders in the mount namespace of a process, one after the other.
fn unmount_abroad(pid: u32, points: Vec<PathBuf>) -> io::Result<()> {
    let namespace = File::open(format!("/proc/{pid}/ns/mnt"))?;
    // A thread of its own, which ends there: this one stays where it is.
    let thread = std::thread::Builder::new().name("unmount".into()).spawn(move || -> io::Result<()> {
        // SAFETY: CLONE_FS only gives this thread a working folder and a root of its own, and it opens no files that others
        // would use.
        unsafe { unshare_unsafe(UnshareFlags::FS)? };
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
        for point in points {
            match unmount(&point, UnmountFlags::NOFOLLOW) {
                Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    })?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
}
