//! Two HAProxys: what one hands over to the other, and whether their stick tables are in step.

use baton::resources::Resource as _;

use crate::lab::{Client, Lab, Node, context, echo_server, isolated, kill, until};

/// A node's configuration; the two differ in socket, port, and their name among the peers, which Baton gives them.
fn cfg(node: &str, port: u16) -> String {
    format!(
        "global
    stats socket DIR/{node}.sock mode 600 level admin
defaults
    timeout connect 1s
    timeout client 60s
    timeout server 60s
peers mesh
    peer lb1 127.0.0.1:7001
    peer lb2 127.0.0.1:7002
frontend f
    bind 127.0.0.1:{port}
    mode tcp
    tcp-request connection track-sc0 src table t
    default_backend b
frontend h
    bind 127.0.0.1:1{port}
    mode http
    acl denied src -f DIR/denied.lst
    http-request deny if denied
    http-request set-header X-A %[path,map(DIR/a.map,none)]
    http-request set-header X-B %[path,map_beg(DIR/b.map,none)]
    default_backend web
backend t
    stick-table type ip size 1k expire 10m store conn_cnt peers mesh
backend b
    mode tcp
    server s1 127.0.0.1:9001 check inter 100ms
    server s2 127.0.0.1:9002 backup weight 50
    server s3 127.0.0.1:9003 backup
    server s4 DIR/s4.sock backup
backend web
    mode http
    server s1 127.0.0.1:9004 disabled
    server s2 127.0.0.1:9005
"
    )
}

fn pair(lab: &Lab) -> (Node, Node) {
    echo_server(9001);
    lab.write("a.map", "/x one two\n/y three\n");
    lab.write("b.map", "/x/ first\n/x second\n");
    lab.write("denied.lst", "10.9.0.0/16\n");
    let up = |name: &str, port| {
        lab.write(&format!("{name}.cfg"), &cfg(name, port));
        let mut node = lab.node(name, lab.spec(name));
        lab.settle(node.haproxy.attend()).unwrap();
        lab.ready(&mut node);
        node
    };
    (up("lb1", 8001), up("lb2", 8002))
}

/// Waits until a node may be moved to: HAProxys that have both just started take some seconds to agree that neither knows more.
fn learnt(lab: &Lab, node: &mut Node) {
    let last = std::cell::RefCell::new(None);
    until(
        || {
            let refused = lab.settle(node.haproxy.receive(&context())).map_err(|e| e.to_string()).err();
            assert!(
                refused.iter().all(|r| r.contains("still being learnt") || r.contains("no session")),
                "{refused:?}"
            );
            last.replace(refused).is_none() && last.borrow().is_none()
        },
        || format!("{:?}", last.borrow()),
    );
}

/// Columns of `show servers state` that the operator sets: name, address, admin state without the configuration's bits, weight.
fn servers(node: &Node) -> Vec<String> {
    let text = node.ask("show servers state");
    let rows = text.lines().skip(2).filter(|l| !l.is_empty()).map(|l| l.split(' ').collect::<Vec<_>>());
    rows.map(|r| format!("{}/{} {}:{} {} {}", r[1], r[3], r[4], r[18], r[6].parse::<u32>().unwrap() & 9, r[7]))
        .collect()
}

/// Entries of a list, with their addresses in memory: an entry that was not touched keeps its own.
fn entries(node: &Node, list: &str) -> Vec<String> {
    node.ask(list).lines().filter(|l| !l.is_empty()).map(str::to_owned).collect()
}

fn without_address(entries: &[String]) -> Vec<&str> {
    entries.iter().map(|e| e.split_once(' ').unwrap().1).collect()
}

