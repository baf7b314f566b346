//! The folders on bpffs: `<bpffs>/baton/<cluster>-<node>/v<layout>/`, one a node and layout version.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use baton_ebpf::layout::LAYOUT_VERSION;
use rustix::{
    fs::statfs,
    mount::{MountFlags, mount},
};

use super::error::KernelError;

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// The folder of a node, for every layout version.
pub(super) fn node_folder(bpffs: &Path, cluster: &str, node: &str) -> PathBuf {
    bpffs.join("baton").join(format!("{}-{}", plain(cluster), plain(node)))
}

/// The folder of this agent's layout version in a node's folder.
pub(super) fn version_folder(node: &Path) -> PathBuf {
    node.join(format!("v{LAYOUT_VERSION}"))
}

/// bpffs reserves names with dots, and a slash would leave the folder.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

/// Makes sure that there is a BPF file system at `path`, mounting one if need be.
pub(super) fn ensure(path: &Path) -> Result<(), KernelError> {
    let error = |source: io::Error| KernelError::Bpffs { path: path.to_owned(), source };
    fs::create_dir_all(path).map_err(error)?;
    if is_bpffs(path).map_err(error)? {
        return Ok(());
    }
    mount("bpf", path, "bpf", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)
        .map_err(|errno| error(errno.into()))
}

fn is_bpffs(path: &Path) -> io::Result<bool> {
    Ok(statfs(path)?.f_type as u64 & 0xffff_ffff == BPF_FS_MAGIC)
}

/// Creates a folder with its parents.
pub(super) fn create(path: &Path) -> Result<(), KernelError> {
    fs::create_dir_all(path).map_err(pin_error(path, "created"))
}

/// Removes a pin or a folder of pins; what is not there is removed already.
pub(super) fn remove(path: &Path) -> Result<(), KernelError> {
    let outcome = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(pin_error(path, "removed")(error)),
        _ => Ok(()),
    }
}

/// The names in a folder.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, KernelError> {
    let entries = fs::read_dir(folder).map_err(pin_error(folder, "read"))?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// Removes the folders of other layout versions: programs of another version would hold the gate closed for ever.
pub(super) fn remove_other_versions(node: &Path) -> Result<(), KernelError> {
    let current = format!("v{LAYOUT_VERSION}");
    for name in names(node)? {
        if name != current {
            remove(&node.join(name))?;
        }
    }
    Ok(())
}

fn pin_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> KernelError + use<> {
    let path = path.to_owned();
    move |source| KernelError::Pin { path, action, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_their_folder() {
        let folder = node_folder(Path::new("/b"), "../up", "web.1");
        assert_eq!(folder, Path::new("/b/baton/___up-web_1"));
    }
}
