//! Starting, adopting, dying, refused configurations, and what a node says when it is not ready.

use std::fs;

use baton::{
    config::OnFailure,
    process::Process,
    resources::{Health, Resource as _, What},
};

use crate::lab::{Client, Lab, Node, context, echo_server, isolated, kill, until};

const CFG: &str = "global
    stats socket DIR/lb1.sock mode 600 level admin
defaults
    mode tcp
    timeout connect 1s
    timeout client 60s
    timeout server 60s
frontend f
    bind 127.0.0.1:8001
    default_backend b
backend b
    server s1 127.0.0.1:9001
";

fn up(lab: &Lab, change: impl FnOnce(&mut baton::config::Haproxy)) -> Node {
    lab.write("lb1.cfg", CFG);
    let mut spec = lab.spec("lb1");
    change(&mut spec);
    let mut node = lab.node("lb1", spec);
    lab.settle(node.haproxy.attend()).unwrap();
    node
}

#[test]
fn it_is_started_runs_on_without_the_agent_and_is_adopted() {
    isolated(|lab| {
        let mut node = up(lab, |_| {});
        lab.ready(&mut node);
        assert_eq!(lab.settle(node.haproxy.start(&context())), Ok(()));
        assert_eq!(lab.settle(node.haproxy.monitor()), Ok(Health::Running));
        let worker = node.worker();
        // Stopping the group leaves it up, as a standby.
        assert_eq!(lab.settle(node.haproxy.stop(&context())), Ok(()));
        drop(node);
        let process = Process::open(worker).expect("it runs on");
        let mut again = lab.node("lb1", lab.spec("lb1"));
        assert!(lab.reason(&mut again).contains("not looked after yet"));
        lab.settle(again.haproxy.attend()).unwrap();
        assert_eq!((again.worker(), process.ended()), (worker, false));
        // The adopted one is watched like a child.
        kill(worker);
        assert!(matches!(again.life(), What::Died { release: true, .. }));
        assert_eq!(again.life(), What::Restarted);
        assert_ne!(again.worker(), worker);
    });
}

#[test]
fn its_death_is_noticed_whichever_process_dies_and_it_comes_back() {
    death_is_noticed(true);
}

#[test]
fn without_early_notice_its_death_is_noticed_too() {
    death_is_noticed(false);
}

fn death_is_noticed(early: bool) {
    isolated(move |lab| {
        lab.exits.take_if(|_| !early);
        let mut node = up(lab, |_| {});
        let worker = node.worker();
        kill(worker);
        let What::Died { status, release } = node.life() else { panic!("no death") };
        assert!(release && status.contains(&format!("worker (process {worker})")), "{status}");
        assert_eq!(node.life(), What::Restarted);
        lab.ready(&mut node);
        let master = Process::open(node.worker()).unwrap().parent().unwrap();
        kill(master);
        let What::Died { status, .. } = node.life() else { panic!("no death") };
        assert!(status.contains("killed by signal 9") || status.contains("worker"), "{status}");
        assert_eq!(node.life(), What::Restarted);
        lab.ready(&mut node);
        assert_eq!(lab.settle(node.haproxy.start(&context())), Ok(()));
    });
}

/// Reloads HAProxy as an operator would, and gives the new worker.
fn reload(lab: &Lab, node: &Node) -> u32 {
    let before = node.worker();
    let said = || fs::read_to_string(lab.path("run/web-haproxy-lb1.log")).unwrap();
    let reloads = || said().matches("Reloading HAProxy").count();
    let master = Process::open(before).unwrap().parent().unwrap();
    let (master, done) = (Process::open(master).unwrap(), reloads());
    // A master that has just started loses the signal; one that has it says so at once.
    let mut asked = std::time::Instant::now();
    master.signal(rustix::process::Signal::USR2).unwrap();
    until(
        || {
            if asked.elapsed() > std::time::Duration::from_secs(2) && reloads() == done {
                asked = std::time::Instant::now();
                master.signal(rustix::process::Signal::USR2).unwrap();
            }
            reloads() > done
        },
        said,
    );
    until(|| node.haproxy.worker().is_some_and(|worker| worker != before), || "the old worker is there still".into());
    node.worker()
}

#[test]
fn an_old_worker_that_ends_after_somebodys_reload_is_no_death() {
    isolated(|lab| {
        echo_server(9001);
        let mut node = up(lab, |_| {});
        lab.ready(&mut node);
        // It has nothing to finish, so it ends before anybody has asked who serves now.
        let first = node.worker();
        let second = reload(lab, &node);
        until(|| Process::open(first).is_err(), || "it runs on".into());
        // This one has, and is still there when the next one dies.
        let mut client = Client::connect(8001);
        client.echo("before");
        let third = reload(lab, &node);
        client.echo("after");
        assert!(Process::open(second).is_ok());
        kill(third);
        let What::Died { status, .. } = node.life() else { panic!("no death") };
        assert!(status.contains(&format!("worker (process {third})")), "{status}");
    });
}

#[test]
fn a_restart_in_place_gives_the_group_up_when_its_budget_is_spent() {
    isolated(|lab| {
        let mut node = up(lab, |spec| {
            spec.on_failure = OnFailure::Restart;
            spec.restarts = 1;
        });
        kill(node.worker());
        assert!(matches!(node.life(), What::Died { release: false, .. }));
        assert_eq!(node.life(), What::Restarted);
        kill(node.worker());
        assert!(matches!(node.life(), What::Died { release: true, .. }));
        until(|| node.haproxy.worker().is_none(), || "it is up again".into());
        let error = lab.settle(node.haproxy.attend()).unwrap_err().to_string();
        assert!(error.contains("was started again 1 times already within 60s"), "{error}");
        assert!(lab.settle(node.haproxy.start(&context())).is_err());
        assert_eq!(lab.settle(node.haproxy.monitor()), Ok(Health::Stopped));
    });
}

