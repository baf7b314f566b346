//! The soft stop: the old worker finishes its connections while a fresh one takes the listeners over and stands by.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{
    Setup,
    apply::apply,
    check,
    gather::gather,
    launch::{Running, START_LIMIT, ask_worker, log_tail, peer_name},
};
use crate::process::Process;

/// Between two questions whether the fresh worker answers.
const ASK_AGAIN: Duration = Duration::from_millis(5);
/// After how long a master that has not begun to reload is told again.
const TELL_AGAIN: Duration = Duration::from_millis(50);
/// From this release on a master hands listeners from worker to worker by itself.
const HANDS_LISTENERS_OVER: (u32, u32) = (2, 6);

/// What stands in the way of a soft stop that loses nothing.
pub fn obstacle(running: &Running) -> Option<String> {
    if !running.has_master() {
        return Some("HAProxy has no master process: start it with -W or -Ws, for its reload to be hitless".to_owned());
    }
    if running.release < HANDS_LISTENERS_OVER && !running.cfg.sockets.iter().any(|s| s.exposes_listeners) {
        return Some(
            "its stats socket lacks `expose-fd listeners`: this release would lose connections that wait to be accepted"
                .to_owned(),
        );
    }
    None
}

/// Reloads; the state that was set at run time is kept. Gives what runs now; the old worker goes on until it has finished.
///
/// # Errors
/// Why it was not done, or how far it came, in words.
pub fn soft_stop(setup: &Setup, running: &Running) -> Result<Running, String> {
    if let Some(obstacle) = obstacle(running) {
        return Err(obstacle);
    }
    check::check(&setup.spec.binary, &setup.config, peer_name(setup, &running.cfg))?;
    let (state, _) = gather(&running.client).map_err(|e| e.to_string())?;
    reload(&running.master)?;
    let (worker, release) = fresh_worker(setup, running)?;
    apply(&running.client, &state)
        .map_err(|e| format!("the fresh worker has not got all of the old one's state: {e}"))?;
    Ok(Running {
        client: running.client.clone(),
        master: Arc::clone(&running.master),
        worker: Arc::new(worker),
        release,
        cfg: running.cfg.clone(),
    })
}

fn reload(master: &Process) -> Result<(), String> {
    master.signal(Signal::USR2).map_err(|e| format!("HAProxy's master cannot be told to reload: {e}"))
}

/// The worker that serves after the reload.
fn fresh_worker(setup: &Setup, running: &Running) -> Result<(Process, (u32, u32)), String> {
    let deadline = Instant::now() + START_LIMIT;
    let mut again = Instant::now() + TELL_AGAIN;
    loop {
        match ask_worker(&running.client, &running.master) {
            Ok((worker, release)) if worker.pid() != running.worker.pid() => return Ok((worker, release)),
            _ if running.master.ended() => return Err("HAProxy's master ended while it reloaded".to_owned()),
            _ if Instant::now() > deadline => {
                let log = log_tail(setup);
                let start = log.rfind("Reloading HAProxy").unwrap_or(0);
                let said = check::message(log.get(start..).unwrap_or(""), "it says no reason");
                return Err(format!("HAProxy has no fresh worker {START_LIMIT:?} after its reload: {said}"));
            }
            _ => {}
        }
        // A master that has just begun, or has reloaded just now, may lose the signal.
        if Instant::now() > again {
            if !reloads(&running.master, running.worker.pid()) {
                reload(&running.master)?;
            }
            again = Instant::now() + TELL_AGAIN;
        }
        std::thread::sleep(ASK_AGAIN);
    }
}

/// Whether a master has begun to replace a worker: it executes itself anew then, with `-sf` and the numbers of the workers that
/// shall finish.
fn reloads(master: &Process, worker: u32) -> bool {
    let line = fs::read(format!("/proc/{}/cmdline", master.pid())).unwrap_or_default();
    names_finishing(&line, worker)
}

fn names_finishing(line: &[u8], worker: u32) -> bool {
    let words = line.split(|b| *b == 0).map(String::from_utf8_lossy);
    let mut finishing =
        words.skip_while(|w| !matches!(w.as_ref(), "-sf" | "-st")).skip(1).map_while(|w| w.parse().ok());
    finishing.any(|pid: u32| pid == worker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_that_has_begun_is_seen_by_the_masters_arguments() {
        let names = |line: &str, worker| names_finishing(line.replace(' ', "\0").as_bytes(), worker);
        let line = "haproxy -sf 1234 5678 -x sockpair@4 -W -db -f 42 ";
        assert!(names(line, 1234) && names(line, 5678));
        assert!(!names(line, 42));
        assert!(!names("haproxy -W -f 1234 ", 1234));
    }
}
