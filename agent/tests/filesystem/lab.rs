//! A mount namespace with loop devices, and the resources that mount them.

use std::{
    fs,
    ops::Deref,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use baton::{
    cluster::ids::GroupId,
    config::kinds::{self, Busy, Fsck},
    resources::{Common, Context, Health, Resource, filesystem::Filesystem},
};

use crate::resource_support::{self, Bench, timeouts};
pub use crate::resource_support::{PATIENCE, output, text, until};

/// Runs a test in namespaces of its own.
pub fn isolated(test: impl FnOnce(&mut Lab)) {
    resource_support::isolated(&[], || test(&mut Lab::new()));
}

/// The files, devices and processes of a test; all are gone with it.
pub struct Lab {
    bench: Bench,
    devices: Vec<PathBuf>,
    children: Vec<Child>,
}

impl Deref for Lab {
    type Target = Bench;

    fn deref(&self) -> &Bench {
        &self.bench
    }
}

impl Lab {
    fn new() -> Self {
        Self { bench: Bench::new(), devices: Vec::new(), children: Vec::new() }
    }

    /// A path of the test's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.bench.dir.path().join(name)
    }

    /// A loop device with a filesystem, or with none.
    pub fn device(&mut self, fs_type: Option<&str>) -> PathBuf {
        let image = self.path(&format!("image{}", self.devices.len()));
        let size = if fs_type == Some("xfs") { 320 << 20 } else { 32 << 20 };
        fs::File::create(&image).unwrap().set_len(size).unwrap();
        let device = PathBuf::from(output("losetup", &["--find", "--show", text(&image)]).trim());
        self.devices.push(device.clone());
        match fs_type {
            Some("ext4") => run("mkfs.ext4", &["-q", text(&device)]),
            Some("xfs") => run("mkfs.xfs", &["-q", text(&device)]),
            Some("btrfs") => run("mkfs.btrfs", &["-q", "--mixed", text(&device)]),
            Some("swap") => run("mkswap", &["-q", text(&device)]),
            other => assert_eq!(other, None, "an unknown filesystem"),
        }
        device
    }

    /// A filesystem resource as a file with the required keys alone has it; the folder is "srv" unless changed.
    pub fn spec(&self, device: &Path, fs_type: &str) -> kinds::Filesystem {
        kinds::Filesystem {
            device: text(device).to_owned(),
            mount: self.path("srv"),
            fs_type: fs_type.to_owned(),
            options: Vec::new(),
            fsck: if fs_type == "ext4" { Fsck::Preen } else { Fsck::Never },
            busy: Busy::Kill,
            create: true,
            monitor_write: false,
        }
    }

    /// The resource, with a limit for its operations.
    pub fn within(&self, spec: &kinds::Filesystem, limit: Duration) -> Filesystem {
        let common = Common {
            group: GroupId::new("files"),
            name: "data".into(),
            node: "n1".into(),
            timeouts: timeouts(limit),
            monitor_interval: None,
            run_dir: self.path("run"),
            realtime: false,
        };
        Filesystem::new(&common, spec)
    }

    /// The resource, with time enough.
    pub fn resource(&self, spec: &kinds::Filesystem) -> Filesystem {
        self.within(spec, PATIENCE)
    }

    pub fn start(&self, resource: &mut Filesystem) {
        self.settle(resource.start(&context())).unwrap();
        assert_eq!(self.settle(resource.monitor()), Ok(Health::Running));
    }

    pub fn stop(&self, resource: &mut Filesystem) {
        self.settle(resource.stop(&context())).unwrap();
        assert_eq!(self.settle(resource.probe()), Ok(Health::Stopped));
    }

    /// Why a start fails.
    pub fn refused(&self, resource: &mut Filesystem) -> String {
        self.settle(resource.start(&context())).unwrap_err().to_string()
    }

    /// Starts a program that is ended with the test, and waits until it says that it is ready by a line.
    pub fn holder(&mut self, program: &str, args: &[&str]) -> u32 {
        let mut child = Command::new(program).args(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
        assert_eq!(line, "ready\n");
        let pid = child.id();
        self.children.push(child);
        pid
    }

    /// Whether a program that was started has ended, and takes its status.
    pub fn ended(&mut self, pid: u32) -> bool {
        let child = self.children.iter_mut().find(|c| c.id() == pid).unwrap();
        child.try_wait().unwrap().is_some()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in &mut self.children {
            drop(child.kill());
            drop(child.wait());
        }
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        let points =
            mounts.lines().filter_map(|l| l.split(' ').nth(4)).filter(|p| p.starts_with(text(self.bench.dir.path())));
        for point in points.collect::<Vec<_>>().iter().rev() {
            rustix::mount::unmount(*point, rustix::mount::UnmountFlags::DETACH).ok();
        }
        for device in self.devices.iter().rev() {
            drop(Command::new("losetup").args(["-d", text(device)]).status());
        }
    }
}

pub fn context() -> Context {
    Context { group: GroupId::new("files"), epoch: 7 }
}

/// Runs a program that must do well.
pub fn run(program: &str, args: &[&str]) {
    output(program, args);
}
