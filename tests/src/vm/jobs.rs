//! Programs that the guest runs for the host: to their end with a limit, or in the background.

use std::{
    fs::File,
    io::{Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};

use super::channel::{Job, OUTPUT_MAX, Output};

/// How often a program is looked at.
const PAUSE: Duration = Duration::from_millis(2);
/// How long a stream is read on after its program has ended: a child may have kept it.
const DRAIN: Duration = Duration::from_secs(2);

/// The programs in the background. Their number is their position.
#[derive(Debug, Default)]
pub struct Jobs(Vec<(Child, PathBuf, Option<ExitStatus>)>);

impl Jobs {
    /// Starts a program; both its streams go to a file.
    pub fn start(&mut self, words: &[String]) -> Result<usize> {
        let number = self.0.len();
        let log = std::env::temp_dir().join(format!("job-{number}.log"));
        let out = File::create(&log)?;
        let child = command(words)?.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).spawn();
        self.0.push((child.with_context(|| format!("cannot start {words:?}"))?, log, None));
        Ok(number)
    }

    /// How a program is doing.
    pub fn look(&mut self, number: usize) -> Result<Job> {
        let (child, log, ended) = self.0.get_mut(number).with_context(|| format!("there is no job {number}"))?;
        if ended.is_none() {
            *ended = child.try_wait()?;
        }
        let mut output = Vec::new();
        File::open(log)?.take(OUTPUT_MAX as u64).read_to_end(&mut output)?;
        let output = String::from_utf8_lossy(&output).into_owned();
        Ok(Job { running: ended.is_none(), code: ended.and_then(|status| status.code()), output })
    }

    /// Ends a program and its children.
    pub fn kill(&mut self, number: usize) -> Result<Job> {
        if self.look(number)?.running
            && let Some((child, _, ended)) = self.0.get_mut(number)
        {
            kill(child);
            *ended = Some(child.wait()?);
        }
        self.look(number)
    }
}

/// Runs a program to its end, or until its time is up.
pub fn run(words: &[String], input: String, limit: Duration) -> Result<Output> {
    let mut command = command(words)?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {words:?}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input is no error.
        thread::spawn(move || stdin.write_all(input.as_bytes()).ok());
    }
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let end = Instant::now() + limit;
    let (status, late) = loop {
        if let Some(status) = child.try_wait()? {
            break (status, false);
        }
        if Instant::now() >= end {
            kill(&child);
            break (child.wait()?, true);
        }
        thread::sleep(PAUSE);
    };
    let text = |stream: &std::sync::mpsc::Receiver<Vec<u8>>| {
        let bytes = stream.recv_timeout(DRAIN).unwrap_or_else(|_late| b"(its output is still held open)".to_vec());
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let mut output = Output { code: status.code(), late, stdout: text(&stdout), stderr: text(&stderr) };
    if let Some(signal) = status.signal() {
        output.stderr.push_str(&format!("\n(ended by signal {signal})"));
    }
    Ok(output)
}

/// A program that leads a process group of its own.
fn command(words: &[String]) -> Result<Command> {
    let (program, arguments) = words.split_first().context("no program is named")?;
    let mut command = Command::new(program);
    command.args(arguments).process_group(0);
    Ok(command)
}

fn kill(child: &Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        kill_process_group(group, Signal::KILL).ok();
    }
}

/// Reads a stream to its end in a thread of its own.
fn collect(stream: Option<impl Read + Send + 'static>) -> std::sync::mpsc::Receiver<Vec<u8>> {
    let (done, result) = std::sync::mpsc::channel();
    thread::spawn(move || done.send(stream.map(ends).unwrap_or_default()).ok());
    result
}

/// The beginning and the end of a stream: a talkative program goes on, and is cut in the middle.
fn ends(mut stream: impl Read) -> Vec<u8> {
    let half = OUTPUT_MAX / 2;
    let mut kept = Vec::new();
    // An error is the end, too.
    stream.by_ref().take(half as u64).read_to_end(&mut kept).ok();
    let (mut end, mut cut, mut buffer) = (Vec::new(), false, vec![0; 64 << 10]);
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        end.extend_from_slice(&buffer[..length]);
        if end.len() > 2 * half {
            end.drain(..end.len() - half);
            cut = true;
        }
    }
    if cut || end.len() > half {
        kept.extend(b"\n(left out)\n");
        end.drain(..end.len().saturating_sub(half));
    }
    kept.extend(end);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        vec!["sh".into(), "-c".into(), line.into()]
    }

    #[test]
    fn a_program_gets_its_input_and_its_end_is_told() {
        let output = run(&words("cat; echo aside >&2; exit 3"), "hello".into(), Duration::from_secs(20)).unwrap();
        assert_eq!((output.code, output.late), (Some(3), false));
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("hello", "aside\n"));
        assert!(run(&["/no/such/program".into()], String::new(), Duration::from_secs(1)).is_err());
    }

    #[test]
    fn a_program_ends_when_its_time_is_up() {
        let output = run(&words("echo begun; sleep 1000"), String::new(), Duration::from_millis(300)).unwrap();
        assert!(output.late && output.code.is_none());
        assert_eq!(output.stdout, "begun\n");
    }

    #[test]
    fn long_output_keeps_its_ends() {
        let text: Vec<u8> = (0..OUTPUT_MAX * 2).map(|n| (n / 1000 % 251) as u8).collect();
        let (kept, half) = (ends(&text[..]), OUTPUT_MAX / 2);
        assert_eq!(kept[..half], text[..half]);
        assert_eq!(kept[kept.len() - half..], text[text.len() - half..]);
        assert!(kept.len() < OUTPUT_MAX + 100);
        assert_eq!(ends(&text[..OUTPUT_MAX]), text[..OUTPUT_MAX]);
    }

    #[test]
    fn a_job_goes_on_until_it_is_killed() {
        let mut jobs = Jobs::default();
        let number = jobs.start(&words("echo begun; sleep 1000")).unwrap();
        crate::wait::until(Duration::from_secs(20), "output", || Ok(jobs.look(number)?.output == "begun\n")).unwrap();
        assert!(jobs.look(number).unwrap().running);
        assert!(!jobs.kill(number).unwrap().running);
        assert!(jobs.look(number + 1).is_err());
    }
}
