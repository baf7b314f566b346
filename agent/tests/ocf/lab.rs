//! Namespaces with agents, and the resources that they run.

use std::{fs, ops::Deref, os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration};

use baton::{
    cluster::ids::GroupId,
    config::kinds::{self, GivenTimes, OCF_ROOT, OcfRole},
    resources::{Common, Context, Resource as _, ocf::Ocf},
};

use crate::resource_support::{self, Bench, timeouts};
pub use crate::resource_support::{PATIENCE, output, text, until};

/// Runs a test in namespaces of its own; the network is one of them.
pub fn isolated(test: impl FnOnce(&mut Lab)) {
    resource_support::isolated(&["--net"], || test(&mut Lab::new()));
}

/// The files of a test.
pub struct Lab {
    bench: Bench,
}

impl Deref for Lab {
    type Target = Bench;

    fn deref(&self) -> &Bench {
        &self.bench
    }
}

impl Lab {
    fn new() -> Self {
        Self { bench: Bench::new() }
    }

    /// A path of the test's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.bench.dir.path().join(name)
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
            ocf_root: self.bench.dir.path().to_owned(),
            ..self.spec("", &[])
        }
    }

    /// The resource, with a limit for its operations.
    pub fn within(&self, spec: &kinds::Ocf, limit: Duration) -> Ocf {
        let common = Common {
            group: GroupId::new("net"),
            name: "agent".into(),
            node: "n1".into(),
            timeouts: timeouts(limit),
            monitor_interval: Some(Duration::from_secs(10)),
            run_dir: self.path("run"),
            realtime: false,
        };
        Ocf::new(&common, spec)
    }

    pub fn resource(&self, spec: &kinds::Ocf) -> Ocf {
        self.within(spec, PATIENCE)
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
