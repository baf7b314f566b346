//! The soft stop: the old worker finishes its connections while a fresh one takes the listeners over and stands by.

use std::{
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
    running.master.signal(Signal::USR2).map_err(|e| format!("HAProxy's master cannot be told to reload: {e}"))?;
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

fn fresh_worker(setup: &Setup, running: &Running) -> Result<(Process, (u32, u32)), String> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        match ask_worker(&running.client, &running.master) {
            Ok((worker, release)) if worker.pid() != running.worker.pid() => return Ok((worker, release)),
            _ if running.master.ended() => return Err("HAProxy's master ended while it reloaded".to_owned()),
            _ if Instant::now() > deadline => {
                let said = check::message(&log_tail(setup), "it says no reason");
                return Err(format!("HAProxy has no fresh worker {START_LIMIT:?} after its reload: {said}"));
            }
            _ => std::thread::sleep(ASK_AGAIN),
        }
    }
}
