//! A client of the control socket.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use thiserror::Error;

use super::exit::Failure;
use crate::api::{
    protocol::{ErrorKind, RESPONSE_BYTES_MAX, Request, Response},
    status::StatusReport,
};

/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How often the state is looked at while an order is carried out.
const LOOK: Duration = Duration::from_millis(50);

/// Why the agent was of no use.
#[derive(Debug, Error)]
pub(super) enum ClientError {
    #[error("no agent answers on {path}: is it running (`systemctl status baton`), and are you root?")]
    Unreachable { path: PathBuf, source: io::Error },
    #[error("the connection to the agent broke")]
    Broken(#[source] io::Error),
    #[error("the agent speaks differently; are `baton` and the running agent of one version?")]
    Garbled(#[source] serde_json::Error),
    #[error("the agent gave an answer to something else; are `baton` and the running agent of one version?")]
    Unexpected,
    #[error("{message}")]
    Refused { kind: ErrorKind, message: String },
}

/// A connection to the agent.
#[derive(Debug)]
pub(super) struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

impl Client {
    /// Connects to the agent on a socket.
    pub fn connect(path: PathBuf) -> Result<Self, ClientError> {
        let connect = || -> io::Result<UnixStream> {
            let stream = UnixStream::connect(&path)?;
            stream.set_read_timeout(Some(ANSWER_TIME))?;
            stream.set_write_timeout(Some(ANSWER_TIME))?;
            Ok(stream)
        };
        match connect() {
            Ok(stream) => Ok(Self { stream: BufReader::new(stream), path }),
            Err(source) => Err(ClientError::Unreachable { path, source }),
        }
    }

    /// Sends a request.
    pub fn ask(&mut self, request: &Request) -> Result<(), ClientError> {
        let mut line = serde_json::to_vec(request).map_err(ClientError::Garbled)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(broken)
    }

    /// Waits for the next response for as long as it takes: for streams.
    pub fn be_patient(&self) -> Result<(), ClientError> {
        self.stream.get_ref().set_read_timeout(None).map_err(broken)
    }

    /// Reads one response. A refusal is an error.
    pub fn hear(&mut self) -> Result<Response, ClientError> {
        let mut line = Vec::new();
        let limit = RESPONSE_BYTES_MAX as u64 + 1;
        (&mut self.stream).take(limit).read_until(b'\n', &mut line).map_err(broken)?;
        if line.last() != Some(&b'\n') {
            return Err(ClientError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_slice(&line).map_err(ClientError::Garbled)? {
            Response::Error { kind, message } => Err(ClientError::Refused { kind, message }),
            response => Ok(response),
        }
    }

    /// The status. The agent ends a connection after some time, and may have been started again: then it is asked on a new one.
    pub fn status(&mut self) -> Result<StatusReport, ClientError> {
        match self.ask_status() {
            Err(ClientError::Broken(_)) => {
                *self = Self::connect(self.path.clone())?;
                self.ask_status()
            }
            answer => answer,
        }
    }

    fn ask_status(&mut self) -> Result<StatusReport, ClientError> {
        self.ask(&Request::Status {})?;
        match self.hear()? {
            Response::Status { status } => Ok(*status),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Gives an order; the text says what happens next.
    pub fn order(&mut self, request: &Request) -> Result<String, ClientError> {
        self.ask(request)?;
        match self.hear()? {
            Response::Done { message } => Ok(message),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Looks at the status until it is as wanted. `what` ends the sentence "… within 10 s".
    pub fn wait(
        &mut self,
        limit: Duration,
        what: &str,
        wanted: impl Fn(&StatusReport) -> bool,
    ) -> Result<StatusReport, Failure> {
        let start = Instant::now();
        loop {
            let status = self.status()?;
            if wanted(&status) {
                return Ok(status);
            }
            if start.elapsed() >= limit {
                return Err(Failure::Late(format!(
                    "the order was taken, but {what} within {} s; see `baton status`",
                    limit.as_secs()
                )));
            }
            thread::sleep(LOOK);
        }
    }
}

fn broken(error: io::Error) -> ClientError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Refused {
            kind: ErrorKind::Timeout,
            message: format!("the agent gave no answer within {} s; it may hang", ANSWER_TIME.as_secs()),
        },
        _ => ClientError::Broken(error),
    }
}
