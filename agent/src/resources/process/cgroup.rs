//! Control groups of a process: one that holds it with all its children, so that they can be counted and killed together, and
//! those that limit it. Version 2 where it is mounted, else version 1.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use rustix::process::Signal;

use crate::process::{Process, lives};

/// Below the root of each hierarchy: not below the agent's own group, which systemd empties when the agent ends.
const PARENT: &str = "baton";
/// How deep a service may make groups of its own.
const DEPTH_MAX: usize = 16;
/// More processes than the kernel can number.
const MEMBERS_MAX: usize = 1 << 22;

/// Where the hierarchies are mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    /// Version 2.
    v2: Option<PathBuf>,
    /// Version 1, by controller.
    v1: BTreeMap<String, PathBuf>,
}

/// What was made for a process.
#[derive(Debug, Default)]
pub struct Made {
    /// The group that holds it with all its children; none where no hierarchy can be written.
    pub holder: Option<PathBuf>,
    /// All its groups.
    pub folders: Vec<PathBuf>,
}

/// Limits of a process with all its children.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

impl Mounts {
    /// Those of this machine.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn find() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/self/mountinfo")?))
    }

    /// Reads proc_pid_mountinfo(5).
    fn parse(text: &str) -> Self {
        let mut mounts = Self::default();
        for line in text.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            // A part of a hierarchy (field 4) that is mounted somewhere belongs to a container.
            let mut fields = left.split(' ').skip(3);
            let (Some("/"), Some(place)) = (fields.next(), fields.next()) else { continue };
            let mut fields = right.split(' ');
            let (kind, _source, options) = (fields.next(), fields.next(), fields.next().unwrap_or_default());
            let place = || PathBuf::from(place.replace("\\040", " "));
            match kind {
                Some("cgroup2") => _ = mounts.v2.get_or_insert_with(place),
                Some("cgroup") => {
                    for controller in options.split(',').filter(|o| !matches!(*o, "rw" | "ro" | "xattr")) {
                        mounts.v1.entry(controller.to_owned()).or_insert_with(place);
                    }
                }
                _ => {}
            }
        }
        mounts
    }

    /// The hierarchy by which processes are held together: version 2; else any of version 1, which can be listed and killed
    /// one by one.
    fn holding(&self) -> Vec<&PathBuf> {
        let first = ["pids", "freezer", "name=systemd", "memory"].iter().filter_map(|c| self.v1.get(*c));
        self.v2.iter().chain(first).collect()
    }

    /// The group that would hold a process of this name, where it exists.
    pub fn existing(&self, name: &str) -> Option<PathBuf> {
        self.holding().into_iter().map(|root| root.join(PARENT).join(name)).find(|folder| folder.is_dir())
    }

    /// Makes the groups of a process.
    ///
    /// # Errors
    /// When a limit cannot be set; in words, without the resource's name. That no group can hold it is no error.
    pub fn make(&self, name: &str, limits: Limits) -> Result<Made, (String, io::Error)> {
        let mut made = Made::default();
        for root in self.holding() {
            let folder = root.join(PARENT).join(name);
            match fs::create_dir_all(&folder) {
                Ok(()) => {
                    made.holder = Some(folder.clone());
                    made.folders.push(folder);
                    break;
                }
                Err(error) => tracing::debug!(folder = %folder.display(), %error, "no control group can be made"),
            }
        }
        if let Some(bytes) = limits.memory {
            let file = |v2| if v2 { "memory.max" } else { "memory.limit_in_bytes" };
            self.limit(name, "memory", file, bytes, &mut made)?;
        }
        if let Some(pids) = limits.pids {
            self.limit(name, "pids", |_| "pids.max", pids.into(), &mut made)?;
        }
        Ok(made)
    }

    fn limit(
        &self,
        name: &str,
        controller: &str,
        file: impl Fn(bool) -> &'static str,
        value: u64,
        made: &mut Made,
    ) -> Result<(), (String, io::Error)> {
        fn words(what: &Path) -> impl Fn(io::Error) -> (String, io::Error) + use<> {
            let what = what.display().to_string();
            move |e| (what.clone(), e)
        }
        let has = |root: &Path| {
            fs::read_to_string(root.join("cgroup.controllers"))
                .is_ok_and(|list| list.split_whitespace().any(|c| c == controller))
        };
        let (folder, v2) = if let Some(root) = self.v2.as_ref().filter(|root| has(root)) {
            for above in [root.clone(), root.join(PARENT)] {
                let switch = above.join("cgroup.subtree_control");
                fs::write(&switch, format!("+{controller}")).map_err(words(&switch))?;
            }
            (root.join(PARENT).join(name), true)
        } else if let Some(root) = self.v1.get(controller) {
            (root.join(PARENT).join(name), false)
        } else {
            return Err((format!("the controller {controller}"), io::ErrorKind::NotFound.into()));
        };
        fs::create_dir_all(&folder).map_err(words(&folder))?;
        let file = folder.join(file(v2));
        fs::write(&file, value.to_string()).map_err(words(&file))?;
        if !made.folders.contains(&folder) {
            made.folders.push(folder);
        }
        Ok(())
    }
}

