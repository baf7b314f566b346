//! Namespaces with agents, and the resources that they run.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use baton::{
    cluster::ids::GroupId,
    config::kinds::{self, GivenTimes, OCF_ROOT, OcfRole},
    resources::{Common, Context, Operation, Resource as _, ResourceError, Timeouts, Work, ocf::Ocf},
};
use tempfile::TempDir;

/// The longest that anything is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Set for the part of a test that runs in namespaces.
const INSIDE: &str = "BATON_TEST_INSIDE";

/// Runs a test in a network, mount and process namespace of its own; all that it starts ends with it.
pub fn isolated(test: impl FnOnce(&mut Lab)) {
    if std::env::var_os(INSIDE).is_some() {
        return test(&mut Lab::new());
    }
    let name = thread::current().name().unwrap().to_owned();
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    // The first process of a namespace takes the status of those whose parents have ended: a shell does, a test does not.
    command.args(["sh", "-c", "\"$0\" \"$@\"; exit $?"]).arg(std::env::current_exe().unwrap()).args([
        "--exact",
        &name,
        "--nocapture",
        "--test-threads=1",
    ]);
    let out = command.env(INSIDE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && said.contains("1 passed"),
        "in its namespaces (run as root): {said}{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// The files of a test.
pub struct Lab {
    dir: TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Lab {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { dir: tempfile::tempdir().unwrap(), runtime }
    }

    /// A path of the test's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// One of the installed agents.
    pub fn spec(&self, agent: &str, parameters: &[(&str, &str)]) -> kinds::Ocf {
        kinds::Ocf {
            provider: "heartbeat".into(),
            agent: agent.into(),
            ocf_root: OCF_ROOT.into(),
            parameters: parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            role: OcfRole::Started,
            given: GivenTimes { start: true, stop: true, monitor: true, interval: true },
        }
    }

    /// An agent of the test's own: `$STATE` is a file that is there while it runs, `$1` the action.
    pub fn broken(&self, body: &str) -> kinds::Ocf {
        let path = self.path("resource.d/test/Broken");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let script = format!(
            "#!/bin/sh\nSTATE={}\nmeta() {{ cat <<'X'\n<resource-agent name=\"Broken\"><parameters>\n\
             <parameter name=\"x\"><content type=\"integer\"/></parameter></parameters><actions>\n\
             <action name=\"start\" timeout=\"7s\"/><action name=\"stop\" timeout=\"8s\"/>\n\
             <action name=\"monitor\" timeout=\"9s\" interval=\"33s\"/></actions></resource-agent>\nX\n}}\n{body}\n\
             case $1 in meta-data) meta;; start) touch $STATE;; stop) rm -f $STATE;;\n\
             monitor) [ -e $STATE ] || exit 7;; *) exit 3;; esac\n",
            self.path("state").display()
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        kinds::Ocf {
            provider: "test".into(),
            agent: "Broken".into(),
            ocf_root: self.dir.path().to_owned(),
            ..self.spec("", &[])
        }
    }

    /// The resource, with a limit for its operations.
    pub fn within(&self, spec: &kinds::Ocf, limit: Duration) -> Ocf {
        let common = Common {
            group: GroupId::new("net"),
            name: "agent".into(),
            node: "n1".into(),
            timeouts: Timeouts { probe: limit, start: limit, stop: limit, monitor: limit },
            monitor_interval: Some(Duration::from_secs(10)),
            run_dir: self.path("run"),
            realtime: false,
        };
        Ocf::new(&common, spec)
    }

    pub fn resource(&self, spec: &kinds::Ocf) -> Ocf {
        self.within(spec, PATIENCE)
    }

    /// The result of an operation.
    pub fn settle<T>(&self, work: Work<'_, T>) -> Result<T, ResourceError> {
        self.runtime.block_on(work.within(PATIENCE * 2, "agent", Operation::Monitor))
    }

    /// Begins an operation, and gives it up after a while.
    pub fn give_up<T>(&self, work: Work<'_, T>, after: Duration) -> Option<Result<T, ResourceError>> {
        let Work::Pending(future) = work else { panic!("it is done already") };
        self.runtime.block_on(async { tokio::time::timeout(after, future).await.ok() })
    }

    pub fn start(&self, resource: &mut Ocf) {
        self.settle(resource.start(&context())).unwrap();
    }

    pub fn stop(&self, resource: &mut Ocf) {
        self.settle(resource.stop(&context())).unwrap();
    }

    /// Asserts that a start fails in these words.
    pub fn refused(&self, resource: &mut Ocf, words: &[&str]) {
        has(&self.settle(resource.start(&context())).unwrap_err().to_string(), words);
    }
}

/// Asserts that a text has these words.
pub fn has(text: &str, words: &[&str]) {
    for words in words {
        assert!(text.contains(words), "no \"{words}\" in {text}");
    }
}

pub fn context() -> Context {
    Context { group: GroupId::new("net"), epoch: 7 }
}

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
