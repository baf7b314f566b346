//! Where a lab keeps what must be taken away again, and the reaper for what a killed run left behind.
//!
//! Every lab has a folder `ROOT/<pid>-<start>-<n>-<name>`. Namespaces and BPF file systems are mounts inside it, child
//! processes are listed in it, so that any later run can undo a lab whose process is gone.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicI32, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::{
    mount::{UnmountFlags, unmount},
    process::{Pid, Signal, getpid, kill_process, kill_process_group},
};

/// All labs live here: a tmpfs on any Linux host, and short enough for the path of a unix socket.
const ROOT: &str = "/run/baton-lab";
/// The list of child processes inside a lab's folder, one `pid start-time` a line.
const CHILDREN: &str = "children";

static SERIAL: AtomicU64 = AtomicU64::new(0);
static LIVE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A lab's folder. Dropping it ends what the lab started and unmounts and removes what it made.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
}

impl Home {
    /// Makes the folder, after taking away what dead runs left. The first call also makes SIGINT, SIGTERM and SIGHUP
    /// clean up before they end the process.
    pub fn new(name: &str) -> Result<Self> {
        clean_up_on_signals();
        reap();
        let pid = std::process::id();
        let start = start_time(pid).context("this process has no readable /proc entry; mount /proc")?;
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(ROOT).join(format!("{pid}-{start}-{serial}-{name}"));
        fs::create_dir_all(&path)
            .with_context(|| format!("cannot make the lab's folder {}; the lab needs root", path.display()))?;
        live().push(path.clone());
        Ok(Self { path })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes a child process, so that the reaper ends it should this process be killed.
    pub fn note_child(&self, pid: u32) -> Result<()> {
        let start = start_time(pid).unwrap_or(0);
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path.join(CHILDREN))
            .with_context(|| format!("cannot list a child in {}", self.path.display()))?;
        writeln!(file, "{pid} {start}")?;
        Ok(())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // BATON_LAB_KEEP leaves the logs for a look; mounts and processes go in any case.
        let keep = std::env::var_os("BATON_LAB_KEEP").is_some();
        let mut live = live();
        live.retain(|p| *p != self.path);
        take_away(&self.path, keep);
    }
}

fn live() -> MutexGuard<'static, Vec<PathBuf>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes away the labs of processes that no longer live.
pub fn reap() {
    let Ok(entries) = fs::read_dir(ROOT) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let mut words = name.to_str().unwrap_or("").splitn(3, '-');
        let (Some(Ok(pid)), Some(Ok(start))) =
            (words.next().map(str::parse::<u32>), words.next().map(str::parse::<u64>))
        else {
            continue;
        };
        if start_time(pid) != Some(start) {
            take_away(&entry.path(), false);
        }
    }
}

/// Ends the children, unmounts everything below `path`, and removes the folder unless `keep`.
fn take_away(path: &Path, keep: bool) {
    end_children(path);
    end_inhabitants(path);
    // Mounts go in the reverse order of their making; a busy one is retried, since a process takes a moment to die.
    for _ in 0..50 {
        let mounts = mounts_below(path);
        if mounts.is_empty() {
            break;
        }
        for mount in mounts.iter().rev() {
            if unmount(mount, UnmountFlags::empty()).is_err() {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
    for mount in mounts_below(path).iter().rev() {
        report(unmount(mount, UnmountFlags::DETACH).map_err(io::Error::from), "unmount", mount);
    }
    if !keep {
        report(fs::remove_dir_all(path), "remove", path);
        // The root goes with the last lab; that it isn't empty is the ordinary case.
        fs::remove_dir(ROOT).ok();
    }
}

fn report(result: io::Result<()>, what: &str, path: &Path) {
    if let Err(error) = result
        && error.kind() != io::ErrorKind::NotFound
    {
        eprintln!("baton-lab: cannot {what} {}: {error}", path.display());
    }
}

fn end_children(path: &Path) {
    let Ok(list) = fs::read_to_string(path.join(CHILDREN)) else {
        return;
    };
    for line in list.lines() {
        let mut words = line.split_whitespace();
        let (Some(Ok(pid)), Some(Ok(start))) =
            (words.next().map(str::parse::<u32>), words.next().map(str::parse::<u64>))
        else {
            continue;
        };
        let Some(target) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
            continue;
        };
        // The group outlives its leader (a daemon's own children), so it is signalled in any case where the leader is
        // gone; a pid that belongs to somebody else by now has another start time.
        match start_time(pid) {
            Some(now) if now == start => {
                kill_process_group(target, Signal::KILL).ok();
                kill_process(target, Signal::KILL).ok();
            }
            Some(_) => {}
            None => {
                kill_process_group(target, Signal::KILL).ok();
            }
        }
    }
}

/// Ends processes that live in the lab's network namespaces and are nobody's children any more, such as what an agent started.
fn end_inhabitants(path: &Path) {
    let id = |file: &Path| fs::metadata(file).map(|meta| (meta.dev(), meta.ino())).ok();
    let files = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let namespaces: Vec<_> =
        files.filter(|file| file.extension().is_some_and(|e| e == "net")).filter_map(|file| id(&file)).collect();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| Pid::from_raw(name.parse().ok()?)) else { continue };
        if pid != getpid() && id(&entry.path().join("ns/net")).is_some_and(|ns| namespaces.contains(&ns)) {
            kill_process(pid, Signal::KILL).ok();
        }
    }
}

fn mounts_below(path: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|m| m.starts_with(path))
        .collect()
}

/// When a process started, in clock ticks since boot (proc(5), field 22): with the pid it names a process for good.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field may hold spaces and brackets, so count from the last bracket.
    let rest = &stat[stat.rfind(')')? + 1..];
    let mut fields = rest.split_whitespace();
    if fields.next() == Some("Z") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

static WAKE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn on_signal(signal: libc::c_int) {
    let byte = u8::try_from(signal).unwrap_or(0);
    // SAFETY: write(2) is async-signal-safe, and the byte lives on this stack.
    unsafe {
        libc::write(WAKE.load(Ordering::Relaxed), std::ptr::from_ref(&byte).cast(), 1);
    }
}

/// Lets SIGINT, SIGTERM and SIGHUP take the live labs away before they end the process.
fn clean_up_on_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut ends = [0; 2];
        // SAFETY: pipe2(2) writes two descriptors into the array.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
            return;
        }
        WAKE.store(ends[1], Ordering::Relaxed);
        std::thread::spawn(move || {
            let mut byte = 0u8;
            // SAFETY: the read end is open for the life of the process and the buffer is one byte.
            while unsafe { libc::read(ends[0], std::ptr::from_mut(&mut byte).cast(), 1) } != 1 {}
            for path in live().drain(..) {
                take_away(&path, false);
            }
            std::process::exit(128 + i32::from(byte));
        });
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            // SAFETY: the handler only calls write(2).
            unsafe {
                libc::signal(signal, on_signal as *const () as libc::sighandler_t);
            }
        }
    });
}
