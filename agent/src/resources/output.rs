//! The file that a program's output goes to: appended to, readable by its owner alone, and bounded.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Beyond this the file is emptied, and its last part kept beside it.
pub const BYTES_MAX: u64 = 4 << 20;
/// So much is kept.
const KEPT_BYTES: u64 = 1 << 20;
/// Of the output so much is read for an error.
const TAIL_BYTES: u64 = 4 << 10;
/// And so many of its lines are shown.
const TAIL_LINES: usize = 5;

/// An output file.
#[derive(Clone, Debug)]
pub struct Output {
    path: PathBuf,
}

impl Output {
    /// That of a path; nothing is opened yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it for a program, and says how long it is already. Makes its folder where that is missing.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(&self) -> io::Result<(File, u64)> {
        self.bound();
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    }

    /// Empties it when it has grown beyond [`BYTES_MAX`]; its last part goes to `FILE.1`. Programs append, so they write on at
    /// its beginning. Best effort: a log that cannot be kept short stops nothing.
    pub fn bound(&self) {
        if fs::metadata(&self.path).is_ok_and(|m| m.is_file() && m.len() > BYTES_MAX)
            && let Err(error) = self.empty()
        {
            tracing::warn!(log = %self.path.display(), %error, "the output cannot be kept short");
        }
    }

    fn empty(&self) -> io::Result<()> {
        let mut file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(KEPT_BYTES)))?;
        let mut kept = self.path.clone().into_os_string();
        kept.push(".1");
        let mut kept = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(kept)?;
        io::copy(&mut (&mut file).take(KEPT_BYTES), &mut kept)?;
        file.set_len(0)
    }

    /// The last lines written since it was `from` bytes long, in one line; `None` when there are none.
    pub fn tail(&self, from: u64) -> Option<String> {
        let mut file = File::open(&self.path).ok()?;
        let length = file.metadata().ok()?.len();
        // It may have been emptied meanwhile.
        let from = if from > length { 0 } else { from };
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(TAIL_BYTES)))).ok()?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes).ok()?;
        last_lines(&bytes)
    }
}

/// The last lines of a text in one line, without what would confuse a terminal.
pub fn last_lines(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.chars().filter(|c| !c.is_control()).collect::<String>().trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    let last = lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default();
    (!last.is_empty()).then(|| last.join(" | "))
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn the_last_lines_since_a_point_are_shown() {
        let dir = tempfile::tempdir().unwrap();
        let output = Output::new(dir.path().join("below/out.log"));
        let (mut file, start) = output.open().unwrap();
        assert_eq!((start, output.tail(0)), (0, None));
        assert_eq!(fs::metadata(output.path()).unwrap().permissions().mode() & 0o777, 0o600);
        file.write_all(b"old\n").unwrap();
        let (mut file, start) = output.open().unwrap();
        assert_eq!(output.tail(start), None);
        for n in 0..9 {
            writeln!(file, "  line {n}\u{1b}[0m\n").unwrap();
        }
        assert_eq!(output.tail(start).unwrap(), "line 4[0m | line 5[0m | line 6[0m | line 7[0m | line 8[0m");
    }

    #[test]
    fn it_is_bounded_and_its_last_part_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let output = Output::new(dir.path().join("out.log"));
        let (mut file, _) = output.open().unwrap();
        let line = [b'x'; 1023].into_iter().chain([b'\n']).collect::<Vec<u8>>();
        for _ in 0..=BYTES_MAX / 1024 {
            file.write_all(&line).unwrap();
        }
        file.write_all(b"the end\n").unwrap();
        output.bound();
        assert_eq!(fs::metadata(output.path()).unwrap().len(), 0);
        let kept = fs::read(dir.path().join("out.log.1")).unwrap();
        assert!(kept.len() as u64 == KEPT_BYTES && kept.ends_with(b"\nthe end\n"));
        file.write_all(b"on\n").unwrap();
        assert_eq!(fs::read(output.path()).unwrap(), b"on\n");
        assert_eq!(output.tail(99).unwrap(), "on", "it is shorter than it was");
    }
}
