//! The segment files: made of zeros ahead of time, so that a record's write changes no metadata and fdatasync is short.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// The name of a segment.
pub(super) fn path(folder: &Path, segment: u64) -> PathBuf {
    folder.join(format!("log-{segment:012}"))
}

/// The segments in a folder, in order; leftovers of an interrupted [`create`] are removed.
pub(super) fn list(folder: &Path) -> io::Result<Vec<u64>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().and_then(|name| name.strip_prefix("log-")) else {
            continue;
        };
        match name.parse() {
            Ok(segment) => segments.push(segment),
            Err(_) => fs::remove_file(entry.path())?,
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

/// One segment is made at a time: the log's thread and its helper may want the same one at once, and whoever came second would
/// write zeros into, or put an empty file in the place of, what the other one has begun to fill.
static MAKING: Mutex<()> = Mutex::new(());

/// Makes a segment of zeros that is durable under its name, unless it exists. Waits for a segment that is being made.
pub(super) fn create(folder: &Path, segment: u64, bytes: u64) -> io::Result<()> {
    let _one = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let path = path(folder, segment);
    if path.try_exists()? {
        return Ok(());
    }
    let unfinished = path.with_extension("new");
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
    fs::rename(&unfinished, &path)?;
    sync_folder(folder)
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

    #[test]
    fn a_segment_that_two_threads_make_at_once_is_made_once_and_keeps_what_is_written_to_it() {
        let folder = tempfile::tempdir().unwrap();
        for number in 1..=100 {
            std::thread::scope(|scope| {
                let helper = scope.spawn(|| create(folder.path(), number, 1 << 18));
                create(folder.path(), number, 1 << 18).unwrap();
                let file = open(folder.path(), number).unwrap();
                file.write_all_at(&[7; 1 << 18], 0).unwrap();
                helper.join().unwrap().unwrap();
                assert!(
                    fs::read(path(folder.path(), number)).unwrap() == [7; 1 << 18],
                    "segment {number} was overwritten"
                );
            });
        }
    }
}
