//! A panic ends the process: an agent that has lost a part must not live on by the others. Without the core nothing closes a gate,
//! without the pulse nothing renews the lease, and a task that is gone leaves its part deaf. The lease then runs out by itself.

use std::{panic, process, thread};

/// Threads that may panic without an end of the process: the main thread ends it in order, or goes on without the one task of
/// a client; what the others do fails with an error at whoever waits for it, or only records.
const SPARED: [&str; 4] = ["main", "tokio-rt-worker", "baton-recorder", "baton-journal"];

/// From now on a panic is printed as ever, and then the process is aborted.
pub fn end_the_process() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        print(info);
        if !thread::current().name().is_some_and(|name| SPARED.contains(&name)) {
            process::abort();
        }
    }));
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::Command, thread};

    use super::end_the_process;

    /// Set in the process that is to panic: the name of the thread that does.
    const THREAD: &str = "BATON_TEST_PANIC_THREAD";

    #[test]
    fn a_panic_of_a_working_thread_ends_the_process_and_one_that_serves_a_client_does_not() {
        if let Ok(name) = std::env::var(THREAD) {
            end_the_process();
            let thread = thread::Builder::new().name(name).spawn(|| panic!("on purpose")).unwrap();
            assert!(thread.join().is_err());
            return;
        }
        let test =
            "agent::panics::tests::a_panic_of_a_working_thread_ends_the_process_and_one_that_serves_a_client_does_not";
        for (name, aborts) in [("core", true), ("pulse", true), ("executor", true), ("main", false)] {
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", test])
                .env(THREAD, name)
                .output()
                .unwrap();
            let ran = String::from_utf8_lossy(&child.stdout);
            assert!(ran.contains("running 1 test"), "{ran}");
            assert_eq!(child.status.signal() == Some(libc::SIGABRT), aborts, "{name}: {:?}", child.status);
            assert!(aborts || child.status.success(), "{name}: {:?}", child.status);
        }
    }
}
