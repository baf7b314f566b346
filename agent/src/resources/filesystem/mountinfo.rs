//! What is mounted where: /proc/*/mountinfo (proc_pid_mountinfo(5)), of this mount namespace and of all others.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

/// The major and minor number of a device.
pub type Dev = (u32, u32);

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its number, unlike that of any other mount of the machine.
    pub id: u64,
    /// The mount on which it stands.
    pub parent: u64,
    /// The device; of btrfs, and of what is in memory or on the network, an invented one.
    pub dev: Dev,
    /// Which folder of the filesystem it shows.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// The mount's own options.
    pub options: String,
    /// The type.
    pub fs_type: String,
    /// What was mounted, in the words of who did.
    pub source: String,
    /// The filesystem's options.
    pub super_options: String,
}

impl Mount {
    /// Whether one of its options is this one.
    pub fn has(&self, option: &str) -> bool {
        self.options.split(',').chain(self.super_options.split(',')).any(|o| o == option)
    }
}

/// The mounts that a process of another mount namespace sees.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// The process.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// Its mounts.
    pub mounts: Vec<Mount>,
}

/// The mounts of this thread's namespace.
///
/// # Errors
/// The kernel's.
pub fn here() -> io::Result<Vec<Mount>> {
    // Of the thread, not of the process: they may differ.
    Ok(parse(&fs::read("/proc/thread-self/mountinfo")?))
}

/// The mounts of all other namespaces in which a process lives.
///
/// # Errors
/// The kernel's, when /proc cannot be read.
pub fn elsewhere() -> io::Result<Vec<Namespace>> {
    let mut seen = HashSet::from([fs::read_link("/proc/thread-self/ns/mnt")?]);
    let mut found = Vec::new();
    for pid in processes()? {
        // What fails here has ended, or is a kernel's thread.
        let Ok(namespace) = fs::read_link(format!("/proc/{pid}/ns/mnt")) else { continue };
        if seen.contains(&namespace) {
            continue;
        }
        let Ok(text) = fs::read(format!("/proc/{pid}/mountinfo")) else { continue };
        seen.insert(namespace);
        found.push(Namespace { pid, name: name_of(pid), mounts: parse(&text) });
    }
    Ok(found)
}

/// The numbers of all processes.
///
/// # Errors
/// The kernel's.
pub fn processes() -> io::Result<impl Iterator<Item = u32>> {
    Ok(fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

/// A process's name, as `ps` shows it.
pub fn name_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).map_or_else(|_| "?".to_owned(), |n| n.trim().to_owned())
}

/// The topmost mount at a folder: the one that is seen there.
pub fn top_at<'m>(mounts: &'m [Mount], point: &Path) -> Option<&'m Mount> {
    let at: Vec<&Mount> = mounts.iter().filter(|m| m.point == point).collect();
    at.iter().rev().find(|m| !at.iter().any(|above| above.parent == m.id)).copied()
}

fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|b| *b == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let mut next = || fields.next();
    let number = |f: &[u8]| std::str::from_utf8(f).ok()?.parse::<u64>().ok();
    let text = |f: &[u8]| String::from_utf8_lossy(&unescape(f)).into_owned();
    let (id, parent) = (number(next()?)?, number(next()?)?);
    let (major, minor) = std::str::from_utf8(next()?).ok()?.split_once(':')?;
    let dev = (major.parse().ok()?, minor.parse().ok()?);
    let (root, point) = (unescape(next()?), unescape(next()?));
    let options = text(next()?);
    // Optional fields, up to a lone dash.
    while next()? != b"-" {}
    let (fs_type, source) = (text(next()?), text(next()?));
    let super_options = next().map(text).unwrap_or_default();
    let path = |bytes| PathBuf::from(OsString::from_vec(bytes));
    Some(Mount { id, parent, dev, root: path(root), point: path(point), options, fs_type, source, super_options })
}

/// The kernel writes blanks, tabs, line breaks, backslashes and "#" as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|d| *first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        let value = octal.map(|d| d.iter().fold(0_u32, |v, b| v * 8 + u32::from(b - b'0')));
        match value.and_then(|v| u8::try_from(v).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_their_escapes_and_optional_fields() {
        let text =
            b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:2 - ext3 /dev/root\\134x rw,errors=continue\n\
                     bad line\n37 36 0:44 / /x rw - tmpfs none rw\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!((mounts[0].id, mounts[0].parent, mounts[0].dev), (36, 35, (98, 0)));
        assert_eq!((mounts[0].point.to_str(), mounts[0].source.as_str()), (Some("/mnt 2"), "/dev/root\\x"));
        assert!(mounts[0].has("noatime") && mounts[0].has("errors=continue") && !mounts[0].has("ro"));
        assert_eq!(mounts[1].fs_type, "tmpfs");
        assert_eq!(unescape(b"a\\9\\777"), b"a\\9\\777");
    }

    #[test]
    fn of_several_mounts_at_a_folder_the_topmost_is_seen() {
        let text = b"40 41 8:1 / /srv rw - ext4 /dev/a rw\n41 30 8:2 / /srv rw - ext4 /dev/b rw\n";
        let mounts = parse(text);
        assert_eq!(top_at(&mounts, Path::new("/srv")).map(|m| m.id), Some(40), "whatever the order of the lines");
        assert_eq!(top_at(&mounts, Path::new("/sr")), None);
        assert!(!here().unwrap().is_empty());
    }
}
