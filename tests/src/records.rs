//! The flight records that the agents of a lab tell over their control sockets.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
};

use anyhow::{Context, Result, bail};
use baton::{
    api::protocol::{RESPONSE_BYTES_MAX, Response},
    telemetry::record::Record,
};

use crate::{
    baton::{self as agents, ANSWER_LIMIT},
    topology::{Lab, Machine},
};

/// More records than an agent keeps.
const RECORDS_MAX: usize = 4_096;

/// All records that the agent on a voter still keeps, oldest first.
///
/// # Errors
/// No agent answers there, or its answer is none of the protocol.
pub fn of(lab: &Lab, machine: &Machine) -> Result<Vec<Record>> {
    ask(lab, machine).with_context(|| format!("the records of {} cannot be read", machine.name))
}

/// The records of all voters whose agent answers.
pub fn of_all(lab: &Lab) -> Vec<Record> {
    lab.voters().filter_map(|machine| of(lab, machine).ok()).flatten().collect()
}

fn ask(lab: &Lab, machine: &Machine) -> Result<Vec<Record>> {
    let mut stream = UnixStream::connect(agents::socket(lab, machine))?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    writeln!(stream, r#"{{"request":"events","follow":false,"since":0}}"#)?;
    read(BufReader::new(stream))
}

/// Reads answers up to the one that says that there are no more.
fn read(mut answers: impl BufRead) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    let mut line = String::new();
    while records.len() < RECORDS_MAX {
        line.clear();
        if answers.read_line(&mut line)? == 0 {
            bail!("the agent closed the connection before the last record");
        }
        if line.len() > RESPONSE_BYTES_MAX {
            bail!("an answer of {} bytes is longer than the protocol allows", line.len());
        }
        match serde_json::from_str(&line).with_context(|| format!("no answer of the protocol: {}", line.trim_end()))? {
            Response::Event { event } => records.push(event),
            Response::Skipped { .. } => {}
            Response::End {} => return Ok(records),
            other => bail!("the agent refused to tell its records: {other:?}"),
        }
    }
    bail!("the agent told more than {RECORDS_MAX} records")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"response":"event","event":{"seq":3,"recorded_by":"lb2","group":"web","epoch":8,
        "cause":"order","from":"lb1","to":"lb2","wall_ns":1,"total_ns":5,
        "phases":[{"phase":"committed","at_ns":10,"took_ns":0}]}}"#;

    #[test]
    fn records_are_read_up_to_the_end() {
        let text = format!("{}\n{{\"response\":\"skipped\",\"records\":2}}\n{{\"response\":\"end\"}}\nrest", {
            EVENT.replace('\n', "")
        });
        let records = read(text.as_bytes()).unwrap();
        assert_eq!((records.len(), records[0].epoch, records[0].seq), (1, 8, 3));
    }

    #[test]
    fn an_end_without_notice_or_a_refusal_is_an_error() {
        assert!(read("".as_bytes()).is_err());
        assert!(read(EVENT.replace('\n', "").as_bytes()).is_err());
        assert!(read("nonsense\n".as_bytes()).is_err());
        assert!(read("{\"response\":\"error\",\"kind\":\"busy\",\"message\":\"no\"}\n".as_bytes()).is_err());
    }
}
