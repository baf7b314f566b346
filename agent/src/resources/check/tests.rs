//! Real sockets on the loopback, real commands.

use std::{net::IpAddr, path::Path, sync::Mutex};

use kinds::Http;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::resources::{ResourceEvent, common::tests::*};

fn check(dir: &Path, probe: Probe, scope: Scope, timeout_ms: u64) -> (Check, Arc<Mutex<Vec<ResourceEvent>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&told);
    let notifier = Notifier::new(move |event| sink.lock().unwrap().push(event));
    let timeout_ns = timeout_ms * 1_000_000;
    let spec = kinds::Check { probe, attempts: 2, interval_ns: 1_000_000, timeout_ns, scope };
    let mut common = common(dir, "unit");
    common.monitor_interval = Some(Duration::from_millis(5));
    (Check::new(&common, spec, &notifier), told)
}

/// A server that gives every connection the same answer, and keeps what it was asked.
async fn server(answer: &'static [u8]) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = [0; 1024];
            let n = stream.read(&mut bytes).await.unwrap_or(0);
            log.lock().unwrap().push(String::from_utf8_lossy(&bytes[..n]).into_owned());
            // A client that has seen enough has gone.
            drop(stream.write_all(answer).await);
        }
    });
    (address, asked)
}

fn page(address: &str, status: Option<u16>, contains: Option<&str>) -> Probe {
    let contains = contains.map(str::to_owned);
    let host = "web.example".into();
    Probe::Http(Http { address: address.to_owned(), host, path: "/up?x=1".into(), status, contains })
}

async fn verdict(dir: &Path, probe: Probe) -> Result<(), String> {
    let (check, _) = check(dir, probe, Scope::Group, 20_000);
    check.asker.ask(&check.asker.monitor).await
}

#[test]
fn a_check_is_a_resource_that_starts_while_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let (address, _) = server(b"").await;
        let (mut check, told) = check(dir.path(), Probe::Tcp(address), Scope::Group, 20_000);
        assert_eq!(done(check.probe()).await, Ok(Health::Stopped));
        assert_eq!(done(check.monitor()).await, Ok(Health::Stopped));
        done(check.start(&context(1))).await.unwrap();
        assert_eq!(done(check.monitor()).await, Ok(Health::Running));
        assert_eq!(done(check.readiness()).await, Ok(Readiness::Ready));
        done(check.attend()).await.unwrap();
        done(check.stop(&context(1))).await.unwrap();
        assert_eq!(done(check.probe()).await, Ok(Health::Stopped));
        assert!(told.lock().unwrap().is_empty());
    });
}

#[test]
fn a_closed_port_fails_the_start_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        // Bound and not listened on: nobody else gets the port.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap().to_string();
        let (mut check, _) = check(dir.path(), Probe::Tcp(address.clone()), Scope::Group, 20_000);
        let error = done(check.start(&context(1))).await.unwrap_err().to_string();
        let words = format!("connection to {address} failed 2 times in a row: Connection refused");
        assert!(error.contains(&words), "{error}");
    });
}

#[test]
fn machines_answer_a_ping_and_nobody_else_does() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        for address in ["127.0.0.1", "::1"] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(verdict(dir.path(), Probe::Ping(address)).await, Ok(()), "{address}");
        }
        // 192.0.2.0/24 is nobody's: there is either no way to it, or no answer from it.
        let nobody = Probe::Ping("192.0.2.213".parse().unwrap());
        let (check, _) = check(dir.path(), nobody, Scope::Group, 20);
        let why = check.asker.ask(&check.asker.monitor).await.unwrap_err();
        assert!(why.starts_with("ping of 192.0.2.213 failed 2 times in a row: "), "{why}");
    });
}

#[test]
fn a_page_is_judged_by_its_status_and_what_it_has_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    block_on(async {
        let (good, asked) = server(b"HTTP/1.0 200 OK\r\nX: all well\r\n\r\nthe site is open").await;
        assert_eq!(verdict(dir, page(&good, None, None)).await, Ok(()));
        let request = asked.lock().unwrap()[0].clone();
        assert!(request.starts_with("GET /up?x=1 HTTP/1.0\r\nHost: web.example\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n"));
        assert_eq!(verdict(dir, page(&good, Some(200), Some("site is"))).await, Ok(()));
        let why = verdict(dir, page(&good, None, Some("all well"))).await.unwrap_err();
        assert!(why.contains("does not have \"all well\""), "the head is not the page: {why}");
        let why = verdict(dir, page(&good, Some(204), None)).await.unwrap_err();
        assert!(why.contains("http://web.example/up?x=1") && why.contains("status 200, not 204"), "{why}");
        let (ill, _) = server(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await;
        assert!(verdict(dir, page(&ill, None, None)).await.unwrap_err().contains("status 503, not 200 to 399"));
        assert_eq!(verdict(dir, page(&ill, Some(503), None)).await, Ok(()));
        let (other, _) = server(b"SSH-2.0-OpenSSH\r\n").await;
        assert!(verdict(dir, page(&other, None, None)).await.unwrap_err().contains("does not answer by HTTP"));
        let (endless, _) = server(&[b'x'; 4 << 20]).await;
        assert!(verdict(dir, page(&endless, None, None)).await.unwrap_err().contains("no status line"));
        let (empty, _) = server(b"").await;
        assert!(verdict(dir, page(&empty, None, None)).await.is_err());
    });
}

#[test]
fn a_standby_whose_check_fails_is_not_ready_and_says_so_once() {
    let dir = tempfile::tempdir().unwrap();
    let flag = dir.path().join("flag");
    block_on(async {
        let words = ["/usr/bin/test", "-e", flag.to_str().unwrap()].map(str::to_owned).to_vec();
        let (mut check, told) = check(dir.path(), Probe::Command(words), Scope::Node, 20_000);
        let Readiness::NotReady(why) = done(check.readiness()).await.unwrap() else { panic!("it holds") };
        assert!(why.contains("exited with 1"), "{why}");
        done(check.attend()).await.unwrap();
        until(|| !told.lock().unwrap().is_empty()).await;
        std::fs::write(&flag, "").unwrap();
        until(|| told.lock().unwrap().len() > 1).await;
        let told: Vec<What> = told.lock().unwrap().iter().map(|event| event.what.clone()).collect();
        assert!(matches!(&told[..], [What::Ill(_), What::Well]), "{told:?}");
        assert_eq!(done(check.readiness()).await, Ok(Readiness::Ready));
    });
}

#[test]
fn a_command_that_hangs_is_killed_and_named() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let words = ["/bin/sleep", "600"].map(str::to_owned).to_vec();
        let (mut check, _) = check(dir.path(), Probe::Command(words), Scope::Group, 50);
        let error = done(check.start(&context(1))).await.unwrap_err().to_string();
        assert!(error.contains("/bin/sleep 600 failed 2 times in a row: no answer within 50ms"), "{error}");
        done(check.stop(&context(1))).await.unwrap();
    });
}
