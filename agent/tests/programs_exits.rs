//! Early notice of the ends of processes, on the running kernel. Needs root; fails where BPF cannot be had.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod kernel_support;

use std::{
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd, AsRawFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command},
    time::Duration,
};

use baton::{
    kernel::{Exits, Watch},
    process::{Process, wait},
};
use kernel_support::{namespace::wait_until, programs};

const PATIENCE: Duration = Duration::from_secs(20);
/// Sockets of the process that is killed.
const SOCKETS: usize = 300;

/// A process that is killed at the latest with the test.
struct Victim(Child);

impl Victim {
    fn spawn(command: &mut Command) -> (Self, Process) {
        let child = Self(command.spawn().unwrap());
        let process = Process::open(child.0.id()).unwrap();
        (child, process)
    }

    fn sleeping() -> (Self, Process) {
        Self::spawn(Command::new("/bin/sleep").arg("600"))
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn exits() -> Exits {
    programs().exits().expect("the program must attach: run as root, in the first process namespace")
}

fn woken(watch: &Watch, limit: Duration) -> bool {
    wait(&[watch.as_fd()], Some(limit)).unwrap()[0]
}

/// A watch whose first wake, which all get, is taken.
fn watch(exits: &Exits, process: &Process) -> Watch {
    let watch = exits.watch(process).unwrap();
    assert!(woken(&watch, PATIENCE), "the end may have begun before the watch");
    assert_eq!(process.ending(), None);
    watch.clear();
    watch
}

#[test]
fn the_end_of_a_process_with_many_sockets_is_noticed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let pair = || (TcpStream::connect(address).unwrap(), listener.accept().unwrap().0);
    let (ours, theirs): (Vec<_>, Vec<_>) = (0..SOCKETS).map(|_| pair()).unzip();
    let numbers: Vec<_> = theirs.iter().map(AsRawFd::as_raw_fd).collect();
    let mut command = Command::new("/bin/sleep");
    command.arg("600");
    // SAFETY: between fork and exec only fcntl(2) is called, on descriptors that are open.
    unsafe {
        command.pre_exec(move || {
            numbers.iter().for_each(|fd| _ = libc::fcntl(*fd, libc::F_SETFD, 0));
            Ok(())
        });
    }
    let (mut victim, process) = Victim::spawn(&mut command);
    // From here on they are the victim's alone.
    drop(theirs);
    let exits = exits();
    let watch = watch(&exits, &process);
    victim.kill();
    assert!(woken(&watch, PATIENCE), "nobody was woken");
    assert_eq!(process.ending().as_deref(), Some("killed by signal 9"));
    wait_until("the end", || process.ended());
    drop(ours);
}

#[test]
fn the_end_of_a_thread_is_no_end_of_its_process() {
    let exits = exits();
    let process = Process::open(std::process::id()).unwrap();
    let watch = watch(&exits, &process);
    std::thread::spawn(|| {}).join().unwrap();
    assert!(woken(&watch, PATIENCE), "it is a hint all the same");
    assert_eq!(process.ending(), None);
}

#[test]
fn an_end_in_order_is_told_with_its_code() {
    let exits = exits();
    let (mut victim, process) =
        Victim::spawn(Command::new("/bin/sh").args(["-c", "read line; exit 3"]).stdin(std::process::Stdio::piped()));
    let watch = watch(&exits, &process);
    drop(victim.0.stdin.take());
    assert!(woken(&watch, PATIENCE));
    // Its status is nobody's yet, so it is the same before and after the end.
    assert!(matches!(process.ending().as_deref(), Some("exits with 3" | "exited with 3")));
}

#[test]
fn only_what_is_watched_wakes_and_only_as_long_as_it_is() {
    let exits = exits();
    let ((mut first, one), (mut second, two), (mut third, three)) =
        (Victim::sleeping(), Victim::sleeping(), Victim::sleeping());
    let (watched, twice) = (watch(&exits, &one), watch(&exits, &one));
    let other = watch(&exits, &three);
    drop(watch(&exits, &two));
    let mut numbers = [one.pid(), three.pid()];
    numbers.sort_unstable();
    assert_eq!(exits.numbers().unwrap(), numbers, "what is not watched any more is not told of");
    second.kill();
    wait_until("the second one's end", || two.ended());
    third.kill();
    // The ring keeps its order: what the second one's end could have told came before.
    assert!(woken(&other, PATIENCE));
    assert!(!woken(&watched, Duration::ZERO) && !woken(&twice, Duration::ZERO));
    drop(watched);
    first.kill();
    assert!(woken(&twice, PATIENCE), "the other watch of the same process goes on");
    drop((twice, other));
    assert_eq!(exits.numbers().unwrap(), [0; 0]);
}
