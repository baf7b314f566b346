//! The real servers of the agent, with a cluster in one variable behind them.

use std::{
    collections::BTreeMap,
    future::Future,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Command, Output},
    sync::{Arc, Mutex},
    time::Duration,
};

use baton::{
    api::{Backend, OrderError, control::Control, http::Http, mend::Mend, protocol::ErrorKind, status::*},
    cluster::{
        entry::{Cause, Scope, Switch},
        ids::{GroupId, Role, VoterId},
        message::Order,
        placement::Constraints,
        timing::Timing,
    },
    config::{Group, Kind, OnFailed, Resource, Script, Shared, Vip, Voter},
    telemetry::{
        history::History,
        metrics::Snapshot,
        record::{Phase, PhaseName, Record},
        run::{GroupRun, ResourceState, RunState},
    },
};
use tempfile::TempDir;

/// A cluster in one variable: orders are carried out at once, or refused.
pub struct Fake {
    shared: Shared,
    pub status: Mutex<StatusReport>,
    pub history: History,
}

impl Backend for Fake {
    fn shared(&self) -> &Shared {
        &self.shared
    }

    fn history(&self) -> &History {
        &self.history
    }

    fn status(&self) -> impl Future<Output = StatusReport> + Send {
        let mut status = self.status.lock().unwrap().clone();
        status.find_warnings();
        async move { status }
    }

    async fn metrics(&self) -> Snapshot {
        Snapshot { cluster: "lb".into(), node: "lb1".into(), quorum: true, ..Snapshot::default() }
    }

    async fn restart(&self, within: u64, exit: bool) -> Result<String, OrderError> {
        let mut status = self.status.lock().unwrap();
        let number = status.id;
        status.incarnation += 1;
        let incarnation = status.incarnation;
        status.voters.iter_mut().filter(|v| v.id == number).for_each(|v| v.incarnation = incarnation);
        Ok(format!("restarts within {within} ns, exit {exit}"))
    }

    async fn mend(&self, mend: Mend) -> Result<String, OrderError> {
        match mend {
            Mend::Restart { resource, .. } if resource == "daemon" => {
                let message = "lb1: daemon is unmanaged; `baton resource manage web daemon` ends that".into();
                Err(OrderError { kind: ErrorKind::Refused, message })
            }
            Mend::Restart { resource, .. } => Ok(format!("lb1: restarting {resource}")),
            Mend::Cleanup { resource, .. } => Ok(format!("lb1: {} forgotten", resource.as_deref().unwrap_or("all"))),
        }
    }

    async fn plan(&self, order: Order) -> Result<String, OrderError> {
        Ok(format!("{order:?} would be carried out"))
    }

    fn order(&self, order: Order) -> impl Future<Output = Result<String, OrderError>> + Send {
        let mut status = self.status.lock().unwrap();
        let answer = match order {
            _ if !status.quorum => {
                Err(OrderError { kind: ErrorKind::NoQuorum, message: "no quorum: nobody can decide".into() })
            }
            Order::Move { to: VoterId(3), .. } => {
                Err(OrderError { kind: ErrorKind::Refused, message: "arbiter owns nothing".into() })
            }
            Order::Move { to, .. } => {
                let name = self.shared.name_of(to).to_string();
                status.groups[0].owner = Some(name.clone());
                status.groups[0].epoch += 1;
                Ok(format!("web moves to {name}"))
            }
            Order::Switch { what, on } => {
                let of = |group: &GroupId| group.to_string();
                match what {
                    Switch::Maintenance(Scope::Cluster) => status.maintenance = on,
                    Switch::Maintenance(Scope::Node(node)) => {
                        status.voters.iter_mut().filter(|v| v.id == node).for_each(|v| v.maintenance = on);
                    }
                    Switch::Maintenance(Scope::Group(group)) => {
                        status.groups.iter_mut().filter(|g| g.name == of(&group)).for_each(|g| g.maintenance = on);
                    }
                    Switch::Stopped(group) => {
                        for g in status.groups.iter_mut().filter(|g| g.name == of(&group)) {
                            g.stopped = on;
                            g.owner = (!on).then(|| "lb1".into());
                            let state = if on { RunState::Stopped } else { RunState::Running };
                            g.runs[0].run.resources.iter_mut().for_each(|r| r.state = state);
                        }
                    }
                    Switch::Unmanaged(group, resource) => {
                        for g in status.groups.iter_mut().filter(|g| g.name == of(&group)) {
                            g.unmanaged.retain(|r| *r != resource);
                            if on {
                                g.unmanaged.push(resource.clone());
                            }
                        }
                    }
                }
                Ok("switched".into())
            }
            Order::Standby { node, on } => {
                let name = self.shared.name_of(node).to_string();
                for v in status.voters.iter_mut().filter(|v| v.name == name) {
                    v.standby = on;
                }
                let other = if name == "lb1" { "lb2" } else { "lb1" };
                status.groups[0].owner = Some(other.into());
                Ok("done".into())
            }
        };
        async move { answer }
    }
}

