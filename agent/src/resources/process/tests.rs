//! Real processes on this machine, with the control groups that it has, and without.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

use super::*;
use crate::{
    process::lives,
    resources::{ResourceEvent, common::tests::*},
};

struct Lab {
    dir: tempfile::TempDir,
    told: Arc<Mutex<Vec<ResourceEvent>>>,
    name: String,
    mounts: Mounts,
}

impl Lab {
    /// Names are unique on the machine, since control groups are the machine's.
    fn new(name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let mounts = Mounts::find().unwrap();
        Self { dir: tempfile::tempdir().unwrap(), told: Arc::default(), name, mounts }
    }

    fn spec(&self, script: &str) -> kinds::Process {
        let script = format!("cd {}; {script}", self.dir.path().display());
        kinds::Process {
            command: ["/bin/sh", "-c", &script].map(str::to_owned).to_vec(),
            environment: BTreeMap::new(),
            user: None,
            group: None,
            directory: PathBuf::from("/"),
            stop_signal: libc::SIGTERM,
            kill_after_ns: None,
            ready: None,
            log: None,
            memory: None,
            pids: None,
        }
    }

    fn process(&self, spec: kinds::Process) -> Process {
        let sink = Arc::clone(&self.told);
        let notifier = Notifier::new(move |event| sink.lock().unwrap().push(event));
        Process::with(&common(self.dir.path(), &self.name), spec, &notifier, self.mounts.clone())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path(name)).ok().map(|t| t.trim().to_owned()).filter(|t| !t.is_empty())
    }

    fn pid(&self, name: &str) -> Option<u32> {
        self.text(name)?.parse().ok()
    }

    fn record(&self) -> PathBuf {
        self.path(&format!("g@{}.json", self.name))
    }

    async fn told(&self) -> What {
        until(|| !self.told.lock().unwrap().is_empty()).await;
        self.told.lock().unwrap().remove(0).what
    }
}

/// A service with a child that has left its process group, as daemons' children do.
const SERVICE: &str = "setsid sleep 600 & echo $! > child; echo $$ > main; wait";

#[test]
fn it_is_started_held_with_its_children_and_stopped_with_them() {
    let lab = Lab::new("whole");
    block_on(async {
        let mut process = lab.process(lab.spec(SERVICE));
        assert_eq!(done(process.probe()).await, Ok(Health::Stopped));
        done(process.start(&context(1))).await.unwrap();
        until(|| lab.pid("main").is_some() && lab.pid("child").is_some()).await;
        let (main, child) = (lab.pid("main").unwrap(), lab.pid("child").unwrap());
        assert_eq!(process.pid(), Some(main));
        assert_eq!(done(process.monitor()).await, Ok(Health::Running));
        done(process.start(&context(1))).await.unwrap();
        assert_eq!(process.pid(), Some(main), "what runs is not started again");
        let score = fs::read_to_string(format!("/proc/{main}/oom_score_adj")).unwrap();
        assert_eq!(score.trim(), "0");
        done(process.stop(&context(1))).await.unwrap();
        assert!(!lives(main) && !lives(child));
        assert_eq!(done(process.probe()).await, Ok(Health::Stopped));
        assert!(!lab.record().exists() && lab.mounts.existing(&format!("g@{}", lab.name)).is_none());
        done(process.stop(&context(1))).await.unwrap();
        assert!(lab.told.lock().unwrap().is_empty(), "nobody died");
    });
}

#[test]
fn what_does_not_heed_the_signal_is_killed() {
    let lab = Lab::new("deaf");
    block_on(async {
        let mut spec =
            lab.spec("trap '' TERM INT; (trap '' TERM; sleep 600) & echo $! > child; while :; do wait; done");
        spec.kill_after_ns = Some(50_000_000);
        spec.stop_signal = libc::SIGINT;
        let mut process = lab.process(spec);
        done(process.start(&context(1))).await.unwrap();
        until(|| lab.pid("child").is_some()).await;
        let (main, child) = (process.pid().unwrap(), lab.pid("child").unwrap());
        done(process.stop(&context(1))).await.unwrap();
        assert!(!lives(main) && !lives(child));
    });
}

#[test]
fn a_start_after_a_stop_that_was_given_up_begins_anew() {
    let lab = Lab::new("again");
    block_on(async {
        let mut process = lab.process(
            lab.spec("trap '[ -e term ] && exit; echo > term' TERM; echo $$ > main; while :; do sleep 0.01; done"),
        );
        done(process.start(&context(1))).await.unwrap();
        until(|| lab.pid("main").is_some()).await;
        let before = process.pid().unwrap();
        tokio::select! {
            stopped = done(process.stop(&context(1))) => panic!("it does not heed the signal: {stopped:?}"),
            () = until(|| lab.path("term").exists()) => {}
        }
        let Health::Failed(why) = done(process.monitor()).await.unwrap() else { panic!("it was asked to end") };
        assert!(why.contains("was asked to end"), "{why}");
        done(process.start(&context(2))).await.unwrap();
        assert!(!lives(before) && process.pid().is_some_and(|pid| pid != before));
        done(process.stop(&context(2))).await.unwrap();
    });
}

