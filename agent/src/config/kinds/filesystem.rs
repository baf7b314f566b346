//! `kind = "filesystem"`: a filesystem that is mounted on the owner and nowhere else.

use std::path::{Component, Path, PathBuf};

use serde::Serialize;

use super::Kind;
use crate::config::{
    diagnostic::{Mistakes, did_you_mean},
    haproxy::choice,
    reader::{At, Table},
};

/// The filesystems that come over the network and are made for several clients at once: they need no fence here.
const NETWORK: [&str; 9] = ["nfs", "nfs4", "cifs", "smb3", "glusterfs", "ceph", "9p", "fuse.sshfs", "fuse.glusterfs"];
/// What a device may be named by, beside its path.
const TAGS: [&str; 4] = ["LABEL", "UUID", "PARTUUID", "PARTLABEL"];
/// Options that make mount(2) do something else than mount a device.
const FOREIGN: [&str; 12] = [
    "bind",
    "rbind",
    "move",
    "remount",
    "loop",
    "shared",
    "rshared",
    "private",
    "rprivate",
    "slave",
    "rslave",
    "unbindable",
];
/// Filesystems with a fsck that repairs them without asking.
const CHECKED: [&str; 8] = ["ext2", "ext3", "ext4", "vfat", "msdos", "exfat", "jfs", "f2fs"];

/// The keys of a filesystem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Filesystem {
    /// A path, "LABEL=…" and the like, or what a network filesystem's helper takes.
    pub device: String,
    /// The folder, a whole path without `.` and `..`.
    pub mount: PathBuf,
    /// Its type, as in fstab(5).
    #[serde(rename = "type")]
    pub fs_type: String,
    /// Its mount options.
    pub options: Vec<String>,
    /// When it is checked before it is mounted.
    pub fsck: Fsck,
    /// What happens to those that hold it when it is to be unmounted.
    pub busy: Busy,
    /// Whether the folder is made when it is not there.
    pub create: bool,
    /// Whether each look at it writes and reads a file.
    pub monitor_write: bool,
}

/// When a filesystem is checked before it is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fsck {
    /// Not at all; such as xfs and btrfs, which do it at each mount.
    #[default]
    Never,
    /// What its fsck does without asking (`-p`), which is little when it was unmounted cleanly.
    Preen,
    /// In full, each time.
    Force,
}

/// What happens to the processes that hold a filesystem which is to be unmounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Busy {
    /// SIGTERM, then SIGKILL after half of the time.
    #[default]
    Kill,
    /// They are named, and the stop fails.
    Fail,
}

impl Filesystem {
    /// Whether it comes over the network, rather than from a block device of this machine.
    pub fn is_network(&self) -> bool {
        NETWORK.contains(&self.fs_type.as_str())
    }

    /// Whether it is mounted to be read only.
    pub fn is_read_only(&self) -> bool {
        // The last one counts.
        self.options.iter().rev().find(|o| *o == "ro" || *o == "rw").is_some_and(|o| o == "ro")
    }
}

pub(super) fn read(t: &mut Table<'_, '_>, m: &mut Mistakes<'_>) -> Option<Kind> {
    let device = t.required(m, "device", "name what is mounted: `device = \"/dev/vg0/data\"`, or by \"UUID=…\"");
    let mount = t.required(m, "mount", "name the folder: `mount = \"/srv/data\"`");
    let kind = t.required(m, "type", "write the filesystem's type: `type = \"ext4\"`");
    let options = t.string(m, "options");
    let (fsck, busy) = (t.string(m, "fsck"), t.string(m, "busy"));
    let create = t.boolean(m, "create").is_some_and(|b| b.value);
    let monitor_write = t.boolean(m, "monitor_write");
    let options = options.map(|o| check_options(&o, m)).unwrap_or_default();
    let busy = choice(&busy, "busy", &[("kill", Busy::Kill), ("fail", Busy::Fail)], m);
    let fs_type = kind.as_ref().and_then(|kind| check_type(kind, m));
    let mount = mount.and_then(|mount| check_mount(&mount, m));
    let fsck = check_fsck(fsck, fs_type.as_deref(), m);
    let device = device.and_then(|device| check_device(device, fs_type.as_deref(), m));
    let read = Filesystem {
        device: device?,
        mount: mount?,
        fs_type: fs_type?,
        options,
        fsck,
        busy,
        create,
        monitor_write: monitor_write.as_ref().is_some_and(|b| b.value),
    };
    if let Some(place) = monitor_write.filter(|w| w.value && read.is_read_only()) {
        m.error(&place.span, "`monitor_write` cannot work with the option \"ro\"", "take one of them out");
    }
    Some(Kind::Filesystem(read))
}

