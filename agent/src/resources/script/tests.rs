//! Real scripts on this machine.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::*;
use crate::{process, resources::common::tests::*};

/// A service that is a sleeping process of its own session, with its number in a file.
const SERVICE: &str = r#"
pid=$(cat pid 2>/dev/null)
case $BATON_ACTION in
start) [ "$BATON_ACTION" = "$2" ] || exit 90; setsid sleep 600 & echo $! > pid; echo "$BATON_GROUP $BATON_RESOURCE $BATON_NODE $BATON_EPOCH $1 $EXTRA" > seen;;
stop) [ -n "$pid" ] && kill $pid; rm -f pid; true;;
monitor) [ -n "$pid" ] || exit 7; kill -0 $pid;;
esac"#;

fn script(dir: &Path, body: &str) -> Script {
    let path = dir.join("service");
    fs::write(&path, format!("#!/bin/sh\ncd {}\n{body}\n", dir.display())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let command = vec![path.to_str().unwrap().to_owned(), "web server".to_owned()];
    let environment = [("EXTRA".to_owned(), "more".to_owned())].into();
    Script::new(&common(dir, "unit"), Spec { command, environment })
}

fn dir() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    (dir, path)
}

#[test]
fn a_service_is_started_looked_at_and_stopped() {
    let (_keep, dir) = dir();
    block_on(async {
        let mut script = script(&dir, SERVICE);
        assert_eq!(done(script.probe()).await, Ok(Health::Stopped));
        done(script.start(&context(7))).await.unwrap();
        assert_eq!(fs::read_to_string(dir.join("seen")).unwrap(), "g unit here 7 web server more\n");
        assert_eq!(done(script.monitor()).await, Ok(Health::Running));
        done(script.stop(&context(7))).await.unwrap();
        assert_eq!(done(script.monitor()).await, Ok(Health::Stopped));
        done(script.stop(&context(7))).await.unwrap();
    });
}

#[test]
fn what_fails_says_how_it_ended_and_what_it_said() {
    let (_keep, dir) = dir();
    block_on(async {
        let mut script = script(&dir, "echo first; echo 'no such disk' >&2; exit 4");
        let error = done(script.start(&context(1))).await.unwrap_err().to_string();
        assert!(error.contains("start of g/unit") && error.contains("exited with 4: first | no such disk"), "{error}");
        assert!(error.contains("g@unit.log"), "{error}");
        let Health::Failed(why) = done(script.monitor()).await.unwrap() else { panic!("it is not well") };
        assert!(why.contains("exited with 4"), "{why}");
        let mut missing = Script::new(
            &common(&dir, "gone"),
            Spec { command: vec!["/nonexistent".into()], environment: Default::default() },
        );
        let error = done(missing.start(&context(1))).await.unwrap_err();
        assert!(matches!(error, ResourceError::Failed { errno: Some(libc::ENOENT), .. }), "{error}");
    });
}

#[test]
fn a_stop_that_stops_nothing_fails() {
    let (_keep, dir) = dir();
    block_on(async {
        let error = done(script(&dir, "exit 0").stop(&context(1))).await.unwrap_err().to_string();
        assert!(error.contains("its monitor says that the service runs still"), "{error}");
    });
}

#[test]
fn beyond_its_time_it_is_killed_with_its_children_before_the_next_action() {
    let (_keep, dir) = dir();
    block_on(async {
        let mut script = script(&dir, "[ $BATON_ACTION = start ] || exit 7\nsleep 600 & echo $! > child; wait");
        let child = || fs::read_to_string(dir.join("child")).ok().and_then(|t| t.trim().parse::<u32>().ok());
        let start = Work::pending(async {
            // It is dropped when the child runs, and not after some time.
            tokio::select! {
                done = done(script.start(&context(1))) => done,
                () = until(|| child().is_some()) => Err(script_error()),
            }
        });
        assert_eq!(done(start).await, Err(script_error()));
        let child = child().unwrap();
        // `stop` exits with 7 here, which is a failure; that the child is gone is the point.
        assert!(done(script.stop(&context(1))).await.is_err());
        until(|| !process::lives(child)).await;
    });
}

#[test]
fn what_an_agent_before_this_one_left_running_is_killed_first() {
    let (_keep, dir) = dir();
    let words = ["/bin/sleep", "600"].map(str::to_owned);
    let left = process::launch(process::Launch {
        words: &words,
        environment: &[],
        directory: &dir,
        account: None,
        session: false,
        cgroups: &[],
        output: fs::File::create(dir.join("out")).unwrap(),
    })
    .unwrap();
    fs::write(dir.join("g@unit.action"), serde_json::to_vec(&left.identity().unwrap()).unwrap()).unwrap();
    block_on(async {
        let mut script = script(&dir, &format!("kill -0 {} && exit 1; exit 7", left.pid()));
        assert_eq!(done(script.probe()).await, Ok(Health::Stopped));
    });
    assert!(!dir.join("g@unit.action").exists());
}

fn script_error() -> ResourceError {
    ResourceError::TimedOut { resource: "g/unit".into(), operation: Operation::Start, limit: Duration::ZERO }
}
