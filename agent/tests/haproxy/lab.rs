//! A network namespace with HAProxys, servers behind them, and the resources that look after them.

use std::{
    cell::RefCell,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use baton::{
    cluster::ids::{GroupId, VoterId},
    config::{self, DrainMode, Managed, OnFailure},
    kernel::{Chain, Exits, KernelConfig, run::Programs},
    process::{Identity, Process},
    resources::{
        Context, Notifier, Operation, Readiness, Resource, ResourceError, ResourceEvent, What, Work,
        haproxy::{Haproxy, Setup},
    },
};
use rustix::process::Signal;
use tempfile::TempDir;

/// The longest that anything is waited for.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test in a network namespace of its own.
pub fn isolated(test: impl FnOnce(&mut Lab) + Send + 'static) {
    let thread = thread::spawn(move || {
        // SAFETY: unshare(2) with CLONE_NEWNET moves only the calling thread, and those that it starts.
        let done = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(done, 0, "a network namespace: run as root");
        let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(up.success());
        test(&mut Lab::new());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Early notice of ends, of a kernel side that does nothing else.
fn exits() -> Exits {
    let config = KernelConfig {
        cluster: "test".into(),
        cluster_id: 1,
        node: "one".into(),
        bpffs: "/sys/fs/bpf".into(),
        me: VoterId(1),
        voters: vec![VoterId(1)],
        key: [0; 2],
        port: 7700,
        incarnation: 1,
        lease_ns: 50_000_000,
        links: Vec::new(),
        fronts: Vec::new(),
        others: Vec::new(),
        vips: Vec::new(),
        chain: Chain::Auto,
        realtime: false,
    };
    Programs::load(&config)
        .and_then(|mut programs| programs.exits())
        .expect("run as root, in the first process namespace")
}

/// The files of a test. HAProxys that were started are ended with it.
pub struct Lab {
    dir: TempDir,
    /// Whether deaths are noticed as they begin, or only once they are over.
    pub exits: Option<Arc<Exits>>,
    runtime: tokio::runtime::Runtime,
}

impl Lab {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { dir: tempfile::tempdir().unwrap(), exits: Some(Arc::new(exits())), runtime }
    }

    /// A path of the test's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file; `DIR` in it is the test's directory.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text.replace("DIR", self.dir.path().to_str().unwrap())).unwrap();
        path
    }

    /// HAProxy's part of a configuration, as a file without more than `config` has it.
    pub fn spec(&self, node: &str) -> config::Haproxy {
        config::Haproxy {
            config: [(VoterId(1), self.path(&format!("{node}.cfg")))].into(),
            binary: "/usr/sbin/haproxy".into(),
            managed: Managed::Process,
            socket: None,
            backends_min: 1,
            peers: None,
            on_failure: OnFailure::Move,
            restarts: 3,
            restart_window: 60_000_000_000,
            drain: DrainMode::Soft,
        }
    }

    /// The resource of a node, not attended yet.
    pub fn node(&self, node: &str, spec: config::Haproxy) -> Node {
        let (tell, events) = channel();
        let setup = Setup {
            group: GroupId::new("web"),
            name: format!("web/haproxy-{node}"),
            node: node.to_owned(),
            config: self.path(&format!("{node}.cfg")),
            run_dir: self.path("run"),
            spec,
            realtime: false,
        };
        let notifier = Notifier::new(move |event| drop(tell.send(event)));
        Node {
            haproxy: Haproxy::new(setup, notifier, self.exits.clone()),
            events,
            socket: self.path(&format!("{node}.sock")),
        }
    }

    /// The result of an operation.
    pub fn settle<T>(&self, work: Work<'_, T>) -> Result<T, ResourceError> {
        self.runtime.block_on(work.within(PATIENCE * 2, "haproxy", Operation::Monitor))
    }

    /// Waits until a node is ready.
    pub fn ready(&self, node: &mut Node) {
        let last = RefCell::new(Readiness::Ready);
        until(
            || {
                last.replace(self.settle(node.haproxy.readiness()).unwrap());
                *last.borrow() == Readiness::Ready
            },
            || format!("not ready: {:?}", last.borrow()),
        );
    }

    /// Why a node is not ready.
    pub fn reason(&self, node: &mut Node) -> String {
        match self.settle(node.haproxy.readiness()).unwrap() {
            Readiness::Ready => "ready".into(),
            Readiness::NotReady(reason) => reason,
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let Ok(files) = fs::read_dir(self.path("run")) else { return };
        for file in files.filter_map(|f| Some(f.ok()?.path())).filter(|f| f.extension().is_some_and(|e| e == "json")) {
            let record: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
            let master: Identity = serde_json::from_value(record["master"].clone()).unwrap();
            if let Ok(process) = Process::find(&master) {
                drop(process.signal(Signal::TERM));
                process.end(Duration::from_secs(2));
            }
        }
    }
}

/// One node's HAProxy.
pub struct Node {
    pub haproxy: Haproxy,
    pub events: Receiver<ResourceEvent>,
    socket: PathBuf,
}

impl Node {
    /// The next event of those that a test is about: being ill for want of a first check is none.
    pub fn event(&self) -> What {
        let event = self.events.recv_timeout(PATIENCE).expect("an event");
        assert_eq!((event.group.to_string().as_str(), event.resource.starts_with("web/haproxy-")), ("web", true));
        event.what
    }

    /// The next death or restart.
    pub fn life(&self) -> What {
        loop {
            match self.event() {
                What::Ill(_) | What::Well => {}
                what => return what,
            }
        }
    }

    /// An answer of the runtime API.
    pub fn ask(&self, command: &str) -> String {
        ask(&self.socket, command)
    }

    /// The number of the serving process.
    pub fn worker(&self) -> u32 {
        self.haproxy.worker().expect("it runs")
    }
}

pub fn context() -> Context {
    Context { group: GroupId::new("web"), epoch: 7 }
}

/// An answer of the runtime API; the test fails when there is none.
pub fn ask(socket: &Path, command: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    writeln!(stream, "{command}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Sends SIGKILL to a process.
pub fn kill(pid: u32) {
    Process::open(pid).unwrap().signal(Signal::KILL).unwrap();
}

/// Waits for a condition.
pub fn until(mut condition: impl FnMut() -> bool, otherwise: impl FnOnce() -> String) {
    let limit = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() > limit {
            panic!("waited in vain: {}", otherwise());
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A server that sends back what it gets, on this port of the loopback, to the end of the test's process.
pub fn echo_server(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..n]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// A client of an echo server.
pub struct Client(TcpStream);

impl Client {
    pub fn connect(port: u16) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    pub fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap();
    }

    pub fn receive(&mut self, length: usize) -> String {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    pub fn echo(&mut self, text: &str) {
        self.send(text);
        assert_eq!(self.receive(text.len()), text);
    }
}