#[test]
fn the_stop_signal_is_the_configured_one() {
    let lab = Lab::new("signal");
    block_on(async {
        let mut spec = lab.spec("trap 'echo usr2 > got; exit 0' USR2; echo $$ > main; while :; do sleep 0.01; done");
        spec.stop_signal = libc::SIGUSR2;
        let mut process = lab.process(spec);
        done(process.start(&context(1))).await.unwrap();
        until(|| lab.pid("main").is_some()).await;
        done(process.stop(&context(1))).await.unwrap();
        assert_eq!(lab.text("got").as_deref(), Some("usr2"));
    });
}

#[test]
fn its_death_is_told_with_its_status_and_the_next_start_clears_what_it_left() {
    let lab = Lab::new("dies");
    block_on(async {
        let mut process = lab.process(lab.spec(&format!("echo it is broken; {SERVICE}")));
        done(process.start(&context(1))).await.unwrap();
        until(|| lab.pid("main").is_some() && lab.pid("child").is_some()).await;
        let (main, child) = (process.pid().unwrap(), lab.pid("child").unwrap());
        crate::process::Process::open(main).unwrap().signal(Signal::KILL).unwrap();
        let status = format!("process {main} killed by signal 9");
        assert_eq!(lab.told().await, What::Died { status, release: false });
        let Health::Failed(why) = done(process.monitor()).await.unwrap() else { panic!("it is dead") };
        assert!(why.contains(&format!("process {child} (")), "{why}");
        done(process.start(&context(1))).await.unwrap();
        assert!(!lives(child) && process.pid().is_some_and(|pid| pid != main));
        done(process.stop(&context(1))).await.unwrap();
        assert_eq!(done(process.monitor()).await, Ok(Health::Stopped));
        assert!(lab.told.lock().unwrap().is_empty());
    });
}

#[test]
fn one_that_ends_by_itself_fails_its_monitor_with_its_last_words() {
    let lab = Lab::new("ends");
    block_on(async {
        let mut process = lab.process(lab.spec("until [ -e go ]; do sleep 0.01; done; echo no disk >&2; exit 3"));
        done(process.start(&context(1))).await.unwrap();
        let pid = process.pid().unwrap();
        fs::write(lab.path("go"), "").unwrap();
        assert_eq!(lab.told().await, What::Died { status: format!("process {pid} exited with 3"), release: false });
        let why = format!("process {pid} exited with 3: no disk");
        assert_eq!(done(process.monitor()).await, Ok(Health::Failed(why)));
        assert_eq!(done(process.probe()).await, Ok(Health::Stopped));
        done(process.stop(&context(1))).await.unwrap();
    });
}

#[test]
fn the_next_agent_adopts_it_and_notices_its_death() {
    let lab = Lab::new("adopted");
    block_on(async {
        let spec = lab.spec(SERVICE);
        let mut before = lab.process(spec.clone());
        done(before.start(&context(1))).await.unwrap();
        until(|| lab.pid("child").is_some()).await;
        let pid = before.pid().unwrap();
        drop(before);
        let mut process = lab.process(spec);
        assert_eq!(done(process.probe()).await, Ok(Health::Running));
        done(process.start(&context(2))).await.unwrap();
        assert_eq!(process.pid(), Some(pid), "it is not started a second time");
        crate::process::Process::open(pid).unwrap().signal(Signal::KILL).unwrap();
        assert!(matches!(lab.told().await, What::Died { release: false, .. }));
        // A third agent finds the child alone.
        let mut process = lab.process(lab.spec(SERVICE));
        assert!(matches!(done(process.probe()).await, Ok(Health::Failed(_))));
        done(process.stop(&context(2))).await.unwrap();
        assert!(!lives(lab.pid("child").unwrap()));
    });
}

#[test]
fn with_other_settings_it_is_replaced_and_without_a_start_only_reported() {
    let lab = Lab::new("changed");
    block_on(async {
        let mut before = lab.process(lab.spec(SERVICE));
        done(before.start(&context(1))).await.unwrap();
        let pid = before.pid().unwrap();
        drop(before);
        let mut spec = lab.spec(SERVICE);
        spec.kill_after_ns = Some(1_000_000_000);
        assert_eq!(
            done(lab.process(spec.clone()).probe()).await,
            Ok(Health::Running),
            "how it is stopped does not count"
        );
        spec.environment.insert("NEW".into(), "1".into());
        let mut process = lab.process(spec);
        let Health::Failed(why) = done(process.probe()).await.unwrap() else { panic!("it is another one") };
        assert!(why.contains(&format!("process {pid} runs with settings that the configuration had before")), "{why}");
        assert!(lives(pid));
        done(process.start(&context(1))).await.unwrap();
        assert!(!lives(pid) && process.pid().is_some());
        done(process.stop(&context(1))).await.unwrap();
    });
}

