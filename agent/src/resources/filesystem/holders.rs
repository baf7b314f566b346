//! Who holds a filesystem: processes with open files, folders or programs on it, and what else the kernel keeps there.
//!
//! Open files are found by their mount's number (/proc/PID/fdinfo), which asks no filesystem: another one that hangs does not
//! matter.

use std::{
    collections::{BTreeMap, HashSet},
    fmt, fs, io,
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::mountinfo::{Dev, Mount, name_of, processes};

/// So many holders are named.
const NAMED_MAX: usize = 8;

/// What is looked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The numbers of its mounts.
    ids: HashSet<u64>,
    /// The devices that its files have.
    devs: HashSet<Dev>,
    /// Where it is mounted.
    points: HashSet<PathBuf>,
    /// Also files on mounts that are in no table any more.
    deep: bool,
}

impl Wanted {
    /// A filesystem by its mounts. One on the network has mounts of others with the same device: they are not meant.
    pub fn of<'m>(mounts: impl Iterator<Item = &'m Mount>, network: bool) -> Self {
        let mut wanted = Self::default();
        for mount in mounts {
            wanted.ids.insert(mount.id);
            wanted.points.insert(mount.point.clone());
            if !network {
                wanted.devs.insert(mount.dev);
            }
        }
        wanted
    }

    /// A device that is claimed although no mount of it is to be seen.
    pub fn hidden(dev: Dev) -> Self {
        Self { devs: HashSet::from([dev]), deep: true, ..Self::default() }
    }

    fn has(&self, path: &Path) -> bool {
        let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
        let mask = StatxFlags::TYPE | StatxFlags::MNT_ID;
        statx(CWD, path, flags, mask)
            .is_ok_and(|s| self.ids.contains(&s.stx_mnt_id) || self.devs.contains(&(s.stx_dev_major, s.stx_dev_minor)))
    }

    /// Whether what a link of /proc leads to is on it. Only what may be there by its path is touched.
    fn has_link(&self, link: &Path) -> bool {
        let Ok(target) = fs::read_link(link) else { return false };
        (self.deep || self.points.iter().any(|p| target.starts_with(p))) && self.has(link)
    }

    fn has_fd(&self, pid: u32, fd: &str) -> bool {
        if self.deep {
            return self.has(Path::new(&format!("/proc/{pid}/fd/{fd}")));
        }
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
        let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
        id.is_some_and(|id: u64| self.ids.contains(&id))
    }

    fn has_map(&self, pid: u32) -> bool {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        maps.lines().any(|line| {
            // Range, rights, offset, device, inode, path.
            let mut fields = line.split_ascii_whitespace();
            let (Some(range), Some(dev)) = (fields.next(), fields.nth(2)) else { return false };
            let hex = |text: &str| u64::from_str_radix(text, 16).ok();
            let dev = dev.split_once(':').and_then(|(major, minor)| {
                Some((u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?))
            });
            if dev.is_some_and(|dev| self.devs.contains(&dev)) {
                return true;
            }
            let path = fields.nth(1).map(Path::new);
            let near = self.devs.is_empty() && path.is_some_and(|p| self.points.iter().any(|at| p.starts_with(at)));
            let range = range.split_once('-').and_then(|(from, to)| Some((hex(from)?, hex(to)?)));
            // There the kernel writes the range without leading zeros.
            near && range
                .is_some_and(|(from, to)| self.has(Path::new(&format!("/proc/{pid}/map_files/{from:x}-{to:x}"))))
        })
    }
}

/// A process that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// How.
    pub uses: Vec<&'static str>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {}: {})", self.name, self.pid, self.uses.join(", "))
    }
}

/// All processes that hold it.
///
/// # Errors
/// The kernel's, when /proc cannot be read.
pub fn holders(wanted: &Wanted) -> io::Result<Vec<Holder>> {
    let found = processes()?.filter_map(|pid| {
        let uses = uses_of(pid, wanted);
        (!uses.is_empty()).then(|| Holder { pid, name: name_of(pid), uses })
    });
    Ok(found.collect())
}

/// How a process holds it; empty if it does not.
pub fn uses_of(pid: u32, wanted: &Wanted) -> Vec<&'static str> {
    let mut uses = Vec::new();
    for (link, meaning) in [("cwd", "working folder"), ("root", "root folder"), ("exe", "program")] {
        if wanted.has_link(Path::new(&format!("/proc/{pid}/{link}"))) {
            uses.push(meaning);
        }
    }
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    if fds.filter_map(|fd| fd.file_name().into_string().ok()).any(|fd| wanted.has_fd(pid, &fd)) {
        uses.push("open files");
    }
    if wanted.has_map(pid) {
        uses.push("mapped files");
    }
    uses
}

/// What else holds it: swap files, loop devices and exports of the kernel's NFS server; each with what ends it.
pub fn others(wanted: &Wanted) -> Vec<String> {
    let beneath = |path: &Path| wanted.points.iter().any(|p| path.starts_with(p)) && wanted.has(path);
    let mut found = Vec::new();
    for line in fs::read_to_string("/proc/swaps").unwrap_or_default().lines().skip(1) {
        let path = line.split_ascii_whitespace().next().unwrap_or_default();
        if beneath(Path::new(path)) {
            found.push(format!("swap on {path} (end it by `swapoff {path}`)"));
        }
    }
    for device in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let name = device.file_name().to_string_lossy().into_owned();
        let backing = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        let backing = backing.trim_end_matches('\n');
        if !backing.is_empty() && beneath(Path::new(backing)) {
            found.push(format!("/dev/{name}, which is made of {backing} (end it by `losetup -d /dev/{name}`)"));
        }
    }
    for line in fs::read_to_string("/proc/fs/nfsd/exports").unwrap_or_default().lines() {
        let path = line.split_ascii_whitespace().next().unwrap_or_default();
        if path.starts_with('/') && wanted.points.iter().any(|p| Path::new(path).starts_with(p)) {
            found.push(format!("the kernel's NFS server, which exports {path} (end it by `exportfs -u`)"));
        }
    }
    found
}

/// Names them in one line; those of the same name together.
pub fn named(holders: &[Holder], others: &[String]) -> String {
    let mut words: Vec<String> = others.to_vec();
    let mut by_name: BTreeMap<&str, Vec<&Holder>> = BTreeMap::new();
    for holder in holders {
        by_name.entry(&holder.name).or_default().push(holder);
    }
    for (name, same) in by_name {
        match same.as_slice() {
            [one] => words.push(one.to_string()),
            [first, ..] => words.push(format!("{name} ({} processes, {} among them)", same.len(), first.pid)),
            [] => {}
        }
    }
    let more = words.len().saturating_sub(NAMED_MAX);
    words.truncate(NAMED_MAX);
    if more > 0 {
        words.push(format!("{more} more"));
    }
    words.join("; ")
}
