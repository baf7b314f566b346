//! One lab at a time on a machine: timing and two CPUs leave no room for two.

use std::{
    fs::{File, TryLockError},
    io::ErrorKind,
    path::PathBuf,
};

use anyhow::{Context, Result};

/// Held while a lab is in use; given back when dropped, or by the kernel when the process dies.
#[derive(Debug)]
pub struct Exclusive {
    _file: File,
}

impl Exclusive {
    /// Waits until no other process and no other test of this one uses a lab.
    pub fn take() -> Result<Self> {
        let path: PathBuf = std::env::temp_dir().join("baton-lab.lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open the lab's lock {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                eprintln!("baton-lab: waiting for another lab to end ({})", path.display());
                while let Err(error) = file.lock() {
                    if error.kind() != ErrorKind::Interrupted {
                        return Err(error).context("cannot lock the lab");
                    }
                }
            }
            Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the lab"),
        }
        Ok(Self { _file: file })
    }
}
