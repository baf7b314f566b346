//! An agent leaves a keeper: the side of the agent that is about to restart.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use thiserror::Error;

use super::{BEATING, Last, Orders, READY};

/// How long a keeper may take to prepare.
const READY_WITHIN: Duration = Duration::from_secs(3);
/// How long its first beat may take.
const BEATING_WITHIN: Duration = Duration::from_millis(500);

/// Why no keeper could be left.
#[derive(Debug, Error)]
pub enum LeaveError {
    /// It cannot be run, or ended.
    #[error("the keeper cannot be started")]
    Io(#[from] io::Error),
    /// The orders cannot be written down.
    #[error("the keeper's orders cannot be written down")]
    Orders(#[from] serde_json::Error),
    /// It did not say what it should.
    #[error("the keeper did not say \"{awaited}\" within {} ms; the agent's log says more", within.as_millis())]
    Silent {
        /// The word.
        awaited: &'static str,
        /// How long it was waited for.
        within: Duration,
    },
}

/// A keeper that is ready to beat. Dropped before [`Left::go`], it ends.
#[derive(Debug)]
pub struct Left {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    gone: bool,
}

impl Left {
    /// Starts a keeper, from the program that runs now whatever is at its path, and waits until it is ready. Not to be called
    /// from a thread with realtime priority.
    ///
    /// # Errors
    /// [`LeaveError`]; nothing is left behind then.
    pub fn spawn(orders: &Orders) -> Result<Self, LeaveError> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("baton").arg("keeper").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("no pipes").into());
        };
        // From here on an error ends the child.
        let mut left = Self { child, input, output: BufReader::new(output), gone: false };
        left.tell(orders)?;
        left.hear(READY, READY_WITHIN)?;
        Ok(left)
    }

    /// The agent's own pulse has ended: the keeper beats from here on, above `last`, and outlives this process.
    ///
    /// # Errors
    /// [`LeaveError`]: nobody may be beating now.
    pub fn go(mut self, last: &Last) -> Result<(), LeaveError> {
        self.tell(last)?;
        self.gone = true;
        self.hear(BEATING, BEATING_WITHIN)
    }

    fn tell(&mut self, what: &impl serde::Serialize) -> Result<(), LeaveError> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        self.input.write_all(&line)?;
        Ok(self.input.flush()?)
    }

    fn hear(&mut self, awaited: &'static str, within: Duration) -> Result<(), LeaveError> {
        let timeout = Timespec { tv_sec: within.as_secs() as _, tv_nsec: within.subsec_nanos().into() };
        let mut source = [PollFd::from_borrowed_fd(self.output.get_ref().as_fd(), PollFlags::IN)];
        let mut word = String::new();
        // It writes whole lines, and nothing else.
        if poll(&mut source, Some(&timeout)).map_err(io::Error::from)? != 0 {
            self.output.read_line(&mut word)?;
        }
        if word.trim_end() == awaited { Ok(()) } else { Err(LeaveError::Silent { awaited, within }) }
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        if !self.gone {
            // It is this process's own child, and has not been waited for: the number is still its.
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}
