//! Groups, resources and maintenance on the command line.

use baton::{
    api::status::{GroupStatus, StatusReport},
    telemetry::run::RunState,
};

use super::{servers::Servers, text};

/// Exit code, standard output, standard error.
fn baton(servers: &Servers, line: &str) -> (Option<i32>, String, String) {
    let arguments: Vec<&str> = line.split(' ').collect();
    let out = servers.baton(&arguments);
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

fn status(servers: &Servers) -> StatusReport {
    let mut status = servers.backend.status.lock().unwrap().clone();
    status.find_warnings();
    status
}

#[test]
fn groups_are_listed_and_shown_with_their_resources() {
    let servers = Servers::start();
    let (code, list, _) = baton(&servers, "group list");
    assert_eq!(code, Some(0));
    assert!(list.contains("web") && list.contains("lb1") && list.contains("2 of 2 run"), "{list}");
    let (_, json, _) = baton(&servers, "group list --json");
    assert_eq!(serde_json::from_str::<Vec<GroupStatus>>(&json).unwrap(), status(&servers).groups);

    let (code, shown, _) = baton(&servers, "group show web");
    assert_eq!(code, Some(0));
    for words in ["web: owner lb1, epoch 3", "on lb1 (this):", "daemon", "script", "running", "exit status 7"] {
        assert!(shown.contains(words), "no \"{words}\" in\n{shown}");
    }
    let (_, json, _) = baton(&servers, "group show web --json");
    assert_eq!(serde_json::from_str::<GroupStatus>(&json).unwrap(), status(&servers).groups[0]);
    let (code, _, error) = baton(&servers, "group show wep");
    assert_eq!(code, Some(3));
    assert!(error.contains("no group is called \"wep\" (did you mean \"web\"?)"), "{error}");

    servers.backend.status.lock().unwrap().groups[0].owner = Some("lb2".into());
    let (_, shown, _) = baton(&servers, "group show web");
    assert!(shown.contains("how its resources run is told by the agent on lb2"), "{shown}");
}

#[test]
fn a_group_is_stopped_and_started() {
    let servers = Servers::start();
    let (code, said, _) = baton(&servers, "group stop web");
    assert_eq!((code, &*said), (Some(0), "web is stopped; `baton group start web` starts it again\n"));
    assert!(status(&servers).groups[0].stopped);
    let (_, table, _) = baton(&servers, "status");
    assert!(table.contains("stopped") && table.contains("web was stopped by an operator"), "{table}");
    assert!(!table.contains("web has no owner"), "nobody is alarmed by what was ordered:\n{table}");
    let (code, said, _) = baton(&servers, "group start web");
    assert_eq!((code, &*said), (Some(0), "web is owned by lb1, epoch 3\n"));
    let (code, said, _) = baton(&servers, "group stop --no-wait web");
    assert_eq!((code, &*said), (Some(0), "switched\n"));
    servers.backend.status.lock().unwrap().quorum = false;
    assert_eq!(baton(&servers, "group start web").0, Some(4));
}

#[test]
fn a_group_that_cannot_be_stopped_is_loud() {
    let servers = Servers::start();
    {
        let mut status = servers.backend.status.lock().unwrap();
        let run = &mut status.groups[0].runs[0].run;
        run.blocked = Some("data could not be stopped: it is busy; kill what uses it".into());
        run.resources[0].state = RunState::Blocked;
    }
    let (code, _, error) = baton(&servers, "group stop web");
    assert_eq!(code, Some(5));
    assert!(
        error.contains("web is blocked on lb1: data could not be stopped") && error.contains("cleanup web"),
        "{error}"
    );
    let (_, table, _) = baton(&servers, "status");
    assert!(table.contains("BLOCKED on lb1") && table.contains("warning: web is blocked on lb1: data"), "{table}");
    assert!(servers.get("/", "text/html").contains("BLOCKED on lb1"));
}

#[test]
fn maintenance_is_of_the_cluster_a_node_or_a_group() {
    let servers = Servers::start();
    for (option, sign) in [
        ("", "the cluster is in maintenance"),
        (" --node lb2", "lb2 is in maintenance"),
        (" --group web", "web is in maintenance"),
    ] {
        let (code, said, error) = baton(&servers, &format!("maintenance on{option}"));
        assert_eq!(code, Some(0), "{error}");
        assert!(said.starts_with(sign) && said.contains(&format!("`baton maintenance off{option}`")), "{said}");
        assert!(status(&servers).warnings.iter().any(|w| w.contains(sign)), "{option}");
        assert!(baton(&servers, "status").1.contains(sign), "{option}");
        assert_eq!(baton(&servers, &format!("maintenance off{option}")).0, Some(0));
        assert!(!baton(&servers, "status").1.contains(sign), "{option}");
    }
    assert_eq!(baton(&servers, "maintenance on --node lb2 --group web").0, Some(2));
    assert_eq!(baton(&servers, "maintenance on --node lb9").0, Some(3));
    let both = servers.say(b"{\"request\":\"maintenance\",\"node\":\"lb2\",\"group\":\"web\",\"on\":true}\n");
    assert!(both.contains("\"kind\":\"refused\"") && both.contains("give two orders"), "{both}");
}

#[test]
fn resources_are_restarted_left_alone_and_cleaned_up() {
    let servers = Servers::start();
    let (code, said, _) = baton(&servers, "resource restart web data");
    assert_eq!(code, Some(0));
    assert!(said.starts_with("lb1: restarting data; `baton group show web`"), "{said}");
    let (code, _, error) = baton(&servers, "resource restart web daemon");
    assert_eq!(code, Some(3));
    assert!(error.contains("daemon is unmanaged"), "{error}");
    let (code, _, error) = baton(&servers, "resource restart web date");
    assert_eq!(code, Some(3));
    assert!(
        error.contains("has no resource \"date\" (did you mean \"data\"?)") && error.contains("data, daemon, vip"),
        "{error}"
    );

    let (code, said, _) = baton(&servers, "resource unmanage web data");
    assert_eq!(code, Some(0));
    assert!(said.contains("data of web is unmanaged") && said.contains("`baton resource manage web data`"), "{said}");
    assert!(baton(&servers, "status").1.contains("data unmanaged"));
    assert_eq!(baton(&servers, "resource manage web data").0, Some(0));
    assert_eq!(status(&servers).groups[0].unmanaged, Vec::<String>::new());
    let (code, _, error) = baton(&servers, "resource unmanage web vip");
    assert_eq!(code, Some(3));
    assert!(error.contains("follow its gate"), "{error}");

    assert_eq!(baton(&servers, "group cleanup web").1, "lb1: all forgotten\n");
    assert_eq!(baton(&servers, "group cleanup web data").1, "lb1: data forgotten\n");
    assert_eq!(baton(&servers, "group cleanup web date").0, Some(3));
}
