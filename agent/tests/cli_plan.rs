//! `baton plan` as a user has it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use tempfile::TempDir;

const FILE: &str = r#"
[cluster]
name = "stack"
key_file = "cluster.key"

[this]
name = "n1"
run_dir = "RUN"

[[voter]]
id = 1
name = "n1"
role = "node"
backplane = ["10.0.0.1"]
front = ["eth0"]
capacity = { cpu = 4, memory = "8GiB" }

[[voter]]
id = 2
name = "n2"
role = "node"
backplane = ["10.0.0.2"]
front = ["eth0"]
capacity = { cpu = 4, memory = "8GiB" }

[[voter]]
id = 3
name = "arbiter"
role = "arbiter"
backplane = ["10.0.0.3"]

[[group]]
name = "db"
prefer = { n2 = 10 }
needs = { cpu = 2, memory = "4GiB" }
vip = [{ address = "192.0.2.1/24" }]

[[group]]
name = "app"
after = ["db"]
with = ["db"]
vip = [{ address = "192.0.2.2/24" }]

[[group]]
name = "batch"
apart = ["db"]
needs = { memory = "6GiB" }
vip = [{ address = "192.0.2.3/24" }]
"#;

fn baton(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_baton")).args(args).env_remove("BATON_LOG").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn file() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    assert!(baton(&["keygen", dir.path().join("cluster.key").to_str().unwrap()]).status.success());
    let file = dir.path().join("baton.toml");
    fs::write(&file, FILE.replace("RUN", dir.path().to_str().unwrap())).unwrap();
    (dir, file)
}

#[test]
fn a_plan_says_where_why_and_what_is_to_be_done() {
    let (_dir, file) = file();
    let out = baton(&["plan", file.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let expected = "\
from: nothing running and all nodes up, because no agent answers here

app    on n2: with db
batch  on n1: the best node that can take it, score 0
db     on n2: the best node that can take it, score 10
1. start batch on n1
2. start db on n2
3. start app on n2, once db runs and db is on n2
";
    assert_eq!(text(&out.stdout), expected);
}

#[test]
fn suppositions_change_the_plan() {
    let (_dir, file) = file();
    let file = file.to_str().unwrap();
    let down = text(&baton(&["plan", file, "--down", "n2"]).stdout);
    assert!(down.contains("db     nowhere: n1: batch is there, from which it must keep apart"), "{down}");
    assert!(down.contains("app    nowhere: it must be with db, which is nowhere"), "{down}");
    let standby = text(&baton(&["plan", file, "--standby", "n1"]).stdout);
    assert!(standby.contains("n1: it is on standby"), "{standby}");
    let json = baton(&["plan", file, "--json", "--empty"]);
    let plan: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(plan["from"], "nothing running and all nodes up");
    assert_eq!(plan["places"]["app"]["node"], "n2");
    assert_eq!(plan["steps"][2]["waits"][0], "db runs");
    let moved = text(&baton(&["plan", file, "--down", "n1", "--move", "db", "n2"]).stderr);
    assert!(moved.starts_with("baton: db cannot be moved to n2: it has no owner"), "{moved}");
}

#[test]
fn what_cannot_be_supposed_is_refused() {
    let (_dir, file) = file();
    let file = file.to_str().unwrap();
    for (args, code, words) in [
        (&["--down", "n3"][..], 2, "no node is called \"n3\" (did you mean \"n1\"?); the nodes are: n1, n2"),
        (&["--down", "arbiter"], 2, "no node is called \"arbiter\""),
        (&["--move", "dbb", "n1"], 2, "no group is called \"dbb\" (did you mean \"db\"?)"),
        (&["--move", "app", "n1"], 3, "app cannot be moved to n1: it must be with db, which is not there"),
        (&["--move", "db", "n1"], 3, "db cannot be moved to n1: batch is there, from which it must keep apart"),
        (&["--move", "app"], 2, "2 values required"),
    ] {
        let out = baton(&[&["plan", file][..], args].concat());
        assert_eq!(out.status.code(), Some(code), "{args:?}: {}", text(&out.stderr));
        assert!(text(&out.stderr).contains(words), "{args:?}: {}", text(&out.stderr));
    }
}
