//! The servers of the agent and the command line against each other; and the servers against what nobody should send.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod groups;
mod servers;

use std::{
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use baton::{
    api::{
        control::{Control, ControlError},
        status::StatusReport,
    },
    telemetry::record::Record,
};
use rand::{Rng as _, RngCore as _, SeedableRng as _, rngs::StdRng};

use crate::servers::{Servers, record, report};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn status_is_a_table_for_people_and_json_for_programs() {
    let servers = Servers::start();
    let out = servers.baton(&["status"]);
    let table = text(&out.stdout);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    for words in [
        "lb as lb1 sees it",
        "3 of 3 voters alive",
        "45ms left of 50ms",
        "NOT enforced in the kernel",
        "192.0.2.10/24 eth0",
        "because the owner was silent",
        "120us / 400us",
        "10 of 1000",
        "warning: the lease is not enforced",
        "warning: the configuration of lb2 differs",
    ] {
        assert!(table.contains(words), "no \"{words}\" in\n{table}");
    }
    assert!(!table.contains('\u{1b}'), "no colours when it is no terminal");
    let json = servers.baton(&["status", "--json"]);
    let parsed: StatusReport = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(parsed.groups, report().groups);

    servers.backend.status.lock().unwrap().quorum = false;
    let out = servers.baton(&["status"]);
    assert_eq!(out.status.code(), Some(4));
    assert!(text(&out.stdout).contains("NO"));
}

#[test]
fn orders_are_carried_out_or_refused_with_their_reason() {
    let servers = Servers::start();
    let moved = servers.baton(&["move", "web", "lb2"]);
    assert_eq!(moved.status.code(), Some(0), "{}", text(&moved.stderr));
    assert_eq!(text(&moved.stdout), "web is owned by lb2, epoch 4\n");
    for (args, code, words) in [
        (["move", "webb", "lb2"], 3, "no group is called \"webb\" (did you mean \"web\"?); the groups are: web"),
        (["move", "web", "lb9"], 3, "no voter is called \"lb9\" (did you mean \"lb1\"?)"),
        (["move", "web", "arbiter"], 3, "arbiter owns nothing"),
    ] {
        let out = servers.baton(&args);
        assert_eq!(out.status.code(), Some(code));
        assert!(text(&out.stderr).contains(words), "{}", text(&out.stderr));
    }
    assert_eq!(servers.baton(&["standby", "lb2"]).status.code(), Some(0));
    assert_eq!(servers.backend.status.lock().unwrap().groups[0].owner.as_deref(), Some("lb1"));
    assert!(text(&servers.baton(&["status"]).stdout).contains("lb2 is on standby; `baton online lb2` ends it"));
    assert_eq!(servers.baton(&["online", "lb2"]).status.code(), Some(0));
    servers.backend.status.lock().unwrap().quorum = false;
    assert_eq!(servers.baton(&["move", "web", "lb1"]).status.code(), Some(4));
}

/// A configuration of the servers' cluster with one more group, `db`.
fn with_db(servers: &Servers) -> String {
    let key = servers.dir.path().join("cluster.key");
    assert_eq!(servers.baton(&["keygen", key.to_str().unwrap()]).status.code(), Some(0));
    let file = servers.dir.path().join("plan.toml");
    let voter = |id: u8, name: &str, rest: &str| {
        format!("[[voter]]\nid = {id}\nname = \"{name}\"\nbackplane = [\"10.0.0.{id}\"]\n{rest}\n")
    };
    let node = "role = \"node\"\nfront = [\"eth0\"]";
    let group =
        |name: &str, id: u8| format!("[[group]]\nname = \"{name}\"\nvip = [{{ address = \"192.0.2.{id}/24\" }}]\n");
    let head = "[cluster]\nname = \"lb\"\nkey_file = \"cluster.key\"\n[this]\nname = \"lb1\"\n".to_owned();
    let voters = [voter(1, "lb1", node), voter(2, "lb2", node), voter(3, "arbiter", "role = \"arbiter\"")].concat();
    std::fs::write(&file, head + &voters + &group("web", 10) + &group("db", 11) + "after = [\"web\"]\n").unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn a_plan_starts_from_the_running_cluster() {
    let servers = Servers::start();
    let file = with_db(&servers);
    let out = servers.baton(&["plan", &file]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let expected = "from: the running cluster lb as lb1 sees it\n\n\
        db   on lb2: the best node that can take it, score 0\nweb  on lb1: it stays\n1. start db on lb2\n";
    assert_eq!(text(&out.stdout), expected);
    let out = text(&servers.baton(&["plan", &file, "--down", "lb1"]).stdout);
    assert!(out.contains("1. start web on lb2\n2. start db on lb2, once web runs\n"), "{out}");
    let out = text(&servers.baton(&["plan", &file, "--move", "web", "lb2"]).stdout);
    assert!(out.contains("1. move web from lb1 to lb2\n2. start db on lb1, once web runs\n"), "{out}");
    servers.backend.status.lock().unwrap().voters[1].life = baton::api::status::Life::Silent;
    let out = servers.baton(&["plan", &file, "--move", "web", "lb2"]);
    assert_eq!(out.status.code(), Some(3));
    assert!(
        text(&out.stderr).contains("web cannot be moved to lb2: its heartbeats do not arrive"),
        "{}",
        text(&out.stderr)
    );
    servers.backend.status.lock().unwrap().cluster = "other".into();
    let out = text(&servers.baton(&["plan", &file]).stdout);
    assert!(
        out.starts_with("from: nothing running and all nodes up, because the agent here is of cluster other"),
        "{out}"
    );
}

#[test]
fn events_are_told_and_followed() {
    let servers = Servers::start();
    assert!(text(&servers.baton(&["events"]).stderr).contains("no failover is recorded"));
    servers.backend.history.add(record(1));
    servers.backend.history.add(record(2));
    let told = text(&servers.baton(&["events"]).stdout);
    assert!(
        told.contains("#1 2024-12-31 23:59:59.999Z web epoch 1: lb2 -> lb1, because the owner was silent; 71ms in all"),
        "{told}"
    );
    assert!(told.lines().any(|l| l.contains("71ms") && l.contains("+71ms") && l.contains("announced")), "{told}");
    let json = text(&servers.baton(&["events", "--json", "--since", "1"]).stdout);
    assert_eq!(json.lines().count(), 1);
    assert_eq!(serde_json::from_str::<Record>(&json).unwrap().seq, 2);

    let mut follower = Command::new(env!("CARGO_BIN_EXE_baton"))
        .args(["events", "--follow", "--json", "--socket", servers.socket().to_str().unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = follower.stdout.take().unwrap();
    let (heard, hear) = mpsc::channel();
    thread::spawn(move || {
        for line in std::io::BufRead::lines(std::io::BufReader::new(out)) {
            if heard.send(serde_json::from_str::<Record>(&line.unwrap()).unwrap().seq).is_err() {
                return;
            }
        }
    });
    let limit = Duration::from_secs(20);
    assert_eq!((hear.recv_timeout(limit), hear.recv_timeout(limit)), (Ok(1), Ok(2)));
    servers.backend.history.add(record(3));
    assert_eq!(hear.recv_timeout(limit), Ok(3));
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn nonsense_on_the_control_socket_is_answered_with_no() {
    let servers = Servers::start();
    let bad = |bytes: &[u8]| {
        let answer = servers.say(bytes);
        assert!(answer.contains("\"kind\":\"bad_request\""), "{:?} -> {answer}", text(&bytes[..bytes.len().min(60)]));
        answer
    };
    bad(b"\n");
    bad(b"{\"request\":\"stat");
    bad(b"{\"request\":\"frobnicate\"}\n");
    bad(b"{\"request\":\"move\",\"group\":\"web\"}\n");
    bad(b"{\"request\":\"move\",\"group\":\"web\",\"node\":\"lb2\",\"farce\":true}\n");
    bad(b"{\"request\":\"events\",\"since\":-1}\n");
    bad(&[b"[".repeat(4000), b"\n".to_vec()].concat());
    assert!(bad(&b"x".repeat(1 << 20)).contains("at most 4096 bytes"));
    assert_eq!(servers.say(b""), "");
    // A good request after a bad one, on one connection, and two at once.
    let answer = servers.say(b"nonsense\n{\"request\":\"status\"}\n{\"request\":\"events\"}\n");
    let lines: Vec<&str> = answer.lines().collect();
    assert_eq!(lines.len(), 3, "{answer}");
    for (line, start) in
        lines.iter().zip(["{\"response\":\"error\"", "{\"response\":\"status\"", "{\"response\":\"end\""])
    {
        assert!(line.starts_with(start), "{line}");
    }
    let seed = rand::rng().random();
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..200 {
        let mut bytes = vec![0; random.random_range(0..8_000)];
        random.fill_bytes(&mut bytes);
        let answer = servers.say(&bytes);
        assert!(answer.lines().all(|l| l.contains("bad_request")), "seed {seed}: {answer}");
    }
    servers.still_answers();
}

#[test]
fn a_crowd_of_silent_clients_shuts_nobody_out_for_good() {
    let servers = Servers::start();
    let crowd: Vec<UnixStream> = (0..40).map(|_| servers.connect()).collect();
    // Those who found no place are told so; the others are thrown out when they say nothing.
    let told: Vec<String> = crowd
        .into_iter()
        .map(|mut stream| {
            let mut answer = String::new();
            drop(stream.read_to_string(&mut answer));
            answer
        })
        .collect();
    assert_eq!(told.iter().filter(|a| a.contains("\"kind\":\"busy\"")).count(), 8, "{told:?}");
    servers.still_answers();
}

#[test]
fn the_socket_is_for_root_alone_and_one_agent_alone() {
    let servers = Servers::start();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&servers.socket()), 0o600);
    assert_eq!(mode(servers.socket().parent().unwrap()), 0o700);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    assert!(matches!(Control::bind(&servers.socket()), Err(ControlError::InUse { .. })));
    let file = servers.dir.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(matches!(Control::bind(&file), Err(ControlError::NoSocket { .. })));
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    // One that a dead agent left behind is replaced.
    let stale = servers.dir.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(stale.exists());
    let control = Control::bind(&stale).unwrap();
    drop(control);
    assert!(!stale.exists(), "an agent that ends cleans up");
}

#[test]
fn http_serves_metrics_status_and_a_page() {
    let servers = Servers::start();
    servers.backend.history.add(record(1));
    let body = |answer: String| answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    let classic = servers.get("/metrics", "text/plain");
    assert!(classic.contains("content-type: text/plain; version=0.0.4"), "{classic}");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(body(classic.clone()).as_bytes()).unwrap();
    let judged = promtool.wait_with_output().unwrap();
    assert!(
        judged.status.success() && judged.stdout.is_empty() && judged.stderr.is_empty(),
        "{}{}",
        text(&judged.stdout),
        text(&judged.stderr)
    );
    assert!(classic.contains("baton_failovers_total{cause=\"silent\"} 1"));
    let open = servers.get("/metrics", "application/openmetrics-text; version=1.0.0");
    assert!(open.contains("content-type: application/openmetrics-text") && open.ends_with("# EOF\n"), "{open}");
    let status: StatusReport = serde_json::from_str(&body(servers.get("/status", "*/*"))).unwrap();
    assert_eq!(status.node, "lb1");
    let page = servers.get("/", "text/html");
    assert!(
        page.contains("default-src 'none'")
            && page.contains("owner &lt;with&gt; a lease")
            && page.contains("web epoch 1"),
        "{page}"
    );
    assert!(!page.contains("<script") && !page.contains("src="));
    assert!(servers.get("/nothing", "*/*").starts_with("HTTP/1.1 404"));
}

#[test]
fn nonsense_on_the_http_port_is_survived() {
    let servers = Servers::start();
    let seed = rand::rng().random();
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..100 {
        let mut bytes = vec![0; random.random_range(0..8_000)];
        random.fill_bytes(&mut bytes);
        let answer = servers.http(&bytes);
        assert!(!answer.starts_with("HTTP/1.1 200"), "seed {seed}: {answer}");
    }
    let long = "x".repeat(1 << 20);
    let post = format!(
        "POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nConnection: close\r\n\r\n{}",
        &long[..100_000]
    );
    for (bytes, code) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 4"),
        (format!("GET / HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n"), "HTTP/1.1 431"),
        (post, "HTTP/1.1 405"),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), "HTTP/1.1 400"),
    ] {
        let answer = servers.http(bytes.as_bytes());
        assert!(answer.is_empty() || answer.starts_with(code), "{}", &answer[..answer.len().min(80)]);
    }
    assert!(!servers.http(b"GET / HTTP/1.1\r\nHos").starts_with("HTTP/1.1 200"));
    servers.still_answers();
}