#[test]
fn a_configuration_that_haproxy_refuses_is_reported_in_its_own_words() {
    isolated(|lab| {
        lab.write("lb1.cfg", &CFG.replace("default_backend b", "default_backend nowhere"));
        let mut node = lab.node("lb1", lab.spec("lb1"));
        let words = "unable to find required default_backend: 'nowhere'";
        let error = lab.settle(node.haproxy.attend()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(lab.reason(&mut node).contains(words));
        assert!(lab.settle(node.haproxy.start(&context())).unwrap_err().to_string().contains(words));
        lab.write("lb1.cfg", CFG);
        lab.settle(node.haproxy.attend()).unwrap();
        lab.ready(&mut node);
        // One that runs is not made unready by a file that it has not read; a planned move is refused.
        lab.write("lb1.cfg", &CFG.replace("default_backend b", "default_backend nowhere"));
        lab.ready(&mut node);
        let error = lab.settle(node.haproxy.receive(&context())).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        let error = lab.settle(node.haproxy.drain(&context())).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        lab.write("lb1.cfg", CFG);
        lab.settle(node.haproxy.receive(&context())).unwrap();
        // No file at all, and one without a stats socket.
        let mut other = lab.node("lb2", lab.spec("lb2"));
        assert!(lab.settle(other.haproxy.attend()).unwrap_err().to_string().contains("cannot be read"));
        lab.write("lb2.cfg", &CFG.replace("stats socket", "#"));
        assert!(lab.settle(other.haproxy.attend()).unwrap_err().to_string().contains("has no `stats socket`"));
        // An address that is taken is found by HAProxy at its start.
        let taken = std::net::TcpListener::bind("127.0.0.1:8002").unwrap();
        lab.write("lb2.cfg", &CFG.replace("lb1.sock", "lb2.sock").replace("8001", "8002"));
        let error = lab.settle(other.haproxy.attend()).unwrap_err().to_string();
        assert!(error.contains("cannot bind socket"), "{error}");
        drop(taken);
        lab.settle(other.haproxy.attend()).unwrap();
    });
}

#[test]
fn a_haproxy_of_somebody_else_is_not_taken_for_ours() {
    isolated(|lab| {
        let node = up(lab, |_| {});
        let worker = node.worker();
        drop(node);
        let record = lab.path("run/web-haproxy-lb1.json");
        let kept = fs::read(&record).unwrap();
        fs::remove_file(&record).unwrap();
        let mut node = lab.node("lb1", lab.spec("lb1"));
        let error = lab.settle(node.haproxy.attend()).unwrap_err().to_string();
        assert!(error.contains(&format!("a HAProxy that Baton did not start (process {worker})")), "{error}");
        fs::write(&record, kept).unwrap();
        lab.settle(node.haproxy.attend()).unwrap();
        assert_eq!(node.worker(), worker);
    });
}

#[test]
fn servers_that_are_down_make_a_node_unready_until_they_are_up() {
    isolated(|lab| {
        lab.write("lb1.cfg", &CFG.replace("9001", "9001 check inter 50ms fall 1 rise 1"));
        let mut node = lab.node("lb1", lab.spec("lb1"));
        lab.settle(node.haproxy.attend()).unwrap();
        until(|| lab.reason(&mut node) == "backend b has 0 of 1 servers up", || "the server is not found down".into());
        assert_eq!(lab.settle(node.haproxy.monitor()), Ok(Health::Running), "the balancer itself is well");
        assert!(lab.settle(node.haproxy.receive(&context())).is_err());
        assert!(matches!(node.event(), What::Ill(_)));
        echo_server(9001);
        lab.ready(&mut node);
        assert_eq!(node.event(), What::Well);
        lab.settle(node.haproxy.receive(&context())).unwrap();
        // A frontend that an operator shut accepts nothing.
        node.ask("disable frontend f");
        assert!(lab.reason(&mut node).contains("frontend f is"), "{}", lab.reason(&mut node));
        node.ask("enable frontend f");
        lab.ready(&mut node);
        // A stopped process answers nothing, and says so within its limit.
        let process = Process::open(node.worker()).unwrap();
        process.signal(rustix::process::Signal::STOP).unwrap();
        until(|| lab.reason(&mut node).contains("did not answer"), || "it answers still".into());
        process.signal(rustix::process::Signal::CONT).unwrap();
        lab.ready(&mut node);
    });
}

#[test]
fn the_shipped_example_is_accepted_by_haproxy() {
    isolated(|lab| {
        let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/haproxy-pair.cfg");
        let text = fs::read_to_string(example).unwrap().replace("/run/haproxy/admin.sock", "DIR/lb1.sock");
        lab.write("lb1.cfg", &text);
        let mut spec = lab.spec("lb1");
        spec.backends_min = 0;
        let mut node = lab.node("lb1", spec);
        // The addresses are not here; `transparent` binds them all the same. The peer's own is not there to be bound.
        std::process::Command::new("ip").args(["addr", "add", "10.0.0.1/24", "dev", "lo"]).status().unwrap();
        lab.settle(node.haproxy.attend()).unwrap();
        lab.ready(&mut node);
        assert_eq!(node.haproxy.notes(), Vec::<String>::new());
        let peers = node.ask("show peers");
        assert!(peers.contains("id=lb1(local") && peers.contains("id=lb2(remote"), "{peers}");
    });
}
