//! How things stand: what is mounted at the folder, whether it is ours, and where else the device is mounted.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    mountinfo::{self, Mount, Namespace, top_at},
    target::{Target, Unusable},
};
use crate::config::kinds::Filesystem;

/// How things stand.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The folder as the kernel names it, all links followed but the last.
    pub point: PathBuf,
    /// What is to be mounted, or why it cannot be found.
    pub target: Result<Target, Unusable>,
    /// What it was when it was found earlier; its name may lead to another device meanwhile.
    pub known: Option<Target>,
    /// What is seen at the folder.
    pub top: Option<Mount>,
    /// All mounts of this namespace.
    pub mounts: Vec<Mount>,
}

impl Seen {
    /// Looks, in this mount namespace alone. `known` is the device as it was found earlier: its node may be gone.
    ///
    /// # Errors
    /// The kernel's, when its table cannot be read.
    pub fn look(spec: &Filesystem, known: Option<&Target>) -> io::Result<Self> {
        let point = match (spec.mount.parent(), spec.mount.file_name()) {
            // What is mounted there is not touched: it may hang.
            (Some(parent), Some(name)) => {
                fs::canonicalize(parent).map_or_else(|_| spec.mount.clone(), |p| p.join(name))
            }
            _ => spec.mount.clone(),
        };
        let mounts = mountinfo::here()?;
        let top = top_at(&mounts, &point).cloned();
        let mut target = Target::find(spec);
        if let (Err(Unusable::Missing(_) | Unusable::Unreadable(..)), Some(known)) = (&target, known) {
            target = Ok(known.clone());
        }
        Ok(Self { point, target, known: known.cloned(), top, mounts })
    }

    /// Whether a mount is what this resource mounts.
    pub fn is_ours(&self, mount: &Mount, spec: &Filesystem) -> bool {
        match &self.target {
            Ok(target) => target.is_of(mount) || self.known.as_ref().is_some_and(|known| known.is_of(mount)),
            // With its device gone it can be told only by where it is, and what: never anything elsewhere.
            Err(_) => {
                let source = mount.source == spec.device || mount.source.starts_with("/dev/");
                mount.point == self.point && mount.fs_type == spec.fs_type && source
            }
        }
    }

    /// Whether what is seen at the folder is ours.
    pub fn runs(&self, spec: &Filesystem) -> bool {
        self.top.as_ref().is_some_and(|top| self.is_ours(top, spec))
    }

    /// Those of our mounts that stand somewhere else in this namespace. On the network others may mount the same.
    pub fn copies<'s>(&'s self, spec: &'s Filesystem) -> impl Iterator<Item = &'s Mount> {
        self.mounts.iter().filter(move |m| !spec.is_network() && m.point != self.point && self.is_ours(m, spec))
    }

    /// Those of our mounts that stand in other namespaces.
    pub fn abroad<'s>(
        &'s self,
        spec: &'s Filesystem,
        namespaces: &'s [Namespace],
    ) -> impl Iterator<Item = (&'s Namespace, &'s Mount)> {
        let ours = move |m: &&Mount| (!spec.is_network() || m.point == self.point) && self.is_ours(m, spec);
        namespaces.iter().flat_map(move |n| n.mounts.iter().filter(ours).map(move |m| (n, m)))
    }

    /// Whether it is the filesystem on which the machine itself runs: nothing of that is ever taken away.
    pub fn is_root(&self, spec: &Filesystem) -> bool {
        self.mounts.iter().any(|m| m.point == Path::new("/") && self.is_ours(m, spec))
    }
}

/// What is mounted beneath a folder, the deepest first.
pub fn beneath<'m>(mounts: &'m [Mount], point: &Path) -> Vec<&'m Mount> {
    let mut found: Vec<&Mount> = mounts.iter().filter(|m| m.point != point && m.point.starts_with(point)).collect();
    found.sort_by_key(|m| std::cmp::Reverse((m.point.components().count(), m.id)));
    found
}

/// What is at a folder, in words.
pub fn describe(mount: &Mount) -> String {
    format!("{} ({})", mount.source, mount.fs_type)
}
