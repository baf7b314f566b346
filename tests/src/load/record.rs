//! What a load's client notes: one record for each thing that became of a request or a connection.

use std::{fmt, io};

use baton::cluster::ids::Nanos;

/// The node that answered is not known: nothing was answered.
pub const NOBODY: u8 = u8::MAX;

/// Whose request or connection it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A long-lived connection.
    Kept,
    /// A connection opened for one request.
    Fresh,
}

/// Why a request or a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The connection was reset.
    Reset,
    /// It was closed in the middle of a request, or without the end that was announced.
    ClosedEarly,
    /// No answer within the patience of the client.
    TimedOut,
    /// No connection could be made.
    Refused,
    /// The answer was not the one to this request, or no HTTP.
    Wrong,
    /// Another error of the socket.
    Socket,
}

impl Reason {
    /// The reason for an error that a socket returned.
    pub fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
                Self::Reset
            }
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::InvalidData => Self::Wrong,
            io::ErrorKind::UnexpectedEof => Self::ClosedEarly,
            _ => Self::Socket,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reset => "reset",
            Self::ClosedEarly => "closed early",
            Self::TimedOut => "timed out",
            Self::Refused => "refused",
            Self::Wrong => "wrong answer",
            Self::Socket => "socket error",
        })
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection was made.
    Opened,
    /// No connection came of an attempt.
    Unopened(Reason),
    /// A request was answered rightly by this node, after so many nanoseconds: from its sending, or for a new connection
    /// from the call of connect(2).
    Answered {
        /// Nanoseconds.
        took_ns: Nanos,
        /// The node, by its position in the lab, or [`NOBODY`] if the answer doesn't say.
        by: u8,
    },
    /// A request got no answer, or a wrong one.
    Failed(Reason),
    /// A connection that was made ended by a reset, a time-out, or a close in the middle of a request.
    Broken(Reason),
    /// The server closed a connection, in order and without having announced it, while no request was on its way.
    IdleClosed,
    /// The server announced the end with an answer (`Connection: close`), closed in order, and the client opened anew.
    Reopened,
}

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was noticed, in nanoseconds of CLOCK_BOOTTIME.
    pub at: Nanos,
    /// Whose it was.
    pub kind: Kind,
    /// What it was.
    pub event: Event,
}
