//! What is remembered of a process over a restart of the agent: `RUN_DIR/GROUP@NAME.json`.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use blake2::{Blake2b, Digest, digest::consts::U16};
use serde::{Deserialize, Serialize};

use super::scope::Scope;
use crate::{config::kinds, process::Identity};

/// What is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The process that was started.
    pub main: Identity,
    /// The control group that holds it.
    pub holder: Option<PathBuf>,
    /// All its control groups.
    pub folders: Vec<PathBuf>,
    /// A digest of what it was started with.
    pub settings: String,
    /// It was ready.
    pub ready: bool,
}

impl Record {
    /// Reads it; none when there is none, or one that nobody can read.
    pub fn read(file: &Path) -> Option<Self> {
        match serde_json::from_slice(&fs::read(file).ok()?) {
            Ok(record) => Some(record),
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "this is no record of a process, and is passed over");
                None
            }
        }
    }

    /// Writes it as a whole.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        let mut new = file.as_os_str().to_owned();
        new.push(".new");
        let mut open = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
        open.write_all(&serde_json::to_vec(self)?)?;
        fs::rename(new, file)
    }

    /// What belongs to it.
    pub fn scope(&self) -> Scope {
        match &self.holder {
            Some(folder) => Scope::Group(folder.clone()),
            None => Scope::Session(self.main.clone()),
        }
    }
}

/// A digest of what a process is started with: where it differs, what runs is not what is configured. How it is stopped, and
/// how it says that it is ready, do not count.
pub fn settings(spec: &kinds::Process) -> String {
    let counted = (
        (&spec.command, &spec.environment, &spec.user, &spec.group, &spec.directory),
        (&spec.log, spec.memory, spec.pids, matches!(spec.ready, Some(kinds::Ready::Notify))),
    );
    let mut hash = Blake2b::<U16>::new();
    // Strings and numbers always have a form in JSON.
    hash.update(serde_json::to_vec(&counted).unwrap_or_default());
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
