//! Whether a filesystem really works: its folder is looked at, and on demand a file is written, read and removed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Looks at the folder; `file` is written, synced to the disk, read and removed.
///
/// # Errors
/// What failed, in words.
pub fn touch(folder: &Path, file: Option<&str>) -> Result<(), String> {
    // A filesystem that has shut down answers this with an error.
    fs::metadata(folder).map_err(|e| format!("{} cannot be looked at: {e}; see dmesg", folder.display()))?;
    let Some(file) = file else { return Ok(()) };
    let path = folder.join(file);
    let failed = |what: &str, e: io::Error| Err(format!("{} cannot be {what}: {e}; see dmesg", path.display()));
    let text = format!("{}\n", crate::clock::now());
    if let Err(e) = write(&path, &text) {
        return failed("written", e);
    }
    let mut back = String::new();
    match File::open(&path).and_then(|mut f| f.read_to_string(&mut back)) {
        Ok(_) if back == text => {}
        Ok(_) => return Err(format!("{} does not hold what was written to it", path.display())),
        Err(e) => return failed("read", e),
    }
    fs::remove_file(&path).or_else(|e| failed("removed", e))
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let options = libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).custom_flags(options).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
