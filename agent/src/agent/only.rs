//! One agent a state directory: a second one would take the kernel side away from the first.

use std::{
    fs::{self, File},
    path::Path,
};

use anyhow::{Context as _, anyhow};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

/// Takes the directory (made when missing) for this process, until the file is dropped.
///
/// # Errors
/// Another agent has it, or the file cannot be made.
pub fn take(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("agent.lock");
    let file = fs::create_dir_all(folder).and_then(|()| File::create(&path));
    let file = file.with_context(|| format!("cannot make {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(anyhow!(
            "an agent runs already with {}: stop it first, or give this one its own data_dir",
            folder.display()
        )),
        Err(errno) => Err(errno).with_context(|| format!("cannot lock {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::take;

    #[test]
    fn a_second_agent_is_refused_until_the_first_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let first = take(&data).unwrap();
        let refused = take(&data).unwrap_err();
        assert!(refused.to_string().contains("runs already"), "{refused}");
        drop(first);
        take(&data).unwrap();
    }
}
