//! The incarnation: a number on disk that grows at each start of the agent.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::log::segment::sync_folder;
use crate::cluster::ids::Incarnation;

/// Heartbeats carry the incarnation in 24 bits.
pub const INCARNATION_MAX: Incarnation = (1 << 24) - 1;

/// Why the incarnation could not be grown.
#[derive(Debug, thiserror::Error)]
pub enum IncarnationError {
    /// The file could not be read or written.
    #[error("the incarnation at {} could not be read or written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} does not hold an incarnation: this machine must join under a new voter number, with a new data folder", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Too many starts.
    #[error("this voter was started {INCARNATION_MAX} times: let this machine join under a new voter number")]
    Exhausted,
}

/// Grows the incarnation kept in `folder` (made when missing), durably, and returns it: 1 at the first start.
pub fn advance(folder: &Path) -> Result<Incarnation, IncarnationError> {
    let path = folder.join("incarnation");
    let io = |source| IncarnationError::Io { path: path.clone(), source };
    fs::create_dir_all(folder).map_err(io)?;
    let last: Incarnation = match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| IncarnationError::Damaged { path: path.clone() })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(io(error)),
    };
    if last >= INCARNATION_MAX {
        return Err(IncarnationError::Exhausted);
    }
    let next = last + 1;
    let unfinished = folder.join("incarnation.new");
    let mut file = File::create(&unfinished).map_err(io)?;
    writeln!(file, "{next}").map_err(io)?;
    file.sync_all().map_err(io)?;
    fs::rename(&unfinished, &path).map_err(io)?;
    sync_folder(folder).map_err(io)?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_at_each_start_and_refuses_nonsense() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let data = folder.path().join("data");
        assert_eq!(advance(&data).expect("first"), 1);
        assert_eq!(advance(&data).expect("second"), 2);
        fs::write(data.join("incarnation"), "many").expect("written");
        assert!(matches!(advance(&data), Err(IncarnationError::Damaged { .. })));
        fs::write(data.join("incarnation"), INCARNATION_MAX.to_string()).expect("written");
        assert!(matches!(advance(&data), Err(IncarnationError::Exhausted)));
    }
}
