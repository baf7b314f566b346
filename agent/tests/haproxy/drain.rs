//! The soft stop after a move: what is under way ends undisturbed, and nothing that waits is lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use baton::{config::DrainMode, process::Process, resources::Resource as _};

use crate::lab::{Client, Lab, Node, context, echo_server, isolated, until};

const CFG: &str = "global
    stats socket DIR/lb1.sock mode 600 level admin
defaults
    mode tcp
    timeout connect 1s
    timeout client 60s
    timeout server 60s
    timeout queue 60s
    option idle-close-on-response
frontend f
    bind 127.0.0.1:8001
    default_backend b
frontend narrow
    bind 127.0.0.1:8002
    maxconn 1
    backlog 128
    default_backend b
backend b
    server s1 127.0.0.1:9001 weight 5
";

fn up(lab: &Lab, drain: DrainMode) -> Node {
    echo_server(9001);
    lab.write("lb1.cfg", CFG);
    let mut spec = lab.spec("lb1");
    spec.drain = drain;
    let mut node = lab.node("lb1", spec);
    lab.settle(node.haproxy.attend()).unwrap();
    lab.ready(&mut node);
    node
}

#[test]
fn a_long_connection_ends_undisturbed_while_a_fresh_worker_stands_by() {
    isolated(|lab| {
        let mut node = up(lab, DrainMode::Soft);
        assert_eq!(node.haproxy.notes(), Vec::<String>::new());
        node.ask("set server b/s1 weight 42");
        let old = Process::open(node.worker()).unwrap();
        let mut long = Client::connect(8001);
        long.echo("before");
        lab.settle(node.haproxy.drain(&context())).unwrap();
        assert_ne!(node.worker(), old.pid());
        assert_eq!(node.haproxy.leaving(), 1);
        lab.ready(&mut node);
        assert!(node.ask("show servers state").contains(" s1 127.0.0.1 2 0 42 5 "), "what was set at run time is kept");
        long.echo("meanwhile");
        Client::connect(8001).echo("new");
        lab.settle(node.haproxy.drained(&context())).unwrap();
        long.echo("after");
        assert!(!old.ended());
        drop(long);
        until(|| old.ended() && node.haproxy.leaving() == 0, || "the old worker does not end".into());
        // Its end was no death, and the fresh worker is watched as the old one was.
        assert!(node.events.try_iter().all(|e| !matches!(e.what, baton::resources::What::Died { .. })));
        crate::lab::kill(node.worker());
        assert!(matches!(node.life(), baton::resources::What::Died { .. }));
        assert_eq!(node.life(), baton::resources::What::Restarted);
    });
}

#[test]
fn connections_that_wait_to_be_accepted_are_taken_over() {
    isolated(|lab| {
        let mut node = up(lab, DrainMode::Soft);
        let mut first = Client::connect(8002);
        first.echo("first");
        // The frontend takes one connection; these wait in the kernel's queue, each with a request.
        let mut waiting: Vec<_> = (0..20).map(|_| Client::connect(8002)).collect();
        waiting.iter_mut().for_each(|c| c.send("waiting"));
        lab.settle(node.haproxy.drain(&context())).unwrap();
        first.echo("first again");
        for mut client in waiting {
            assert_eq!(client.receive(7), "waiting");
        }
        first.echo("and again");
    });
}

#[test]
fn no_new_connection_fails_during_soft_stops() {
    isolated(|lab| {
        let mut node = up(lab, DrainMode::Soft);
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients: Vec<_> = (0..2)
            .map(|_| {
                let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
                thread::spawn(move || {
                    while !stop.load(SeqCst) {
                        Client::connect(8001).echo("request");
                        served.fetch_add(1, SeqCst);
                    }
                })
            })
            .collect();
        for round in 1..=5 {
            // Twice at once: a master that has just reloaded may not hear the second.
            lab.settle(node.haproxy.drain(&context())).unwrap();
            lab.settle(node.haproxy.drain(&context())).unwrap();
            until(|| served.load(SeqCst) > round * 50, || "the clients stand still".into());
        }
        stop.store(true, SeqCst);
        clients.into_iter().for_each(|c| c.join().expect("every connection was served"));
    });
}

#[test]
fn left_alone_it_stays_as_it_is() {
    isolated(|lab| {
        let mut node = up(lab, DrainMode::Leave);
        let worker = node.worker();
        let mut client = Client::connect(8001);
        lab.settle(node.haproxy.drain(&context())).unwrap();
        client.echo("x");
        assert_eq!((node.worker(), node.haproxy.leaving()), (worker, 0));
    });
}

#[test]
fn settings_that_make_a_drain_rough_are_named() {
    isolated(|lab| {
        echo_server(9001);
        let rough = CFG
            .replace("    option idle-close-on-response\n", "")
            .replace("level admin", "level admin\n    hard-stop-after 5s");
        lab.write("lb1.cfg", &rough);
        let mut node = lab.node("lb1", lab.spec("lb1"));
        lab.settle(node.haproxy.attend()).unwrap();
        let notes = node.haproxy.notes();
        assert!(notes.iter().any(|n| n.contains("option idle-close-on-response")), "{notes:?}");
        assert!(notes.iter().any(|n| n.contains("`hard-stop-after 5s` breaks")), "{notes:?}");
        assert_eq!(notes.len(), 2);
    });
}
