//! An agent finds the keeper of the one before it.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use rustix::process::{Pid, WaitOptions, waitpid};
use tracing::warn;

use super::{END, Hello, socket_in};

/// How long a keeper may take to say who it is.
const HELLO_WITHIN: Duration = Duration::from_millis(500);
/// No greeting is longer, in bytes.
const HELLO_MAX: u64 = 1 << 20;
/// How often, and how many times, a keeper that has ended is waited for.
const REAP_PACE: Duration = Duration::from_millis(10);
const REAP_TRIES: u32 = 200;

/// The connection to a keeper that beats for this machine.
#[derive(Debug)]
pub struct Held {
    hello: Hello,
    stream: UnixStream,
}

impl Held {
    /// The keeper that listens in a run directory; `None` where there is none that answers.
    pub fn find(run_dir: &Path) -> Option<Self> {
        let stream = UnixStream::connect(socket_in(run_dir)).ok()?;
        match greet(&stream) {
            Ok(hello) => Some(Self { hello, stream }),
            Err(error) => {
                warn!(%error, "a keeper is there that does not say who it is");
                None
            }
        }
    }

    /// Whom it beats for.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Calls `gone` from a thread of its own once the keeper has ended, for whatever reason.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn watch(&self, gone: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut stream = self.stream.try_clone()?;
        stream.set_read_timeout(None)?;
        let pid = self.hello.pid;
        std::thread::Builder::new().name("keeper".into()).spawn(move || {
            // It says nothing more: whatever comes is its end.
            drop(stream.read(&mut [0; 1]));
            gone();
            reap(pid);
        })?;
        Ok(())
    }

    /// Tells the keeper to end. Never waits.
    pub fn end(mut self) {
        // Should it not hear, it sees the maps' new incarnation.
        if let Err(error) = writeln!(self.stream, "{END}") {
            warn!(%error, "the keeper was not told to end");
        }
    }
}

fn greet(stream: &UnixStream) -> io::Result<Hello> {
    stream.set_read_timeout(Some(HELLO_WITHIN))?;
    let mut line = String::new();
    BufReader::new(stream.take(HELLO_MAX)).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// Where the agent restarted by execve(2), the keeper is still its child.
fn reap(pid: u32) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    for _ in 0..REAP_TRIES {
        match waitpid(Some(pid), WaitOptions::NOHANG) {
            Ok(None) => std::thread::sleep(REAP_PACE),
            // Waited for, or nobody's child here.
            _ => return,
        }
    }
}