#[test]
fn weights_states_addresses_maps_and_acls_go_over_and_only_what_differs_is_touched() {
    isolated(|lab| {
        let (mut old, mut new) = pair(lab);
        let maps = [lab.path("a.map"), lab.path("b.map"), lab.path("denied.lst")].map(|p| p.display().to_string());
        let [a, b, denied] = &maps;
        let untouched = entries(&new, &format!("show map {b}"));
        assert_eq!(untouched.len(), 2);
        for command in [
            "set server b/s1 weight 7".to_owned(),
            "set server b/s2 state drain".into(),
            "set server b/s3 state maint".into(),
            "set server b/s3 addr 127.0.0.9 port 9009".into(),
            "set server b/s4 weight 0".into(),
            "set server web/s1 state ready".into(),
            "set server web/s2 health down".into(),
            "disable health b/s1".into(),
            format!("set map {a} /y four and five"),
            format!("add map {a} /z;show six"),
            format!("add map {a} /z six\\;seven\\\\"),
            format!("add acl {denied} 10.8.0.0/16"),
        ] {
            old.ask(&command);
        }
        // More than one command can carry.
        let many: String = (0..2_000).map(|n| format!("/many/{n} value {n}\n")).collect();
        for part in many.lines().collect::<Vec<_>>().chunks(100) {
            old.ask(&format!("add map {a} <<\n{}\n", part.join("\n")));
        }
        learnt(lab, &mut new);
        let state = lab.settle(old.haproxy.export()).unwrap();
        assert_ne!(servers(&new), servers(&old));
        lab.settle(new.haproxy.import(&state)).unwrap();
        assert_eq!(servers(&new), servers(&old));
        let expected =
            ["b/s1 127.0.0.1:9001 0 7", "b/s2 127.0.0.1:9002 8 50", "b/s3 127.0.0.9:9009 1 1", "b/s4 -:0 0 0"];
        assert_eq!(servers(&new)[..4], expected);
        assert!(servers(&new).contains(&"web/s1 127.0.0.1:9004 0 1".to_owned()), "{:?}", servers(&new));
        assert!(new.ask("show stat web 4 -1").contains("web,s2,"));
        let down = |node: &Node| {
            node.ask("show stat web 4 -1").lines().any(|l| l.starts_with("web,s2,") && l.contains(",DOWN,"))
        };
        assert!(down(&old) && down(&new), "a state that an operator forced goes over where no check finds its own");
        for list in [format!("show map {a}"), format!("show acl {denied}")] {
            let (theirs, ours) = (entries(&old, &list), entries(&new, &list));
            assert!(ours.len() >= 2);
            assert_eq!(without_address(&ours), without_address(&theirs));
        }
        assert!(entries(&new, &format!("show map {a}")).iter().any(|e| e.ends_with(" /z six;seven\\")));
        assert_eq!(entries(&new, &format!("show map {b}")), untouched, "a map that is equal is left alone");
        // Once more changes nothing at all.
        let before = entries(&new, &format!("show map {a}"));
        lab.settle(new.haproxy.import(&state)).unwrap();
        assert_eq!(entries(&new, &format!("show map {a}")), before);
        // And back again: the state of the first is what is wanted now.
        old.ask("set server b/s1 weight 99");
        let state = lab.settle(new.haproxy.export()).unwrap();
        lab.settle(old.haproxy.import(&state)).unwrap();
        assert_eq!(servers(&old), servers(&new));
    });
}

#[test]
fn what_cannot_be_taken_over_is_refused_and_what_is_unknown_is_passed_over() {
    isolated(|lab| {
        let (mut old, mut new) = pair(lab);
        let state = String::from_utf8(lab.settle(old.haproxy.export()).unwrap()).unwrap();
        let before = servers(&new);
        for (bad, words) in [
            ("nonsense".to_owned(), "no state of a HAProxy"),
            (state.replace("\"version\":1", "\"version\":9"), "version 9"),
            (state.replace("\"s1\"", "\"s1;disable frontend f\""), "no name of a backend or server"),
            (state.replace("\"weight\":50", "\"weight\":5000"), "the weight of b/s2 is 5000"),
        ] {
            let error = lab.settle(new.haproxy.import(bad.as_bytes())).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(servers(&new), before);
        // A server that only the other node has is no reason to stay where it is.
        let more = state.replace("\"s3\"", "\"s33\"").replace("\"weight\":50", "\"weight\":51");
        lab.settle(new.haproxy.import(more.as_bytes())).unwrap();
        assert!(servers(&new).contains(&"b/s2 127.0.0.1:9002 0 51".to_owned()));
        // A stats socket that may not change anything says so.
        let cfg = cfg("lb3", 8003).replace(" level admin", " level user").replace("700", "701");
        lab.write("lb3.cfg", &cfg);
        let mut user = lab.node("lb3", lab.spec("lb3"));
        lab.settle(user.haproxy.attend()).unwrap();
        assert!(user.haproxy.notes().iter().any(|n| n.contains("lacks `level admin`")), "{:?}", user.haproxy.notes());
        assert!(lab.settle(user.haproxy.import(more.as_bytes())).is_err());
    });
}

#[test]
fn stick_tables_are_in_step_before_a_move_and_a_lost_session_refuses_it() {
    isolated(|lab| {
        let (mut old, mut new) = pair(lab);
        for _ in 0..20 {
            Client::connect(8001).echo("x");
        }
        learnt(lab, &mut new);
        lab.settle(old.haproxy.export()).unwrap();
        let table = new.ask("show table t");
        assert!(table.contains("key=127.0.0.1") && table.contains("conn_cnt=20"), "{table}");
        // The other node is gone: nothing can be in step.
        let worker = new.worker();
        let master = baton::process::Process::open(worker).unwrap().parent().unwrap();
        drop(new);
        kill(master);
        until(|| !old.ask("show peers").contains("last_status=ESTA"), || "the session stays".into());
        let error = lab.settle(old.haproxy.export()).unwrap_err().to_string();
        assert!(error.contains("peers mesh: no session with another node (lb2 is "), "{error}");
        // That node is dead, which is no reason against this one.
        lab.ready(&mut old);
        let mut spec = lab.spec("lb1");
        spec.peers = Some("other".into());
        let mut misnamed = lab.node("lb1", spec);
        drop(old);
        lab.settle(misnamed.haproxy.attend()).unwrap();
        let error = lab.settle(misnamed.haproxy.export()).unwrap_err().to_string();
        assert!(error.contains("no section \"peers other\""), "{error}");
    });
}