fn check_type(kind: &At<String>, m: &mut Mistakes<'_>) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name = &kind.value;
    let help = "write what `blkid` says of it: \"ext4\", \"xfs\", or \"nfs\", \"cifs\"";
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) || name == "auto" || name == "none" {
        m.error(&kind.span, format!("`type` is \"{}\", which is no filesystem", name.escape_debug()), help);
        return None;
    }
    if matches!(name.as_str(), "tmpfs" | "ramfs" | "overlay" | "proc" | "sysfs") {
        m.error(&kind.span, format!("a {name} has no device and nothing to fail over"), help);
        return None;
    }
    Some(name.clone())
}

fn check_mount(mount: &At<String>, m: &mut Mistakes<'_>) -> Option<PathBuf> {
    let path = Path::new(&mount.value);
    let plain = path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !plain || path.parent().is_none() || mount.value.contains('\0') {
        let message = format!("`mount` is \"{}\", which is no folder to mount on", mount.value.escape_debug());
        m.error(&mount.span, message, "write a whole path, such as \"/srv/data\"");
        return None;
    }
    // Without doubled or trailing slashes: the kernel's table has none.
    Some(path.components().collect())
}

fn check_device(device: At<String>, fs_type: Option<&str>, m: &mut Mistakes<'_>) -> Option<String> {
    let fs_type = fs_type?;
    let name = &device.value;
    if name.is_empty() || name.contains(['\0', '\n']) || name.starts_with('-') {
        m.error(
            &device.span,
            format!("`device` is \"{}\", which is no device", name.escape_debug()),
            "write a path: \"/dev/vg0/data\"",
        );
        return None;
    }
    if NETWORK.contains(&fs_type) {
        let fits = match fs_type {
            "cifs" | "smb3" => name.starts_with("//") && name.len() > 4,
            "9p" => true,
            _ => name.split_once(':').is_some_and(|(host, export)| !host.is_empty() && !export.is_empty()),
        };
        if !fits {
            let example = if matches!(fs_type, "cifs" | "smb3") { "//host/share" } else { "host:/export" };
            let message = format!("`device` is \"{name}\", which is nothing that {fs_type} can mount");
            m.error(&device.span, message, format!("write it like \"{example}\""));
            return None;
        }
        return Some(device.value);
    }
    match name.split_once('=') {
        Some((tag, value)) if TAGS.contains(&tag) && !value.is_empty() => Some(device.value),
        Some((tag, _)) if !name.starts_with('/') => {
            let hint = did_you_mean(tag, TAGS);
            let help = format!("write a path, or one of {}=…", TAGS.join("=…, "));
            m.error(&device.span, format!("devices are not named by \"{tag}\"{hint}"), help);
            None
        }
        _ if Path::new(name).is_absolute() => Some(device.value),
        _ => {
            let message = format!("`device` is \"{name}\", which is neither a whole path nor a tag");
            let help = "write \"/dev/vg0/data\", \"UUID=…\", or name the `type` of a network filesystem";
            m.error(&device.span, message, help);
            None
        }
    }
}

fn check_options(options: &At<String>, m: &mut Mistakes<'_>) -> Vec<String> {
    let list: Vec<String> =
        options.value.split(',').map(str::trim).filter(|o| !o.is_empty()).map(str::to_owned).collect();
    for option in &list {
        if FOREIGN.contains(&option.as_str()) {
            let message = format!("the option \"{option}\" does not mount a device");
            let help = if option == "loop" {
                "attach the loop device beforehand, and name it as `device`"
            } else {
                "leave it out: binds and changes of a mount are for a script"
            };
            m.error(&options.span, message, help);
        } else if option.contains(['\0', '\n']) {
            m.error(&options.span, "an option holds a control character", "take it out");
        }
    }
    list
}

fn check_fsck(given: Option<At<String>>, fs_type: Option<&str>, m: &mut Mistakes<'_>) -> Fsck {
    let usual = if fs_type.is_some_and(|t| t.starts_with("ext")) { Fsck::Preen } else { Fsck::Never };
    if given.is_none() {
        return usual;
    }
    let chosen = choice(&given, "fsck", &[("never", Fsck::Never), ("preen", Fsck::Preen), ("force", Fsck::Force)], m);
    if let (Some(place), Some(fs_type)) = (&given, fs_type)
        && chosen != Fsck::Never
        && !CHECKED.contains(&fs_type)
    {
        let help = match fs_type {
            "xfs" => {
                "leave `fsck` out: xfs recovers at each mount; what that cannot repair is for `xfs_repair`, by hand"
            }
            "btrfs" => "leave `fsck` out: btrfs recovers at each mount",
            _ => "leave `fsck` out",
        };
        m.error(&place.span, format!("{fs_type} has no check that is made before a mount"), help);
        return usual;
    }
    chosen
}
