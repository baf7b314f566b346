//! Mount options: those that mount(2) takes as flags, those that are for mount(8) alone, and the filesystem's own.

use std::ffi::{CString, NulError};

use rustix::mount::MountFlags;

/// Options as mount(2) takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The flags.
    pub flags: MountFlags,
    /// What the filesystem reads itself.
    pub data: Option<CString>,
}

/// Flags that an option sets, and those that it clears.
const FLAGS: [(&str, MountFlags, MountFlags); 25] = {
    const NONE: MountFlags = MountFlags::empty();
    const ATIMES: MountFlags = MountFlags::NOATIME.union(MountFlags::RELATIME).union(MountFlags::STRICTATIME);
    [
        ("defaults", NONE, NONE),
        ("ro", MountFlags::RDONLY, NONE),
        ("rw", NONE, MountFlags::RDONLY),
        ("nosuid", MountFlags::NOSUID, NONE),
        ("suid", NONE, MountFlags::NOSUID),
        ("nodev", MountFlags::NODEV, NONE),
        ("dev", NONE, MountFlags::NODEV),
        ("noexec", MountFlags::NOEXEC, NONE),
        ("exec", NONE, MountFlags::NOEXEC),
        ("sync", MountFlags::SYNCHRONOUS, NONE),
        ("async", NONE, MountFlags::SYNCHRONOUS),
        ("dirsync", MountFlags::DIRSYNC, NONE),
        ("noatime", MountFlags::NOATIME, ATIMES),
        ("atime", NONE, MountFlags::NOATIME),
        ("relatime", MountFlags::RELATIME, ATIMES),
        ("norelatime", NONE, MountFlags::RELATIME),
        ("strictatime", MountFlags::STRICTATIME, ATIMES),
        ("nostrictatime", NONE, MountFlags::STRICTATIME),
        ("nodiratime", MountFlags::NODIRATIME, NONE),
        ("diratime", NONE, MountFlags::NODIRATIME),
        ("lazytime", MountFlags::LAZYTIME, NONE),
        ("nolazytime", NONE, MountFlags::LAZYTIME),
        ("silent", MountFlags::SILENT, NONE),
        ("loud", NONE, MountFlags::SILENT),
        ("nomand", NONE, NONE),
    ]
};

/// For fstab(5) and mount(8): nothing that mount(2) knows.
const OUTSIDE: [&str; 8] = ["auto", "noauto", "user", "nouser", "users", "nofail", "_netdev", "owner"];

impl Options {
    /// Reads a list of options.
    ///
    /// # Errors
    /// One holds a zero byte, which the configuration refuses.
    pub fn read(list: &[String]) -> Result<Self, NulError> {
        let mut flags = MountFlags::empty();
        let mut data: Vec<&str> = Vec::new();
        for option in list {
            if let Some((_, set, clear)) = FLAGS.iter().find(|(name, ..)| name == option) {
                flags = flags.difference(*clear).union(*set);
            } else if !outside(option) {
                data.push(option);
            }
        }
        let data = (!data.is_empty()).then(|| CString::new(data.join(","))).transpose()?;
        Ok(Self { flags, data })
    }
}

fn outside(option: &str) -> bool {
    OUTSIDE.contains(&option) || option.starts_with("x-") || option.starts_with("comment=")
}

/// The options for a helper (`mount.TYPE -o …`), which reads flags by their names.
pub fn for_helper(list: &[String]) -> String {
    let told: Vec<&str> = list.iter().map(String::as_str).filter(|o| !outside(o) && *o != "defaults").collect();
    told.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn options_are_sorted_into_flags_and_data_and_the_last_one_counts() {
        let read =
            Options::read(&list("defaults,ro,noatime,data=ordered,nofail,x-systemd.automount,rw,barrier=1")).unwrap();
        assert_eq!(read.flags, MountFlags::NOATIME);
        assert_eq!(read.data.unwrap().to_str(), Ok("data=ordered,barrier=1"));
        let read = Options::read(&list("noatime,relatime,nodev,ro")).unwrap();
        assert_eq!(read.flags, MountFlags::RELATIME | MountFlags::NODEV | MountFlags::RDONLY);
        assert_eq!(read.data, None);
        assert_eq!(for_helper(&list("defaults,ro,_netdev,vers=4.2,soft")), "ro,vers=4.2,soft");
    }
}
