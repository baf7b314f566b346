//! What host and guest say to each other over the virtio-serial port: JSON in frames, a length before each.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The port's name, by which the guest finds it in /sys/class/virtio-ports.
pub const PORT: &str = "baton.control";
/// No frame is longer, in bytes; what a program prints is cut to fit ([`OUTPUT_MAX`]).
const FRAME_MAX: usize = 64 << 20;
/// What is kept of one stream of a program's output, in bytes, half from its beginning and half from its end. JSON may
/// need six bytes for one.
pub const OUTPUT_MAX: usize = 4 << 20;

/// A request with a number that its reply repeats: a reply that came too late is not taken for the next one's.
#[derive(Debug, Deserialize, Serialize)]
pub struct Numbered<T> {
    /// Counts up from 1; 0 is the greeting.
    pub number: u64,
    /// What is asked or answered.
    pub body: T,
}

/// What the host asks for.
#[derive(Debug, Deserialize, Serialize)]
pub enum Request {
    /// Run a program to its end.
    Run {
        /// Program and arguments.
        words: Vec<String>,
        /// Its standard input.
        input: String,
        /// Milliseconds after which it is killed with its children.
        limit_ms: u64,
    },
    /// Start a program that goes on in the background.
    Start {
        /// Program and arguments.
        words: Vec<String>,
    },
    /// How a program in the background is doing.
    Look {
        /// Its number.
        job: usize,
    },
    /// SIGKILL for a program in the background and its children.
    Kill {
        /// Its number.
        job: usize,
    },
}

/// What the guest answers.
#[derive(Debug, Deserialize, Serialize)]
pub enum Reply {
    /// The guest is up: the release of its kernel.
    Hello(String),
    /// A program has ended.
    Ended(Output),
    /// A program has started, under this number.
    Started(usize),
    /// A program in the background.
    Job(Job),
    /// It could not be done.
    Refused(String),
}

/// How a program ended, and what it printed (at most [`OUTPUT_MAX`] bytes of each stream).
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Output {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Whether it was killed because its time was up.
    pub late: bool,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// Whether it ended by itself with exit code 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// How it ended, in words.
    pub fn ending(&self) -> String {
        match (self.late, self.code) {
            (true, _) => "its time was up".into(),
            (_, Some(code)) => format!("exit code {code}"),
            (_, None) => "ended by a signal".into(),
        }
    }
}

/// A program in the background.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Job {
    /// Whether it still runs.
    pub running: bool,
    /// Its exit code; none while it runs, or if a signal ended it.
    pub code: Option<i32>,
    /// What it printed so far, both streams.
    pub output: String,
}

/// The bytes of a frame.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>> {
    let body = serde_json::to_vec(message)?;
    if body.len() > FRAME_MAX {
        bail!("a message of {} bytes is too long for the guest's channel", body.len());
    }
    let length = u32::try_from(body.len())?;
    Ok([&length.to_be_bytes()[..], &body].concat())
}

/// Puts frames together from the pieces in which they come.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
}

impl Decoder {
    /// Takes what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message, once all of it is there.
    pub fn pop<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let Some((head, rest)) = self.bytes.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*head) as usize;
        if length > FRAME_MAX {
            bail!("a frame of {length} bytes on the guest's channel");
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let message = serde_json::from_slice(body).context("a frame that is no message on the guest's channel")?;
        self.bytes.drain(..4 + length);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_as_they_went_in_however_they_are_cut() {
        let first = Numbered { number: 7, body: Request::Look { job: 3 } };
        let second = Numbered { number: 8, body: Request::Kill { job: 4 } };
        let bytes = [encode(&first).unwrap(), encode(&second).unwrap()].concat();
        for cut in 1..bytes.len() {
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for piece in bytes.chunks(cut) {
                decoder.push(piece);
                while let Some(message) = decoder.pop::<Numbered<Request>>().unwrap() {
                    seen.push(message);
                }
            }
            assert_eq!(seen.len(), 2);
            assert!(matches!(seen[0], Numbered { number: 7, body: Request::Look { job: 3 } }));
            assert!(matches!(seen[1], Numbered { number: 8, body: Request::Kill { job: 4 } }));
        }
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        for bytes in [&[0, 0, 0, 2, b'{', b'{'][..], &[0xff; 8]] {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            assert!(decoder.pop::<Numbered<Reply>>().is_err());
        }
    }
}
