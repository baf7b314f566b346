//! The segment files: made of zeros ahead of time, so that a record's write changes no metadata and fdatasync is short.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// The name of a segment.
pub(super) fn path(folder: &Path, segment: u64) -> PathBuf {
    folder.join(format!("log-{segment:012}"))
}

/// What is called like a segment in a folder: its path, and its number unless it is the leftover of an interrupted [`create`].
fn named(folder: &Path) -> io::Result<Vec<(PathBuf, Option<u64>)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.strip_prefix("log-")) {
            found.push((entry.path(), number.parse().ok()));
        }
    }
    Ok(found)
}

/// The segments in a folder, in order. Changes nothing: another thread may be making one.
pub(super) fn list(folder: &Path) -> io::Result<Vec<u64>> {
    let mut segments: Vec<u64> = named(folder)?.into_iter().filter_map(|(_, number)| number).collect();
    segments.sort_unstable();
    Ok(segments)
}

/// Removes what an interrupted [`create`] left. Only while nobody makes segments: before the log's threads start.
pub(super) fn remove_unfinished(folder: &Path) -> io::Result<()> {
    named(folder)?.into_iter().filter(|(_, number)| number.is_none()).try_for_each(|(path, _)| fs::remove_file(path))
}

/// Makes a segment of zeros that is durable under its name, unless it exists.
///
/// The writer and its helper may both make the same one: each fills a file of its own, and the first to give it the name wins.
/// Nobody ever writes zeros to a file that already has its name.
pub(super) fn create(folder: &Path, segment: u64, bytes: u64) -> io::Result<()> {
    let path = path(folder, segment);
    if path.try_exists()? {
        return Ok(());
    }
    static MADE: AtomicU64 = AtomicU64::new(0);
    let unfinished = path.with_extension(format!("new{}", MADE.fetch_add(1, Relaxed)));
    let mut file = File::create(&unfinished)?;
    // Real zeros, not fallocate(2): an unwritten extent must be converted in the journal at its first write.
    let zeros = vec![0; 1 << 16];
    let mut left = bytes;
    while left > 0 {
        let size = left.min(zeros.len() as u64);
        file.write_all(&zeros[..size as usize])?;
        left -= size;
    }
    file.sync_all()?;
    // A link, unlike a rename, never replaces.
    let named = fs::hard_link(&unfinished, &path);
    fs::remove_file(&unfinished)?;
    match named {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_folder(folder),
    }
}

/// Opens a segment for writing.
pub(super) fn open(folder: &Path, segment: u64) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path(folder, segment))
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Clears a segment from `offset` to its end, durably: what a torn write left there must never be taken for records.
pub(super) fn clear(file: &File, offset: u64) -> io::Result<()> {
    let length = file.metadata()?.len();
    let mut tail = vec![0; usize::try_from(length.saturating_sub(offset)).unwrap_or(0)];
    file.read_exact_at(&mut tail, offset)?;
    if tail.iter().any(|byte| *byte != 0) {
        tail.fill(0);
        file.write_all_at(&tail, offset)?;
        file.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The writer needs a segment while its helper is still making it: what is written must not be zeroed again.
    #[test]
    fn two_makers_of_one_segment_do_not_harm_each_other() {
        let folder = tempfile::tempdir().unwrap();
        for segment in 1..=40 {
            let helper = std::thread::spawn({
                let folder = folder.path().to_owned();
                move || create(&folder, segment, 1 << 18)
            });
            create(folder.path(), segment, 1 << 18).unwrap();
            let file = open(folder.path(), segment).unwrap();
            file.write_all_at(b"record", 0).unwrap();
            helper.join().unwrap().unwrap();
            let mut found = [0; 6];
            open(folder.path(), segment).unwrap().read_exact_at(&mut found, 0).unwrap();
            assert_eq!(&found, b"record", "segment {segment}");
            fs::remove_file(path(folder.path(), segment)).unwrap();
        }
        assert_eq!(named(folder.path()).unwrap(), [], "nothing unfinished is left");
    }

    #[test]
    fn what_is_being_made_is_left_alone_until_the_log_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        create(folder.path(), 3, 1 << 10).unwrap();
        let unfinished = path(folder.path(), 4).with_extension("new7");
        fs::write(&unfinished, "").unwrap();
        assert_eq!(list(folder.path()).unwrap(), [3]);
        assert!(unfinished.exists());
        remove_unfinished(folder.path()).unwrap();
        assert_eq!((list(folder.path()).unwrap(), unfinished.exists()), (vec![3], false));
    }
}
