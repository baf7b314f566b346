//! What is to be mounted: a block device by its number, however it is named, or something on the network by its name.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags, major, minor, open};

use super::mountinfo::{Dev, Mount};
use crate::config::kinds::Filesystem;

/// What is to be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A block device.
    Block {
        /// Where its node is.
        path: PathBuf,
        /// Its number.
        dev: Dev,
    },
    /// Something on the network.
    Network(String),
}

/// Why a device is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It is not there (yet).
    Missing(PathBuf),
    /// It is something else than a block device.
    NoDevice(PathBuf),
    /// It cannot be looked at.
    Unreadable(PathBuf, String, Option<i32>),
}

impl Target {
    /// Finds it.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn find(spec: &Filesystem) -> Result<Self, Unusable> {
        if spec.is_network() {
            return Ok(Self::Network(spec.device.clone()));
        }
        let named = node(&spec.device);
        let missing = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
        let wrong = |e: io::Error| match missing(&e) {
            true => Unusable::Missing(named.clone()),
            false => Unusable::Unreadable(named.clone(), e.to_string(), e.raw_os_error()),
        };
        let path = fs::canonicalize(&named).map_err(wrong)?;
        let metadata = fs::metadata(&path).map_err(wrong)?;
        if !metadata.file_type().is_block_device() {
            return Err(Unusable::NoDevice(path));
        }
        Ok(Self::Block { path, dev: number(metadata.rdev()) })
    }

    /// Whether a mount is one of it.
    pub fn is_of(&self, mount: &Mount) -> bool {
        match self {
            Self::Block { dev, .. } => mount.dev == *dev || by_source(mount) == Some(*dev),
            Self::Network(name) => mount.source.trim_end_matches('/') == name.trim_end_matches('/'),
        }
    }

    /// Whether the kernel lets nobody else claim the device: a filesystem on it is mounted somewhere, or it is in other use.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_claimed(&self) -> io::Result<bool> {
        let Self::Block { path, .. } = self else { return Ok(false) };
        // O_EXCL of a block device: open(2).
        match open(path, OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()) {
            Ok(_) => Ok(false),
            Err(rustix::io::Errno::BUSY) => Ok(true),
            Err(e) => Err(e.into()),
        }
    }

    /// What has claimed the device, as far as the kernel tells: devices on top of it, and swap.
    pub fn claimants(&self) -> Vec<String> {
        let Self::Block { path, dev: (major, minor) } = self else { return Vec::new() };
        let holders = fs::read_dir(format!("/sys/dev/block/{major}:{minor}/holders"));
        let named = |e: io::Result<fs::DirEntry>| Some(e.ok()?.file_name().to_string_lossy().into_owned());
        let mut found: Vec<String> = holders.map(|h| h.filter_map(named).collect()).unwrap_or_default();
        let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
        if swaps.lines().skip(1).any(|line| line.split(' ').next().is_some_and(|s| Path::new(s) == path)) {
            found.push("swap".to_owned());
        }
        found
    }
}

/// Where a device's node is, or will be once udev has seen the device.
fn node(device: &str) -> PathBuf {
    let folder = |tag: &str| match tag {
        "LABEL" => Some("by-label"),
        "UUID" => Some("by-uuid"),
        "PARTUUID" => Some("by-partuuid"),
        "PARTLABEL" => Some("by-partlabel"),
        _ => None,
    };
    let tagged = device.split_once('=').and_then(|(tag, value)| Some((folder(tag)?, tag, value)));
    match tagged {
        // udev writes UUIDs of these in lower case, as blkid prints them; volume numbers of vfat are in upper case.
        Some((folder, _, value)) => Path::new("/dev/disk").join(folder).join(encode(value)),
        None => PathBuf::from(device),
    }
}

/// A tag as udev writes it into a file's name: what is not plain as "\x" and two hexadecimal digits.
fn encode(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "#+-.:=@_".contains(c) || !c.is_ascii();
    value.chars().map(|c| if plain(c) { c.to_string() } else { format!("\\x{:02x}", u32::from(c)) }).collect()
}

/// The device that a mount was made from, where its number is an invented one (btrfs).
fn by_source(mount: &Mount) -> Option<Dev> {
    let invented = mount.dev.0 == 0 && mount.source.starts_with("/dev/");
    let metadata = invented.then(|| fs::metadata(&mount.source).ok()).flatten()?;
    metadata.file_type().is_block_device().then(|| number(metadata.rdev()))
}

/// A device's number in its two parts.
pub fn number(dev: u64) -> Dev {
    (major(dev), minor(dev))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_lead_to_the_links_that_udev_makes() {
        for (device, expected) in [
            ("/dev/vg0/data", "/dev/vg0/data"),
            ("LABEL=my data/1", "/dev/disk/by-label/my\\x20data\\x2f1"),
            ("LABEL=Größe", "/dev/disk/by-label/Größe"),
            ("UUID=0a1b-2c", "/dev/disk/by-uuid/0a1b-2c"),
            ("PARTUUID=x", "/dev/disk/by-partuuid/x"),
            ("PARTLABEL=x", "/dev/disk/by-partlabel/x"),
            ("/dev/disk/by-id/a=b", "/dev/disk/by-id/a=b"),
        ] {
            assert_eq!(node(device), Path::new(expected));
        }
    }
}