#[test]
fn it_is_ready_when_it_says_so_and_nobody_else_may_say_it() {
    let lab = Lab::new("notify");
    block_on(async {
        let mut spec = lab.spec("echo $NOTIFY_SOCKET > socket; exec sleep 600");
        spec.ready = Some(Ready::Notify);
        let mut process = lab.process(spec.clone());
        let send = async {
            until(|| lab.text("socket").is_some()).await;
            let name = lab.text("socket").unwrap();
            // As the daemons of this machine do it, by their user and by another one.
            for user in ["nobody", "root"] {
                let words =
                    ["/usr/sbin/runuser", "-u", user, "--", "/usr/bin/systemd-notify", "--ready"].map(str::to_owned);
                let caller = Caller::new(lab.path("sent.log"), lab.path("sent"));
                caller.call(words.to_vec(), vec![("NOTIFY_SOCKET".into(), name.clone())]).await.unwrap();
                fs::write(lab.path("by"), user).unwrap();
            }
        };
        let (started, ()) = tokio::join!(done(process.start(&context(1))), send);
        started.unwrap();
        assert_eq!(lab.text("by").as_deref(), Some("root"));
        assert_eq!(done(process.monitor()).await, Ok(Health::Running));
        done(process.stop(&context(1))).await.unwrap();
    });
}

#[test]
fn it_is_ready_when_its_port_or_a_command_answers() {
    let lab = Lab::new("ready");
    block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut spec = lab.spec("sleep 600");
        spec.ready = Some(Ready::Tcp(listener.local_addr().unwrap().to_string()));
        let mut process = lab.process(spec);
        done(process.start(&context(1))).await.unwrap();
        done(process.stop(&context(1))).await.unwrap();
        let mut spec = lab.spec("sleep 0.1; echo > up; sleep 600");
        spec.ready = Some(Ready::Command(["/usr/bin/test", "-e"].map(str::to_owned).to_vec()));
        if let Some(Ready::Command(words)) = &mut spec.ready {
            words.push(lab.path("up").display().to_string());
        }
        let mut process = lab.process(spec);
        done(process.start(&context(1))).await.unwrap();
        assert!(lab.path("up").exists());
        done(process.stop(&context(1))).await.unwrap();
    });
}

#[test]
fn one_that_does_not_get_ready_fails_its_start_with_the_reason() {
    let lab = Lab::new("unready");
    block_on(async {
        let mut spec = lab.spec("echo bad configuration; exit 78");
        spec.ready = Some(Ready::Notify);
        let mut process = lab.process(spec.clone());
        let error = done(process.start(&context(1))).await.unwrap_err().to_string();
        assert!(
            error.contains("ended before it was ready: process") && error.contains("exited with 78: bad configuration"),
            "{error}"
        );
        spec.command[2] = "exec sleep 600".into();
        let mut slow = lab.process(spec);
        Arc::get_mut(&mut slow.unit).unwrap().common.timeouts.start = Duration::from_millis(200);
        let error = done(slow.start(&context(1))).await.unwrap_err().to_string();
        assert!(error.contains("not ready in time (no READY=1 came on NOTIFY_SOCKET)"), "{error}");
        done(slow.stop(&context(1))).await.unwrap();
        assert!(lab.told.lock().unwrap().is_empty(), "a start that fails is no death");
    });
}

#[test]
fn what_cannot_be_started_is_named() {
    let lab = Lab::new("cannot");
    block_on(async {
        for (change, words) in [
            ((|s| s.command = vec!["/nonexistent/daemon".into()]) as fn(&mut kinds::Process), "/nonexistent/daemon"),
            (|s| s.user = Some("nobody-at-all".into()), "there is no user \"nobody-at-all\""),
            (|s| s.directory = "/nonexistent".into(), "No such file or directory"),
            (|s| s.log = Some("/proc/nothing.log".into()), "/proc/nothing.log"),
        ] {
            let mut spec = lab.spec("sleep 600");
            change(&mut spec);
            let mut process = lab.process(spec);
            let error = done(process.start(&context(1))).await.unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("docs/resources/process.md"), "{error}");
            done(process.stop(&context(1))).await.unwrap();
        }
    });
}

