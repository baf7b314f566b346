//! The real systemd: booted as process 1 of a container, over its real bus.

use std::{
    process::{Child, Command, Stdio},
    time::Instant,
};

use rustix::process::Signal;

use super::*;
use crate::{
    process::{Process, lives},
    resources::{ResourceEvent, common::tests::*, process::cgroup},
};

const BOOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/systemd/boot.sh");

/// A container with its own systemd.
struct Machine {
    child: Child,
    init: u32,
    group: PathBuf,
    dir: tempfile::TempDir,
    told: Arc<Mutex<Vec<ResourceEvent>>>,
}

impl Machine {
    fn boot(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hierarchies = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let hierarchy = hierarchies.into_iter().find(|h| h.join("cgroup.controllers").exists());
        // All of the container's groups are below one, which is removed at the end.
        let group = hierarchy.expect("cgroup v2 is mounted").join(format!("baton-test-{name}-{}", std::process::id()));
        fs::create_dir(&group).unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        let script = format!(
            "echo $$ > {}/cgroup.procs && exec unshare -mpnuiC --fork --kill-child /bin/sh {BOOT} {}/root",
            group.display(),
            dir.path().display()
        );
        let log = fs::File::create(dir.path().join("boot.log")).unwrap();
        let child = Command::new("/bin/sh")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut machine = Self { child, init: 0, group, dir, told: Arc::default() };
        let deadline = Instant::now() + 4 * PATIENCE;
        let outer = machine.child.id();
        while machine.init == 0 || !machine.root().join("run/dbus/system_bus_socket").exists() {
            assert!(Instant::now() < deadline, "{:?}", fs::read_to_string(machine.dir.path().join("boot.log")));
            std::thread::sleep(Duration::from_millis(20));
            let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap_or_default();
            machine.init = children.split_whitespace().next().and_then(|pid| pid.parse().ok()).unwrap_or(0);
            let name = fs::read_to_string(format!("/proc/{}/comm", machine.init)).unwrap_or_default();
            if name.trim() != "systemd" {
                machine.init = 0;
            }
        }
        machine
    }

    fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.init))
    }

    fn systemctl(&self) -> Vec<String> {
        ["/usr/bin/nsenter", "-t", &self.init.to_string(), "-m", "-p", "-C", "/usr/bin/systemctl"]
            .map(str::to_owned)
            .to_vec()
    }

    fn ctl(&self, arguments: &[&str]) {
        let words = self.systemctl();
        let out = Command::new(&words[0]).args(&words[1..]).args(arguments).output().unwrap();
        assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// Units of the container.
    fn units(&self, units: &[(&str, &str)]) {
        for (name, text) in units {
            fs::write(self.root().join("run/systemd/system").join(name), text).unwrap();
        }
        self.ctl(&["daemon-reload"]);
    }

    fn resource(&self, unit: &str) -> Systemd {
        self.resource_by(unit, self.systemctl())
    }

    fn resource_by(&self, unit: &str, systemctl: Vec<String>) -> Systemd {
        let sink = Arc::clone(&self.told);
        let notifier = Notifier::new(move |event| sink.lock().unwrap().push(event));
        let socket = self.root().join("run/dbus/system_bus_socket");
        let roots = vec![self.root().join("sys/fs/cgroup")];
        let spec = kinds::Systemd { unit: unit.to_owned() };
        let address = format!("unix:path={}", socket.display());
        Systemd::with(&common(self.dir.path(), "unit"), spec, &notifier, Some(address), roots, systemctl)
    }

    fn pids(&self, unit: &str) -> Vec<u32> {
        self.resource(unit).shared.processes().unwrap()
    }

    async fn died(&self) -> String {
        until(|| !self.told.lock().unwrap().is_empty()).await;
        match self.told.lock().unwrap().remove(0).what {
            What::Died { status, release: false } => status,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Its process 1 dies with it, and everything with that.
        drop(self.child.kill());
        drop(self.child.wait());
        let deadline = Instant::now() + PATIENCE;
        while lives(self.init) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        cgroup::remove(&self.group);
    }
}

fn kill(pid: u32, signal: Signal) {
    Process::open(pid).unwrap().signal(signal).unwrap();
}

const SLEEPER: &str = "[Unit]\nDefaultDependencies=no\n[Service]\nType=exec\nExecStart=/bin/sleep 600\n[Install]\nWantedBy=basic.target\n";

#[test]
fn units_are_started_watched_adopted_and_stopped() {
    let machine = Machine::boot("units");
    machine.units(&[
        ("good.service", SLEEPER),
        ("again.service", "[Unit]\nDefaultDependencies=no\n[Service]\nType=exec\nExecStart=/bin/sleep 600\nRestart=always\nRestartSec=0\n"),
        ("slow.service", "[Unit]\nDefaultDependencies=no\n[Service]\nType=notify\nExecStart=/bin/sleep 600\n"),
        ("oneshot.service", "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/bin/true\n"),
        ("broken.service", "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/bin/false\n"),
        ("inst@.service", SLEEPER),
    ]);
    std::os::unix::fs::symlink("/dev/null", machine.root().join("run/systemd/system/masked.service")).unwrap();
    block_on(async {
        let mut good = machine.resource("good.service");
        assert_eq!(done(good.probe()).await, Ok(Health::Stopped));
        assert_eq!(done(good.readiness()).await, Ok(Readiness::Ready));
        done(good.start(&context(1))).await.unwrap();
        assert_eq!(done(good.monitor()).await, Ok(Health::Running));
        let pids = machine.pids("good.service");
        assert_eq!(pids.len(), 1);
        // The next agent adopts it, and notices its death.
        drop(good);
        let mut good = machine.resource("good.service");
        assert_eq!(done(good.probe()).await, Ok(Health::Running));
        done(good.start(&context(1))).await.unwrap();
        assert_eq!(machine.pids("good.service"), pids, "it is not started again");
        kill(pids[0], Signal::KILL);
        let status = machine.died().await;
        assert!(status.starts_with("good.service is ") && status.contains("signal, status 9"), "{status}");
        until(|| machine.pids("good.service").is_empty()).await;
        let Health::Failed(why) = done(good.monitor()).await.unwrap() else { panic!("it has failed") };
        assert!(why.contains("good.service is failed"), "{why}");
        done(good.start(&context(1))).await.unwrap();
        // Somebody else restarts it.
        machine.ctl(&["restart", "good.service"]);
        let status = machine.died().await;
        assert!(status.contains("good.service"), "{status}");
        done(good.stop(&context(1))).await.unwrap();
        assert!(machine.pids("good.service").is_empty());
        assert_eq!(done(good.probe()).await, Ok(Health::Stopped));
        done(good.stop(&context(1))).await.unwrap();

        // systemd restarts it by itself: Baton is told all the same, and a stop is one.
        let mut again = machine.resource("again.service");
        done(again.start(&context(1))).await.unwrap();
        kill(machine.pids("again.service")[0], Signal::KILL);
        assert!(machine.died().await.contains("again.service"));
        done(again.stop(&context(1))).await.unwrap();
        assert!(machine.pids("again.service").is_empty());

        // A start that is given up is cancelled by the stop.
        let mut slow = machine.resource("slow.service");
        tokio::select! {
            done = done(slow.start(&context(1))) => panic!("it never says that it is ready: {done:?}"),
            () = until(|| !machine.pids("slow.service").is_empty()) => {}
        }
        done(slow.stop(&context(1))).await.unwrap();
        assert!(machine.pids("slow.service").is_empty());

        // An instance lies in a slice of its template, and is found there without a bus.
        let mut instance = machine.resource("inst@a.service");
        done(instance.start(&context(1))).await.unwrap();
        assert_eq!(machine.pids("inst@a.service").len(), 1);
        done(instance.stop(&context(1))).await.unwrap();

        for (unit, words) in [
            ("nowhere.service", "systemd knows no unit nowhere.service; install it on this node"),
            ("masked.service", "masked.service is masked; `systemctl unmask masked.service`"),
        ] {
            let mut unusable = machine.resource(unit);
            let error = done(unusable.start(&context(1))).await.unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
            let Readiness::NotReady(why) = done(unusable.readiness()).await.unwrap() else { panic!("{unit}") };
            assert!(why.contains(words), "{why}");
            done(unusable.stop(&context(1))).await.unwrap();
        }
        let error = done(machine.resource("broken.service").start(&context(1))).await.unwrap_err().to_string();
        assert!(
            error.contains("systemd's job ended with \"failed\"") && error.contains("exit-code, status 1"),
            "{error}"
        );
        let error = done(machine.resource("oneshot.service").start(&context(1))).await.unwrap_err().to_string();
        assert!(error.contains("RemainAfterExit=yes"), "{error}");

        machine.ctl(&["enable", "--runtime", "good.service"]);
        let mut good = machine.resource("good.service");
        assert_eq!(done(good.readiness()).await, Ok(Readiness::Ready));
        assert!(good.warned, "an enabled unit is warned of");
        assert!(machine.told.lock().unwrap().is_empty(), "{:?}", machine.told);
    });
}

#[test]
fn a_bus_that_hangs_or_is_gone_neither_hangs_nor_kills() {
    let machine = Machine::boot("bus");
    machine.units(&[("good.service", SLEEPER)]);
    block_on(async {
        let mut good = machine.resource("good.service");
        done(good.start(&context(1))).await.unwrap();
        let [bus] = machine.pids("dbus.service")[..] else { panic!("one bus") };
        kill(bus, Signal::STOP);
        assert_eq!(done(good.monitor()).await, Ok(Health::Running), "its processes live");
        done(good.stop(&context(1))).await.unwrap();
        assert!(machine.pids("good.service").is_empty());
        // It is read off its control group, since nobody else says it.
        assert_eq!(done(good.probe()).await, Ok(Health::Stopped));
        let error = done(good.start(&context(1))).await.unwrap_err().to_string();
        assert!(
            error.contains("did not answer over D-Bus within") && error.contains("systemctl status dbus"),
            "{error}"
        );
        kill(bus, Signal::CONT);
        done(good.start(&context(1))).await.unwrap();

        machine.ctl(&["stop", "dbus.socket", "dbus.service"]);
        assert_eq!(done(good.monitor()).await, Ok(Health::Running));
        let Readiness::NotReady(why) = done(good.readiness()).await.unwrap() else { panic!("there is no bus") };
        assert!(why.contains("cannot be reached over D-Bus"), "{why}");
        let pid = machine.pids("good.service")[0];
        // Neither the bus nor systemctl: the stop fails, and names what is left.
        let mut helpless = machine.resource_by("good.service", vec!["/bin/false".to_owned()]);
        let error = done(helpless.stop(&context(1))).await.unwrap_err().to_string();
        assert!(error.contains(&format!("process {pid} (sleep, state S) is left")), "{error}");
        assert!(lives(pid));
        done(good.stop(&context(1))).await.unwrap();
        assert!(!lives(pid));
        done(helpless.stop(&context(1))).await.unwrap();
        // The watch finds a bus that has come back.
        machine.ctl(&["start", "dbus.socket"]);
        until(|| machine.root().join("run/dbus/system_bus_socket").exists()).await;
        done(good.start(&context(1))).await.unwrap();
        let before = machine.told.lock().unwrap().len();
        machine.ctl(&["restart", "dbus.service"]);
        kill(machine.pids("good.service")[0], Signal::KILL);
        until(|| machine.told.lock().unwrap().len() > before).await;
        done(good.stop(&context(1))).await.unwrap();
    });
}
