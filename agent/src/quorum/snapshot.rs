//! The snapshot file: the state after some entry, so that the log behind it can be short.
//!
//! `magic 8 bytes | crc32c u32 | length of the description u32 | description (JSON) | state (JSON)`, replaced by rename.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    log::segment::sync_folder,
    types::{Snapshot, SnapshotMeta},
};

const MAGIC: &[u8; 8] = b"BTNSNAP1";
const HEADER_BYTES: usize = 16;

/// Why the snapshot could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file could not be read or written.
    #[error("the snapshot at {} could not be read or written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is damaged; it is only ever replaced as a whole, so this is the disk's doing.
    #[error(
        "the snapshot {} is damaged. The log behind it cannot be used without it. To rejoin: stop the agent, move the \
         data folder away, check the disk, and let this machine join under a new voter number", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The file is sound, but its state is not what this version expects.
    #[error("the state in the snapshot in {} cannot be read: start the version of the agent that wrote it", path.display())]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
}

/// The newest snapshot, in memory and on disk.
#[derive(Clone)]
pub(super) struct Snapshots {
    path: PathBuf,
    current: Arc<Mutex<Option<Stored>>>,
    /// Held while the file is replaced: a snapshot that is being built and one that is installed may meet.
    writing: Arc<Mutex<()>>,
}

#[derive(Clone)]
struct Stored {
    meta: SnapshotMeta,
    data: Arc<Vec<u8>>,
}

impl Snapshots {
    /// Reads the snapshot in `folder`, if there is one.
    pub fn open(folder: &Path) -> Result<Self, SnapshotError> {
        let path = folder.join("snapshot");
        let current = match fs::read(&path) {
            Ok(bytes) => Some(decode(&bytes).ok_or_else(|| SnapshotError::Damaged { path: path.clone() })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(SnapshotError::Io { path, source }),
        };
        Ok(Self { path, current: Arc::new(Mutex::new(current)), writing: Arc::default() })
    }

    /// The newest snapshot.
    pub fn current(&self) -> Option<Snapshot> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().map(|stored| Snapshot {
            meta: stored.meta.clone(),
            snapshot: Box::new(io::Cursor::new(stored.data.to_vec())),
        })
    }

    /// Makes a snapshot the current one, durably, unless a newer one is. Blocks on the disk.
    pub fn store(&self, meta: SnapshotMeta, data: Vec<u8>) -> Result<(), SnapshotError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            if current.as_ref().is_some_and(|stored| stored.meta.last_log_id > meta.last_log_id) {
                return Ok(());
            }
        }
        self.replace(&meta, &data).map_err(|source| SnapshotError::Io { path: self.path.clone(), source })?;
        let stored = Stored { meta, data: Arc::new(data) };
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(stored);
        Ok(())
    }

    fn replace(&self, meta: &SnapshotMeta, data: &[u8]) -> io::Result<()> {
        let unfinished = self.path.with_extension("new");
        let mut file = File::create(&unfinished)?;
        file.write_all(&encode(meta, data)?)?;
        file.sync_all()?;
        fs::rename(&unfinished, &self.path)?;
        match self.path.parent() {
            Some(folder) => sync_folder(folder),
            None => Ok(()),
        }
    }
}

fn encode(meta: &SnapshotMeta, data: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEADER_BYTES];
    serde_json::to_writer(&mut bytes, meta)?;
    let length = u32::try_from(bytes.len() - HEADER_BYTES).map_err(io::Error::other)?;
    bytes.extend_from_slice(data);
    bytes[..8].copy_from_slice(MAGIC);
    bytes[12..16].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[12..]);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Option<Stored> {
    let header = bytes.get(..HEADER_BYTES)?;
    let checksum = u32::from_le_bytes(header[8..12].try_into().ok()?);
    if &header[..8] != MAGIC || crc32c::crc32c(&bytes[12..]) != checksum {
        return None;
    }
    let length = usize::try_from(u32::from_le_bytes(header[12..16].try_into().ok()?)).ok()?;
    let (meta, data) = bytes[HEADER_BYTES..].split_at_checked(length)?;
    Some(Stored { meta: serde_json::from_slice(meta).ok()?, data: Arc::new(data.to_vec()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quorum::types::LogId;

    fn meta(index: u64) -> SnapshotMeta {
        let last_log_id = Some(LogId { index, ..LogId::default() });
        SnapshotMeta { last_log_id, snapshot_id: index.to_string(), ..SnapshotMeta::default() }
    }

    #[test]
    fn the_newest_snapshot_survives_a_restart_and_an_older_one_does_not_replace_it() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let snapshots = Snapshots::open(folder.path()).expect("opens");
        assert!(snapshots.current().is_none());
        snapshots.store(meta(7), b"seven".to_vec()).expect("stored");
        snapshots.store(meta(3), b"three".to_vec()).expect("left alone");
        let current = Snapshots::open(folder.path()).expect("opens").current().expect("there is one");
        assert_eq!((current.meta, current.snapshot.into_inner()), (meta(7), b"seven".to_vec()));
    }

    #[test]
    fn any_flipped_bit_is_refused() {
        let folder = tempfile::tempdir().expect("temporary folder");
        Snapshots::open(folder.path()).expect("opens").store(meta(7), b"seven".to_vec()).expect("stored");
        let path = folder.path().join("snapshot");
        let sound = fs::read(&path).expect("read");
        for bit in 0..sound.len() * 8 {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bytes).expect("written");
            assert!(matches!(Snapshots::open(folder.path()), Err(SnapshotError::Damaged { .. })), "bit {bit}");
        }
    }
}
