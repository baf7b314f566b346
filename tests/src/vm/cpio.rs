//! Archives in the "newc" format, which the kernel unpacks as its first file system
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::Path,
};

const FOLDER: u32 = 0o040_755;
const SYMLINK: u32 = 0o120_777;
const FILE: u32 = 0o100_000;

/// Writes an archive entry by entry. The folders above an entry are made as they are needed.
#[derive(Debug)]
pub struct Archive<W> {
    out: W,
    number: u32,
    folders: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// An empty archive.
    pub fn new(out: W) -> Self {
        Self { out, number: 0, folders: BTreeSet::new() }
    }

    /// An empty folder.
    pub fn folder(&mut self, path: &str) -> io::Result<()> {
        let path = path.trim_matches('/');
        self.parents(path)?;
        if self.folders.insert(path.to_owned()) {
            self.entry(path, FOLDER, &[])?;
        }
        Ok(())
    }

    /// A file with these permissions.
    pub fn file(&mut self, path: &str, permissions: u32, content: &[u8]) -> io::Result<()> {
        let path = path.trim_matches('/');
        self.parents(path)?;
        self.entry(path, FILE | permissions, content)
    }

    /// A symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        let path = path.trim_matches('/');
        self.parents(path)?;
        self.entry(path, SYMLINK, target.as_bytes())
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.out.flush()
    }

    fn parents(&mut self, path: &str) -> io::Result<()> {
        match Path::new(path).parent().and_then(Path::to_str) {
            Some(parent) if !parent.is_empty() => self.folder(parent),
            _ => Ok(()),
        }
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.number += 1;
        let too_long = |_error| io::Error::other(format!("{path} is too long for an archive"));
        let size = u32::try_from(content.len()).map_err(too_long)?;
        let name = u32::try_from(path.len() + 1).map_err(too_long)?;
        // inode, mode, owner, group, links, time, size, device of the file and named by it (two words each), name, sum
        let fields = [self.number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0];
        let mut head = "070701".to_owned();
        fields.iter().for_each(|field| head.push_str(&format!("{field:08x}")));
        self.out.write_all(head.as_bytes())?;
        self.out.write_all(path.as_bytes())?;
        self.pad(head.len() + path.len(), 1)?;
        self.out.write_all(content)?;
        self.pad(content.len(), 0)
    }

    /// Zeros, at least `least`, up to a multiple of four.
    fn pad(&mut self, length: usize, least: usize) -> io::Result<()> {
        let zeros = (length + least).next_multiple_of(4) - length;
        self.out.write_all(&[0; 4][..zeros])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_its_folders_once_and_every_header_at_a_multiple_of_four() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.file("/a/b/one", 0o755, b"12345").unwrap();
        archive.symlink("a/b/two", "one").unwrap();
        archive.folder("/a").unwrap();
        archive.finish().unwrap();
        let mut names = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let field = |i: usize| {
                let text = std::str::from_utf8(&bytes[at + 6 + 8 * i..][..8]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            assert_eq!(&bytes[at..at + 6], b"070701");
            assert_eq!(at % 4, 0);
            let (size, name) = (field(6), field(11));
            names.push(String::from_utf8(bytes[at + 110..at + 110 + name - 1].to_vec()).unwrap());
            at = (at + 110 + name).next_multiple_of(4);
            at = (at + size).next_multiple_of(4);
        }
        assert_eq!(names, ["a", "a/b", "a/b/one", "a/b/two", "TRAILER!!!"]);
    }
}
