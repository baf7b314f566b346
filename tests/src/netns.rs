//! A network namespace with a name in the file system, and ways to run code and programs inside it.
//!
//! Entered by setns(2) alone: `ip netns exec` would also make a mount namespace, which hides the BPF file system.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::{fs::MetadataExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::{
    mount::mount_bind,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

/// A handle on a network namespace; it lives at least as long as its last handle.
#[derive(Clone, Debug)]
pub struct NetNs {
    file: Arc<File>,
    path: PathBuf,
}

impl NetNs {
    /// Makes a namespace and binds it to `path`, where `nsenter --net=PATH` finds it. Its loopback is up.
    pub fn new(path: PathBuf) -> Result<Self> {
        File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let target = path.clone();
        in_thread(move || {
            // SAFETY: unshare(2) of the network namespace touches no memory; only this short-lived thread moves.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return Err(anyhow!(io::Error::last_os_error()).context("cannot make a network namespace; run as root"));
            }
            mount_bind("/proc/thread-self/ns/net", &target)
                .with_context(|| format!("cannot bind a namespace to {}", target.display()))
        })??;
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let ns = Self { file: Arc::new(file), path };
        ns.ip("link set lo up")?;
        Ok(ns)
    }

    /// The file that the namespace is bound to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the calling thread into the namespace, for good.
    pub fn enter(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// Runs `work` in a thread inside the namespace and returns its result. Sockets made there stay in the namespace.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let ns = self.clone();
        in_thread(move || {
            ns.enter().with_context(|| format!("cannot enter {}", ns.path.display()))?;
            Ok(work())
        })?
    }

    /// The processes whose main thread is inside.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let id = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let this = id(self.file.metadata()?);
        let numbers = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let inside = |pid: &u32| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|meta| id(meta) == this);
        Ok(numbers.filter(inside).collect())
    }

    /// A command that will run inside the namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        self.enter_before_exec(&mut command);
        command
    }

    /// Makes `command` start inside the namespace.
    pub fn enter_before_exec(&self, command: &mut Command) {
        let file = self.file.clone();
        // SAFETY: between fork and exec only setns(2) is called; it neither allocates nor locks.
        unsafe {
            command.pre_exec(move || {
                if libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) != 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
    }

    /// Runs a batch of `ip` commands, one a line, without the leading `ip`.
    pub fn ip(&self, batch: &str) -> Result<()> {
        self.feed("ip", &["-batch", "-"], batch)
    }

    /// Runs a program with `input` on its standard input; an error carries what it printed.
    pub fn feed(&self, program: &str, arguments: &[&str], input: &str) -> Result<()> {
        use io::Write;
        let mut child = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run `{program}`; `cargo xtask setup` installs what the lab needs"))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("`{program}` refused:\n{input}\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
        }
        Ok(())
    }

    /// Sets a `net.*` sysctl inside the namespace, named by its path below /proc/sys.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let (path, value) = (Path::new("/proc/sys").join(name), value.to_owned());
        self.run(move || fs::write(&path, value).with_context(|| format!("cannot set {}", path.display())))?
    }
}

fn in_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    thread::spawn(work).join().map_err(|_panic| anyhow!("a thread inside a network namespace panicked"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;

    #[test]
    fn a_namespace_is_its_own_network_and_goes_away() {
        let home = Home::new("netns-test").unwrap();
        let path = home.path().join("a.net");
        let ns = NetNs::new(path.clone()).unwrap();
        ns.ip("link add name x0 type veth peer name x1\nlink set x0 up").unwrap();
        let links = ns.run(|| fs::read_to_string("/proc/thread-self/net/dev")).unwrap().unwrap();
        assert!(links.contains("x0:") && links.contains("lo:"));
        assert!(!fs::read_to_string("/proc/self/net/dev").unwrap().contains("x0:"));
        let folder = home.path().to_owned();
        drop(home);
        assert!(!folder.exists());
        assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(folder.to_str().unwrap()));
    }
}
