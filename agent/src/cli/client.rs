//! A client of the control socket.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;
use thiserror::Error;

use super::exit::Failure;
use crate::{
    api::{
        protocol::{ErrorKind, RESPONSE_BYTES_MAX, Request, Response},
        status::StatusReport,
    },
    cluster::ids::{Incarnation, VoterId},
};

/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How long it may take until the log says what was ordered.
pub const LOGGED_WITHIN: Duration = Duration::from_secs(10);
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

/// The part of a status that tells which agent answers.
#[derive(Debug, Deserialize)]
pub(super) struct Life {
    /// Its version.
    pub version: String,
    id: VoterId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    voters: Vec<OnRecord>,
}

/// A voter in the log.
#[derive(Debug, Deserialize)]
struct OnRecord {
    id: VoterId,
    incarnation: Incarnation,
}

impl Life {
    /// Whether its start is in the log.
    pub fn is_on_record(&self) -> bool {
        self.voters.iter().any(|v| v.id == self.id && v.incarnation == self.incarnation)
    }
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

    /// Reads one line.
    fn line(&mut self) -> Result<Vec<u8>, ClientError> {
        let mut line = Vec::new();
        let limit = RESPONSE_BYTES_MAX as u64 + 1;
        (&mut self.stream).take(limit).read_until(b'\n', &mut line).map_err(broken)?;
        if line.last() != Some(&b'\n') {
            return Err(ClientError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(line)
    }

    /// Reads one response. A refusal is an error.
    pub fn hear(&mut self) -> Result<Response, ClientError> {
        match serde_json::from_slice(&self.line()?).map_err(ClientError::Garbled)? {
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

    /// Which agent answers: also one of another version, whose status has other fields.
    pub fn life(&mut self) -> Result<Life, ClientError> {
        #[derive(Deserialize)]
        struct Answer {
            status: Life,
        }
        self.ask(&Request::Status {})?;
        let answer: Answer = serde_json::from_slice(&self.line()?).map_err(ClientError::Garbled)?;
        Ok(answer.status)
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

#[cfg(test)]
mod tests {
    use super::Life;

    #[test]
    fn a_status_of_another_version_tells_which_agent_answers() {
        let of = |own: u64| {
            let text = r#"{"version":"9","id":2,"incarnation":5,"new":1,"voters":[{"id":1,"incarnation":5},{"id":2,"incarnation":OWN,"x":0}]}"#;
            serde_json::from_str::<Life>(&text.replace("OWN", &own.to_string())).unwrap()
        };
        assert!(of(5).is_on_record() && of(5).incarnation == 5);
        assert!(!of(4).is_on_record(), "its start is not in the log yet");
    }
}
