//! The client of HAProxy's runtime API: one connection a command over the stats socket, bounded in time and size.

use std::{
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use socket2::{Domain, SockAddr, Socket, Type};

/// The longest that one answer is waited for.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// No answer is read beyond this.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Why the runtime API gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Nobody listens.
    #[error("HAProxy's stats socket {} cannot be reached: {source}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No answer in time, or half of one.
    #[error("HAProxy did not answer `{command}` on {}: {source}", path.display())]
    Silent {
        /// The socket.
        path: PathBuf,
        /// The command.
        command: String,
        /// What happened.
        source: io::Error,
    },
    /// An answer without an end.
    #[error("HAProxy's answer to `{command}` is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong {
        /// The command.
        command: String,
    },
    /// HAProxy would not.
    #[error("HAProxy refused `{command}`: {answer}")]
    Refused {
        /// The command.
        command: String,
        /// In its own words.
        answer: String,
    },
}

impl RuntimeError {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "see whether HAProxy runs, and whether `socket` is its stats socket",
            Self::Silent { .. } => "see what HAProxy does; a stopped one answers nothing",
            Self::TooLong { .. } => "HAProxy has more servers or map entries than can be handed over",
            Self::Refused { answer, .. } if answer.contains("ermission denied") => {
                "give the stats socket `level admin` in HAProxy's `global` section"
            }
            Self::Refused { .. } => "HAProxy 2.4 or later is needed, with the same configuration on both nodes",
        }
    }
}

/// A client of one stats socket.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// Of the socket at a path. Nothing is opened yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives a command, or several with `;` between them, and reads the answer.
    ///
    /// # Errors
    /// [`RuntimeError`]; `Refused` only when the command is unknown or not allowed: other refusals are in the answer, in
    /// words that differ between versions.
    pub fn ask(&self, command: &str) -> Result<String, RuntimeError> {
        self.exchange(command, &format!("{command}\n"))
    }

    /// Gives a command with a payload of whole lines, none of them empty.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn ask_with(&self, command: &str, payload: &str) -> Result<String, RuntimeError> {
        self.exchange(command, &format!("{command} <<\n{payload}\n"))
    }

    /// Gives a command that answers nothing when it goes well.
    ///
    /// # Errors
    /// As [`Self::ask`], and `Refused` with whatever HAProxy says.
    pub fn order(&self, command: &str) -> Result<(), RuntimeError> {
        let answer = self.ask(command)?;
        match answer.trim() {
            "" => Ok(()),
            said => Err(RuntimeError::Refused { command: command.to_owned(), answer: said.to_owned() }),
        }
    }

    fn exchange(&self, command: &str, request: &str) -> Result<String, RuntimeError> {
        let unreachable = |source| RuntimeError::Unreachable { path: self.path.clone(), source };
        let command = command.chars().take(120).collect::<String>();
        let silent = |source| RuntimeError::Silent { path: self.path.clone(), command: command.clone(), source };
        let mut stream = self.connect().map_err(unreachable)?;
        let deadline = Instant::now() + ANSWER_LIMIT;
        stream.set_write_timeout(Some(ANSWER_LIMIT)).map_err(silent)?;
        stream.write_all(request.as_bytes()).map_err(silent)?;
        // HAProxy answers what it has got, and closes.
        stream.shutdown(Shutdown::Write).map_err(silent)?;
        let mut answer = Vec::new();
        let mut piece = vec![0; 64 << 10];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(silent(io::ErrorKind::TimedOut.into()));
            }
            stream.set_read_timeout(Some(left)).map_err(silent)?;
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => answer.extend_from_slice(&piece[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Err(silent(io::ErrorKind::TimedOut.into()));
                }
                Err(e) => return Err(silent(e)),
            }
            if answer.len() > ANSWER_BYTES_MAX {
                return Err(RuntimeError::TooLong { command });
            }
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let first = answer.trim_start().lines().next().unwrap_or("");
        if first.starts_with("Unknown command") || first.starts_with("Permission denied") {
            return Err(RuntimeError::Refused { command, answer: first.to_owned() });
        }
        Ok(answer)
    }

    /// Never waits: with a backlog that is full the kernel says so.
    fn connect(&self) -> io::Result<UnixStream> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(&self.path)?)?;
        socket.set_nonblocking(false)?;
        Ok(UnixStream::from(OwnedFd::from(socket)))
    }
}