/// A resource of the configuration.
fn resource(name: &str) -> Resource {
    Resource {
        name: name.into(),
        kind: Kind::Script(Script { command: vec!["/bin/true".into()], environment: BTreeMap::new() }),
        requires: Vec::new(),
        on_failure: OnFailed::Restart,
        start_timeout_ns: 1_000_000_000,
        stop_timeout_ns: 1_000_000_000,
        monitor_timeout_ns: 1_000_000_000,
        monitor_interval_ns: 1_000_000_000,
    }
}

/// How the group runs on its owner.
fn run() -> GroupRun {
    let resource = |name: &str, failures, last_error: Option<&str>| ResourceState {
        name: name.into(),
        kind: "script".into(),
        state: RunState::Running,
        since: 1,
        failures,
        last_error: last_error.map(Into::into),
    };
    GroupRun { blocked: None, resources: vec![resource("data", 0, None), resource("daemon", 2, Some("exit status 7"))] }
}

fn shared() -> Shared {
    let names = [(1, "lb1", Role::Node), (2, "lb2", Role::Node), (3, "arbiter", Role::Arbiter)];
    let voter = |(id, name, role): (u8, &str, Role)| {
        (
            VoterId(id),
            Voter { id: VoterId(id), name: name.into(), role, links: Vec::new(), front: Vec::new(), capacity: None },
        )
    };
    let vip = Vip { address: Ipv4Addr::new(192, 0, 2, 10).into(), prefix: 24, device: BTreeMap::new() };
    let web = Group {
        id: GroupId::new("web"),
        nodes: vec![VoterId(1), VoterId(2)],
        prefer: BTreeMap::new(),
        stickiness: 100,
        failback: false,
        vips: vec![vip],
        drain_timeout_ns: 300_000_000_000,
        haproxies: Vec::new(),
        fence: Vec::new(),
        resources: vec![resource("data"), resource("daemon")],
        migration_threshold: 3,
        failure_timeout_ns: 600_000_000_000,
        constraints: Constraints::default(),
    };
    Shared {
        name: "lb".into(),
        timing: Timing::DEFAULT,
        port: 7420,
        voters: names.into_iter().map(voter).collect(),
        groups: [(web.id.clone(), web)].into(),
    }
}

