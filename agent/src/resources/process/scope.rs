//! What belongs to a process: all that is in its control group, or in its session where there are none.

use std::{
    fs, io,
    path::PathBuf,
    time::{Duration, Instant},
};

use super::cgroup;
use crate::process::{Identity, session};

/// Between two looks whether all have ended: first, and at most.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// So many of those that are left are named.
const NAMED_MAX: usize = 5;

/// All processes of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those in a control group.
    Group(PathBuf),
    /// Those in the session of a process. One that begins a session of its own is lost.
    Session(Identity),
}

impl Scope {
    /// Those that live.
    ///
    /// # Errors
    /// The kernel's.
    pub fn members(&self) -> io::Result<Vec<u32>> {
        match self {
            Self::Group(folder) => cgroup::members(folder),
            Self::Session(leader) => session(leader),
        }
    }

    /// Kills all, and waits until none is left.
    ///
    /// # Errors
    /// `TimedOut`, with those that are left; or the kernel's.
    pub fn clear(&self, limit: Duration) -> io::Result<()> {
        let deadline = Instant::now() + limit;
        let mut pause = LOOK_AGAIN.0;
        loop {
            let left = self.members()?;
            if left.is_empty() {
                return Ok(());
            }
            match self {
                Self::Group(folder) => cgroup::kill(folder)?,
                Self::Session(_) => cgroup::signal_all(&left)?,
            }
            if Instant::now() > deadline {
                let words = format!("{} was killed and does not end", named(&left));
                return Err(io::Error::new(io::ErrorKind::TimedOut, words));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LOOK_AGAIN.1);
        }
    }
}

/// Processes in words: "process 12 (postgres, state D), 13 (…)".
pub fn named(pids: &[u32]) -> String {
    let one = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |key: &str| status.lines().find_map(|l| Some(l.strip_prefix(key)?.trim().to_owned()));
        match (field("Name:"), field("State:")) {
            (Some(name), Some(state)) => format!("{pid} ({name}, state {})", state.chars().take(1).collect::<String>()),
            _ => pid.to_string(),
        }
    };
    let mut text = format!("process {}", pids.iter().take(NAMED_MAX).map(one).collect::<Vec<_>>().join(", "));
    if pids.len() > NAMED_MAX {
        text.push_str(&format!(" and {} more", pids.len() - NAMED_MAX));
    }
    text
}