#[test]
fn a_user_its_home_and_the_log_are_as_configured() {
    let lab = Lab::new("user");
    block_on(async {
        fs::set_permissions(lab.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut spec = lab.spec("id -un; echo $HOME $USER $BATON_RESOURCE $A; echo done; exec sleep 600");
        spec.user = Some("daemon".into());
        spec.environment.insert("A".into(), "b".into());
        spec.log = Some(lab.path("own.log"));
        let mut process = lab.process(spec);
        done(process.start(&context(1))).await.unwrap();
        until(|| lab.text("own.log").is_some_and(|t| t.ends_with("done"))).await;
        let text = lab.text("own.log").unwrap();
        assert_eq!(text, format!("daemon\n/usr/sbin daemon {} b\ndone", lab.name));
        done(process.stop(&context(1))).await.unwrap();
    });
}

#[test]
fn a_memory_limit_kills_and_the_reason_is_told_or_the_start_says_that_there_is_none() {
    let lab = Lab::new("memory");
    block_on(async {
        let mut spec = lab.spec("until [ -e go ]; do sleep 0.01; done; exec tail /dev/zero");
        (spec.memory, spec.pids) = (Some(16 << 20), Some(50));
        let mut process = lab.process(spec);
        match done(process.start(&context(1))).await {
            Ok(()) => {
                fs::write(lab.path("go"), "").unwrap();
                let What::Died { status, .. } = lab.told().await else { panic!("it died") };
                assert!(status.ends_with("killed by signal 9: its memory was used up"), "{status}");
            }
            // A machine without the controller, or where it cannot be switched on.
            Err(error) => assert!(error.to_string().contains("memory"), "{error}"),
        }
        done(process.stop(&context(1))).await.unwrap();
    });
}

#[test]
fn a_start_that_is_given_up_leaves_nothing_after_the_stop() {
    let lab = Lab::new("given-up");
    block_on(async {
        for turn in 0..20 {
            let mut spec = lab.spec(SERVICE);
            spec.ready = Some(Ready::Notify);
            let mut process = lab.process(spec);
            // Given up at each of its steps, as far as they can be told apart from outside.
            let mut start = Box::pin(done(process.start(&context(1))));
            for _ in 0..turn {
                assert!(futures::poll!(&mut start).is_pending());
                tokio::time::sleep(Duration::from_micros(200 * turn)).await;
            }
            drop(start);
            done(process.stop(&context(1))).await.unwrap();
            if let Some(pid) = lab.pid("main") {
                until(|| !lives(pid)).await;
            }
            assert_eq!(done(process.probe()).await, Ok(Health::Stopped));
            drop(fs::remove_file(lab.path("main")));
        }
        until(|| lab.pid("main").is_none_or(|pid| !lives(pid))).await;
    });
}

#[test]
fn without_control_groups_its_session_is_what_belongs_to_it() {
    let mut lab = Lab::new("session");
    lab.mounts = Mounts::default();
    block_on(async {
        let spec = lab.spec("sleep 600 & echo $! > child; echo $$ > main; trap '' TERM; while :; do wait; done");
        let mut before = lab.process(kinds::Process { kill_after_ns: Some(50_000_000), ..spec.clone() });
        done(before.start(&context(1))).await.unwrap();
        until(|| lab.pid("main").is_some()).await;
        drop(before);
        let mut process = lab.process(kinds::Process { kill_after_ns: Some(50_000_000), ..spec });
        assert_eq!(done(process.probe()).await, Ok(Health::Running));
        done(process.stop(&context(1))).await.unwrap();
        assert!(!lives(lab.pid("main").unwrap()) && !lives(lab.pid("child").unwrap()));
        let mut limited = lab.spec("sleep 600");
        limited.pids = Some(5);
        let error = done(lab.process(limited).start(&context(1))).await.unwrap_err().to_string();
        assert!(error.contains("the controller pids"), "{error}");
    });
}

#[test]
fn a_record_that_nobody_can_read_or_of_another_boot_stops_nothing() {
    let lab = Lab::new("record");
    block_on(async {
        fs::write(lab.record(), b"\xff{").unwrap();
        let mut process = lab.process(lab.spec(SERVICE));
        assert_eq!(done(process.probe()).await, Ok(Health::Stopped));
        done(process.start(&context(1))).await.unwrap();
        let record = fs::read_to_string(lab.record()).unwrap();
        done(process.stop(&context(1))).await.unwrap();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let me = format!("\"pid\":{}", std::process::id());
        let (before, after) = record.split_once("\"pid\":").unwrap();
        let after = after.split_once(',').unwrap().1;
        fs::write(lab.record(), format!("{before}{me},{after}").replace(boot.trim(), "another")).unwrap();
        let mut process = lab.process(lab.spec(SERVICE));
        assert_eq!(done(process.probe()).await, Ok(Health::Stopped), "its number is this very process's now");
        done(process.stop(&context(1))).await.unwrap();
        assert!(!Path::new(&lab.record()).exists());
    });
}
