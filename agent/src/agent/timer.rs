//! A one-shot timer on CLOCK_BOOTTIME with nanosecond resolution: tokio's own wheel turns once a millisecond, which is a quarter of
//! the shortest lease.

use std::{io, os::fd::OwnedFd};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::cluster::ids::Nanos;

/// The timer. Armed at an instant; armed again, it forgets the former one.
#[derive(Debug)]
pub struct Timer {
    fd: AsyncFd<OwnedFd>,
}

impl Timer {
    /// A disarmed timer; needs a tokio runtime.
    pub fn new() -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self { fd: readable(fd)? })
    }

    /// Fires at `due` (an instant of CLOCK_BOOTTIME; a past one fires at once), or never.
    pub fn arm(&self, due: Option<Nanos>) -> io::Result<()> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // An all-zero value disarms, so "at once" is the first nanosecond.
        let value = due.map_or(zero, |due| {
            let due = due.max(1);
            Timespec { tv_sec: (due / 1_000_000_000) as i64, tv_nsec: (due % 1_000_000_000) as _ }
        });
        timerfd_settime(
            self.fd.get_ref(),
            TimerfdTimerFlags::ABSTIME,
            &Itimerspec { it_interval: zero, it_value: value },
        )?;
        Ok(())
    }

    /// Waits until it fires.
    pub async fn fired(&self) -> io::Result<()> {
        drain(&self.fd).await
    }
}

/// A descriptor that tokio watches for something to read.
pub fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd keeps its descriptor open, and the same one, until it is dropped, and the AsyncFd owns it.
    let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    Ok(watched?)
}

/// Waits until an eventfd or timerfd has counted something, and takes the count.
pub async fn drain(fd: &AsyncFd<OwnedFd>) -> io::Result<()> {
    loop {
        let mut ready = fd.readable().await?;
        let mut count = [0u8; 8];
        match ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut count)?)) {
            Ok(result) => return result.map(drop),
            Err(_would_block) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[tokio::test(flavor = "current_thread")]
    async fn fires_after_its_instant_and_at_once_for_a_past_one() {
        let timer = Timer::new().unwrap();
        let due = clock::now() + 2_000_000;
        timer.arm(Some(due)).unwrap();
        timer.fired().await.unwrap();
        assert!(clock::now() >= due);
        timer.arm(Some(0)).unwrap();
        timer.fired().await.unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_disarmed_timer_does_not_fire() {
        let timer = Timer::new().unwrap();
        timer.arm(Some(clock::now() + 5_000_000)).unwrap();
        timer.arm(None).unwrap();
        let outcome = tokio::time::timeout(std::time::Duration::from_millis(30), timer.fired()).await;
        assert!(outcome.is_err(), "a disarmed timer fired");
    }
}