/// `cgroup.procs` of groups, open for a process that enters them.
///
/// # Errors
/// The kernel's.
pub fn doors(folders: &[PathBuf]) -> io::Result<Vec<File>> {
    folders.iter().map(|folder| OpenOptions::new().write(true).open(folder.join("cgroup.procs"))).collect()
}

/// The living processes of a group and the groups below it; none when it is not there.
///
/// # Errors
/// The kernel's.
pub fn members(folder: &Path) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    each(folder, 0, &mut |folder| {
        let text = match fs::read_to_string(folder.join("cgroup.procs")) {
            Ok(text) => text,
            Err(e) if absent(&e) => return Ok(()),
            Err(e) => return Err(e),
        };
        // Version 1 lists the dead, too.
        found.extend(text.lines().filter_map(|pid| pid.parse().ok()).filter(|pid| lives(*pid)).take(MEMBERS_MAX));
        Ok(())
    })?;
    Ok(found)
}

/// Kills all processes of a group: at once where the kernel can (5.14), else one by one; call it until there are none.
///
/// # Errors
/// The kernel's.
pub fn kill(folder: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).open(folder.join("cgroup.kill")) {
        Ok(mut file) => io::Write::write_all(&mut file, b"1"),
        Err(_) => signal_all(&members(folder)?),
    }
}

/// Kills processes by their numbers.
///
/// # Errors
/// The kernel's, but for those that have ended.
pub fn signal_all(pids: &[u32]) -> io::Result<()> {
    for pid in pids {
        match Process::open(*pid).and_then(|process| process.signal(Signal::KILL)) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Removes a group that is empty, and those below it. Best effort: an empty folder is in nobody's way.
pub fn remove(folder: &Path) {
    let removed =
        each(folder, 0, &mut |folder| fs::remove_dir(folder).or_else(|e| if absent(&e) { Ok(()) } else { Err(e) }));
    if let Err(error) = removed {
        tracing::debug!(folder = %folder.display(), %error, "the control group stays");
    }
}

/// How often the kernel killed something in these groups because their memory was used up.
pub fn killed_for_memory(folders: &[PathBuf]) -> bool {
    let counts = |name: &'static str| folders.iter().filter_map(move |f| fs::read_to_string(f.join(name)).ok());
    // Version 2 and version 1 have the same line in different files.
    let texts = counts("memory.events").chain(counts("memory.oom_control"));
    let mut kills = texts
        .flat_map(|text| text.lines().filter_map(|l| l.strip_prefix("oom_kill ")?.parse().ok()).collect::<Vec<u64>>());
    kills.any(|n| n > 0)
}

/// Does something with a group and all below it, the lowest first.
fn each(folder: &Path, depth: usize, work: &mut impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    if depth < DEPTH_MAX {
        match fs::read_dir(folder) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry?;
                    if entry.file_type().is_ok_and(|t| t.is_dir()) {
                        each(&entry.path(), depth + 1, work)?;
                    }
                }
            }
            Err(e) if absent(&e) => return Ok(()),
            Err(e) => return Err(e),
        }
    }
    work(folder)
}

/// A group that was removed just now answers with either.
fn absent(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENODEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found_where_they_are_mounted() {
        let text = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n\
                    31 24 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                    32 24 0:28 / /sys/fs/cgroup/c\\040d rw - cgroup cgroup rw,cpu,cpuacct\n\
                    33 24 0:28 /docker/1 /elsewhere rw - cgroup cgroup rw,memory\n\
                    34 24 0:29 / / rw - ext4 /dev/vda rw\nnonsense";
        let mounts = Mounts::parse(text);
        assert_eq!(mounts.v2.as_deref(), Some(Path::new("/sys/fs/cgroup")));
        let v1: Vec<&str> = mounts.v1.keys().map(String::as_str).collect();
        assert_eq!(v1, ["cpu", "cpuacct", "pids"]);
        assert_eq!(mounts.v1["cpu"], Path::new("/sys/fs/cgroup/c d"));
        assert_eq!(Mounts::parse(""), Mounts::default());
    }

    #[test]
    fn a_limit_without_its_controller_is_refused_by_name() {
        let (what, error) = Mounts::default().make("x", Limits { memory: Some(1 << 20), pids: None }).unwrap_err();
        assert_eq!((what.as_str(), error.kind()), ("the controller memory", io::ErrorKind::NotFound));
        assert_eq!(Mounts::default().make("x", Limits::default()).unwrap().holder, None);
    }
}
