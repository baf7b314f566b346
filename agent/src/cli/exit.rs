//! Exit codes, and what a failed command says.

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use thiserror::Error;

use super::client::ClientError;
use crate::{
    api::protocol::ErrorKind,
    config::{ConfigError, KeyError},
};

/// The list in `--help`.
pub(super) const HELP: &str = "Exit codes: 0 done, 1 an error, 2 wrong usage or configuration, 3 the cluster refused,\n4 no agent or no quorum, 5 no answer in time (an order may still be carried out)";

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// An error that none of the others names.
    Error = 1,
    /// Wrong usage, or a configuration with mistakes.
    Usage = 2,
    /// The cluster understood, and refused.
    Refused = 3,
    /// No agent answers, or there is no quorum.
    Unavailable = 4,
    /// No answer in time: what was ordered may still happen.
    Late = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Config(#[from] Box<ConfigError>),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Output(#[from] io::Error),
    #[error("{0}")]
    Late(String),
    #[error("{0}")]
    Wrong(String),
    #[error(transparent)]
    Agent(anyhow::Error),
}

impl Failure {
    /// Says on standard error what went wrong, and gives the exit code.
    pub fn report(&self) -> Exit {
        match self {
            Self::Config(e) => eprint!("{}", e.render(colour())),
            // `baton events | head` is no failure worth a word.
            Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => return Exit::Done,
            Self::Output(e) => eprintln!("baton: the output could not be written: {e}"),
            Self::Agent(e) => eprintln!("baton: {e:#}"),
            Self::Client(_) | Self::Key(_) | Self::Late(_) | Self::Wrong(_) => eprintln!("baton: {}", chain(self)),
        }
        match self {
            Self::Config(_) | Self::Wrong(_) => Exit::Usage,
            Self::Late(_) => Exit::Late,
            Self::Client(ClientError::Unreachable { .. }) => Exit::Unavailable,
            Self::Client(ClientError::Refused { kind, .. }) => match kind {
                ErrorKind::Refused => Exit::Refused,
                ErrorKind::NoQuorum | ErrorKind::Busy => Exit::Unavailable,
                ErrorKind::Timeout => Exit::Late,
                ErrorKind::BadRequest => Exit::Error,
            },
            Self::Client(_) | Self::Key(_) | Self::Output(_) | Self::Agent(_) => Exit::Error,
        }
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Whether standard error takes colours.
pub(super) fn colour() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}
