//! Network namespaces of a test's own: a thread that lives in one and runs what it is given.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

type Job = Box<dyn FnOnce() + Send>;

/// A namespace; it ends, with its devices, when this is dropped.
pub struct Namespace {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
    task: i32,
}

impl Namespace {
    /// A fresh namespace with loopback up.
    pub fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, started) = mpsc::channel();
        let thread = thread::spawn(move || {
            // SAFETY: plain flags; the thread is this namespace's alone.
            let done = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(done, 0, "a network namespace: run as root");
            // SAFETY: no arguments.
            ready.send(unsafe { libc::gettid() }).expect("the creator waits");
            for job in queue {
                job();
            }
        });
        let task = started.recv().expect("the thread lives");
        let namespace = Self { jobs: Some(jobs), thread: Some(thread), task };
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs a closure in the namespace and hands back its result; a panic there fails the test.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, outcome) = mpsc::channel();
        let job = Box::new(move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            done.send(result).ok();
        });
        self.jobs.as_ref().expect("open").send(job).expect("the thread lives");
        match outcome.recv().expect("the job ends") {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs `ip` with arguments separated by blanks.
    pub fn ip(&self, arguments: &str) {
        let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        self.run(move || {
            let output = Command::new("ip").args(&arguments).output().expect("iproute2 is installed");
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "ip {arguments:?}: {error}");
        });
    }

    /// Connects two namespaces by a veth pair, both ends up, with fixed MAC addresses.
    pub fn connect(&self, device: &str, other: &Self, other_device: &str) {
        self.ip(&format!("link add {device} type veth peer name {other_device} netns {}", other.task));
        self.ip(&format!("link set {device} up"));
        other.ip(&format!("link set {other_device} up"));
    }

    /// The number of a device.
    pub fn ifindex(&self, device: &str) -> u32 {
        let name = std::ffi::CString::new(device).expect("no NUL");
        // SAFETY: a valid string.
        self.run(move || unsafe { libc::if_nametoindex(name.as_ptr()) })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// A BPF file system of a test's own, unmounted when dropped.
pub struct BpfMount(PathBuf);

impl BpfMount {
    /// A name for a folder that does not exist; mounting it is left to the code under test.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("baton-test-{}-{number}-{}", std::process::id(), baton::clock::now());
        Self(std::env::temp_dir().join(name))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for BpfMount {
    fn drop(&mut self) {
        if self.0.exists() {
            rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).ok();
            std::fs::remove_dir(&self.0).ok();
        }
    }
}

/// Waits until a condition holds; fails the test after a generous limit.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < limit, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}