pub fn report() -> StatusReport {
    let link = LinkStatus {
        address: "10.0.0.2".into(),
        hook: "tcx".into(),
        up: true,
        last_seen_ns: Some(3_000_000),
        rtt_p50_ns: Some(120_000),
        rtt_p99_ns: Some(400_000),
        received: 990,
        lost: 10,
    };
    let voter = |id: u8, name: &str, role| VoterStatus {
        id: VoterId(id),
        name: name.into(),
        role,
        me: id == 1,
        life: Life::Alive,
        last_seen_ns: (id != 1).then_some(3_000_000),
        incarnation: 1,
        holds_lease: Some(id != 3),
        standby: false,
        maintenance: false,
        same_configuration: Some(id != 2),
        front_up: Some(true),
        links: if id == 1 { Vec::new() } else { vec![link.clone(), link.clone()] },
    };
    StatusReport {
        cluster: "lb".into(),
        node: "lb1".into(),
        id: VoterId(1),
        role: Role::Node,
        version: "0.1.0".into(),
        incarnation: 4,
        uptime_ns: 7_260_000_000_000,
        interval_ns: 10_000_000,
        lease_ns: 50_000_000,
        quorum: true,
        leader: Some("lb2".into()),
        term: 7,
        applied: 42,
        gate_index: 42,
        lease: LeaseStatus { held: true, remaining_ns: 45_000_000, enforced: false, lapsed: 0 },
        voters: vec![voter(1, "lb1", Role::Node), voter(2, "lb2", Role::Node), voter(3, "arbiter", Role::Arbiter)],
        groups: vec![GroupStatus {
            name: "web".into(),
            owner: Some("lb1".into()),
            epoch: 3,
            cause: Some(Cause::Silent),
            moving_to: None,
            draining_on: None,
            last_move: None,
            serving_here: true,
            why: "owner <with> a lease".into(),
            stopped: false,
            maintenance: false,
            unmanaged: Vec::new(),
            runs: vec![NodeRun { node: "lb1".into(), run: run() }],
            vips: vec![VipStatus { address: "192.0.2.10/24".into(), device: "eth0".into(), present: true }],
            candidates: vec!["lb2".into()],
            against: BTreeMap::new(),
        }],
        maintenance: false,
        fronts: vec![FrontStatus { device: "eth0".into(), up: true, gate: "tcx".into() }],
        warnings: Vec::new(),
    }
}

pub fn record(epoch: u64) -> Record {
    let phase = |phase, at_ns, took_ns| Phase { phase, at_ns, took_ns, detail: String::new() };
    Record {
        seq: 0,
        recorded_by: "lb1".into(),
        group: Some("web".into()),
        epoch,
        cause: Cause::Silent,
        from: Some("lb2".into()),
        to: Some("lb1".into()),
        wall_ns: 1_735_689_599_999_000_000,
        total_ns: 71_000_000,
        phases: vec![phase(PhaseName::LastBeat, 5_000_000, 0), phase(PhaseName::Announced, 76_000_000, 71_000_000)],
    }
}

/// The servers on a runtime of their own.
pub struct Servers {
    pub dir: TempDir,
    http: SocketAddr,
    pub backend: Arc<Fake>,
    _runtime: tokio::runtime::Runtime,
}

impl Servers {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let backend = Arc::new(Fake { shared: shared(), status: Mutex::new(report()), history: History::in_memory() });
        let http = runtime.block_on(async {
            let control = Control::bind(&dir.path().join("run/control.sock")).unwrap();
            tokio::spawn(control.serve(backend.clone()));
            let http = Http::bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
            let address = http.address().unwrap();
            tokio::spawn(http.serve(backend.clone()));
            address
        });
        Self { dir, http, backend, _runtime: runtime }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("run/control.sock")
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// What the control socket answers to these bytes, until it hangs up or the client's end is read.
    pub fn say(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // The server may hang up before it has read everything.
        drop(stream.write_all(bytes));
        drop(stream.shutdown(std::net::Shutdown::Write));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub fn baton(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_baton"))
            .args(args)
            .args(["--socket", self.socket().to_str().unwrap()])
            .output()
            .unwrap()
    }

    /// What the HTTP port answers to these bytes and the end of the stream. The server may hang up at that end, whatever it was
    /// about to answer.
    pub fn http(&self, bytes: &[u8]) -> String {
        self.ask_http(bytes, true)
    }

    fn ask_http(&self, bytes: &[u8], half_close: bool) -> String {
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        drop(stream.write_all(bytes));
        if half_close {
            drop(stream.shutdown(std::net::Shutdown::Write));
        }
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub fn get(&self, path: &str, accept: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
        self.ask_http(request.as_bytes(), false)
    }

    pub fn still_answers(&self) {
        assert!(self.say(b"{\"request\":\"status\"}\n").starts_with("{\"response\":\"status\""));
        assert!(self.get("/status", "*/*").starts_with("HTTP/1.1 200 OK"));
    }
}
