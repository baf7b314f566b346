//! What tests of resources share: namespaces of their own, a runtime as the executor has one, programs that must do well.

use std::{
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use baton::resources::{Operation, ResourceError, Timeouts, Work};
use tempfile::TempDir;

/// The longest that anything is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Set for the part of a test that runs in namespaces.
const INSIDE: &str = "BATON_TEST_INSIDE";

/// Runs a test in a mount and a process namespace of its own, and in `further` ones (options of unshare(1)): what is ended there
/// is nobody else's, and all of it ends with the test.
pub fn isolated(further: &[&str], test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return test();
    }
    let name = thread::current().name().unwrap().to_owned();
    let mut command = Command::new("unshare");
    command.args(further).args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    // The first process of a namespace takes the status of those whose parents have ended: a shell does, a test does not.
    command.args(["sh", "-c", "\"$0\" \"$@\"; exit $?"]).arg(std::env::current_exe().unwrap());
    let out = command.args(["--exact", &name, "--nocapture", "--test-threads=1"]).env(INSIDE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && said.contains("1 passed"),
        "in its namespaces (run as root): {said}{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// A folder of the test's own, and what carries out the operations of resources.
pub struct Bench {
    /// The folder; it goes with the bench.
    pub dir: TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { dir: tempfile::tempdir().unwrap(), runtime }
    }

    /// The result of an operation.
    pub fn settle<T>(&self, work: Work<'_, T>) -> Result<T, ResourceError> {
        self.runtime.block_on(work.within(PATIENCE * 2, "the resource of the test", Operation::Monitor))
    }

    /// Begins an operation, and gives it up after a while.
    pub fn give_up<T>(&self, work: Work<'_, T>, after: Duration) -> Option<Result<T, ResourceError>> {
        let Work::Pending(future) = work else { panic!("it is done already") };
        self.runtime.block_on(async { tokio::time::timeout(after, future).await.ok() })
    }
}

/// One limit for all operations.
pub fn timeouts(limit: Duration) -> Timeouts {
    Timeouts { probe: limit, start: limit, stop: limit, monitor: limit }
}

/// What a program says, which must do well.
pub fn output(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Waits for a condition.
pub fn until(mut condition: impl FnMut() -> bool, otherwise: &str) {
    let limit = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < limit, "waited in vain: {otherwise}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
