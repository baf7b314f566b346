//! Stopping: unmounts until nothing of it is left, and ends those who stand in the way if the configuration says so.

use std::{collections::BTreeSet, time::Duration};

use rustix::process::Signal;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use super::{
    Filesystem,
    holders::{Holder, named, uses_of},
    limit,
    mounting::Failure,
    unmount::{Attempt, Report, attempt},
};
use crate::{
    config::kinds::Busy,
    process::Process,
    resources::{Operation, ResourceError},
};

/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(100);
/// A filesystem is often busy for a moment: who has just ended, or looks at it in passing (udev), is waited for.
const PASSING: Duration = Duration::from_secs(2);

impl Filesystem {
    pub(super) async fn unmount(&mut self) -> Result<(), ResourceError> {
        let stop = Operation::Stop;
        let timeout = self.common.timeouts.stop;
        let (begin, until) = (Instant::now(), limit(timeout));
        let passing = PASSING.min(timeout / 4);
        let mut told = BTreeSet::new();
        // A start may have been given up while a check or a helper ran: it was killed, and must have ended.
        let cleared = timeout_at(until, self.tools.clear()).await.unwrap_or(Err(std::io::ErrorKind::TimedOut.into()));
        cleared.map_err(|e| {
            let failure = Failure::kernel(&self.spec.device, "what was started for it does not end", &e, "see dmesg");
            self.failed(stop, failure)
        })?;
        loop {
            let waited = begin.elapsed();
            let (spec, known, mine) = (self.spec.clone(), self.known.clone(), self.mine);
            // A dead server keeps umount(2) waiting; whom it serves has had half of the time to end.
            let force = spec.is_network() && waited >= timeout / 2;
            let tried =
                self.call(stop, "umount(2)", until, move || attempt(&spec, known.as_ref(), mine, force)).await?;
            let report = match tried {
                Ok(Attempt::Gone) => {
                    if self.mine {
                        info!(resource = self.label, mount = %self.spec.mount.display(), "unmounted");
                    }
                    self.mine = false;
                    return Ok(());
                }
                Ok(Attempt::InUse(report)) => report,
                Ok(Attempt::Foreign(cause)) => {
                    let remedy = "it was not mounted by Baton: unmount it by hand";
                    return Err(self.failed(stop, Failure::new(&self.spec.device, cause, remedy)));
                }
                Ok(Attempt::Refused { what, errno }) => {
                    let failure = Failure::new(&self.spec.device, what, "see what the kernel says (dmesg)");
                    return Err(self.failed(stop, Failure { errno: Some(errno), ..failure }));
                }
                Err(e) => {
                    let failure = Failure::kernel(&self.spec.device, "it cannot be unmounted", &e, "see dmesg");
                    return Err(self.failed(stop, failure));
                }
            };
            let out_of_time = Instant::now() + AGAIN >= until;
            if out_of_time || (self.spec.busy == Busy::Fail && waited >= passing) {
                return Err(self.failed(stop, in_use(&self.spec.mount.display().to_string(), &report)));
            }
            if self.spec.busy == Busy::Kill && waited >= PASSING.min(timeout / 20) {
                let signal = if waited >= timeout / 2 { Signal::KILL } else { Signal::TERM };
                self.end(report, signal, &mut told).await?;
            }
            sleep(AGAIN).await;
        }
    }

    /// Sends a signal to those who hold it, once each.
    async fn end(&self, report: Report, signal: Signal, told: &mut BTreeSet<(u32, i32)>) -> Result<(), ResourceError> {
        let number = signal.as_raw();
        let fresh: Vec<Holder> =
            report.holders.into_iter().filter(|h| may_end(h.pid) && !told.contains(&(h.pid, number))).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        told.extend(fresh.iter().map(|h| (h.pid, number)));
        warn!(
            resource = self.label,
            mount = %self.spec.mount.display(),
            holders = named(&fresh, &[]),
            signal = if signal == Signal::KILL { "SIGKILL" } else { "SIGTERM" },
            "the filesystem is busy: ending those who hold it"
        );
        let wanted = report.wanted;
        let send = move || {
            for holder in fresh {
                // Asked again once the process is held, so that a number that was used anew is not taken for it. One that has
                // ended meanwhile needs no signal.
                if let Ok(process) = Process::open(holder.pid)
                    && !uses_of(holder.pid, &wanted).is_empty()
                {
                    drop(process.signal(signal));
                }
            }
        };
        let until = limit(self.common.timeouts.stop);
        self.call(Operation::Stop, "the search for those who hold it", until, send).await
    }
}

/// Neither the first process nor the agent itself.
fn may_end(pid: u32) -> bool {
    pid > 1 && pid != std::process::id()
}

fn in_use(mount: &str, report: &Report) -> Failure {
    let who = named(&report.holders, &report.others);
    let (cause, remedy) = if who.is_empty() {
        (
            "it is in use, and by whom is not to be seen".to_owned(),
            "look for a mount namespace without a process, or kernel services that use it; restart the machine if need be",
        )
    } else {
        (format!("it is in use by {who}"), "end these, or stop what starts them before this resource")
    };
    Failure { errno: Some(libc::EBUSY), ..Failure::new(mount, cause, remedy) }
}
