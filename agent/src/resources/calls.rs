//! System calls that may hang in the kernel (mount, umount, a dead server's files): made on threads that may wait, one at a
//! time for each resource, so that what hangs is named and does not eat up threads.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout_at};

/// Between two looks whether an earlier call has come back.
const AGAIN: Duration = Duration::from_millis(10);

/// The calls of one resource.
#[derive(Clone, Debug, Default)]
pub struct Calls(Arc<Mutex<Option<Under>>>);

#[derive(Clone, Copy, Debug)]
struct Under {
    what: &'static str,
    since: Instant,
}

/// A call has not come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hung {
    /// Which.
    pub what: &'static str,
    /// Since how long.
    pub since: Duration,
}

impl fmt::Display for Hung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has not come back for {:.1} s", self.what, self.since.as_secs_f64())
    }
}

impl Calls {
    /// Makes a call. One that was given up earlier, and has not come back, is waited for first.
    ///
    /// # Errors
    /// [`Hung`] when it, or the earlier one, has not come back by `until`.
    pub async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        until: Instant,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Hung> {
        while let Err(other) = self.enter(what) {
            if Instant::now() >= until {
                return Err(Hung { what: other.what, since: other.since.elapsed() });
            }
            sleep(AGAIN).await;
        }
        let since = Instant::now();
        let leave = Leave(self.clone());
        let done = tokio::task::spawn_blocking(move || {
            let _leave = leave;
            call()
        });
        match timeout_at(until, done).await {
            Ok(Ok(done)) => Ok(done),
            // The call panicked, or the runtime ends: nothing came of it.
            Ok(Err(_)) | Err(_) => Err(Hung { what, since: since.elapsed() }),
        }
    }

    fn enter(&self, what: &'static str) -> Result<(), Under> {
        let mut under = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *under {
            Some(other) => Err(other),
            None => {
                *under = Some(Under { what, since: Instant::now() });
                Ok(())
            }
        }
    }
}

struct Leave(Calls);

impl Drop for Leave {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn a_call_that_hangs_is_named_and_the_next_waits_for_it() {
        let calls = Calls::default();
        let (free, held) = channel::<()>();
        let soon = Instant::now() + Duration::from_millis(50);
        let hung = calls.run("mount(2)", soon, move || held.recv()).await.unwrap_err();
        assert_eq!(hung.what, "mount(2)");
        let soon = Instant::now() + Duration::from_millis(50);
        let hung = calls.run("umount(2)", soon, || ()).await.unwrap_err();
        assert_eq!(hung.what, "mount(2)", "the one that hangs is blamed");
        assert!(hung.to_string().starts_with("mount(2) has not come back for "), "{hung}");
        free.send(()).unwrap();
        let late = Instant::now() + Duration::from_secs(20);
        assert_eq!(calls.run("umount(2)", late, || 7).await, Ok(7));
    }
}
