//! Programs that the lab runs, held by handle: started in a namespace, signalled by pid, ended when dropped.

use std::{
    fs::File,
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::{home::Home, netns::NetNs, wait};

type Job = Box<dyn FnOnce() + Send>;

/// A running program and its children: it leads its own session, so signals reach all of them at once.
#[derive(Debug)]
pub struct Proc {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Proc {
    /// Starts `command` inside `ns`, its output appended to `<home>/<name>.log`.
    ///
    /// Should the lab's process die, the kernel ends the program (PR_SET_PDEATHSIG).
    pub fn spawn(home: &Home, ns: &NetNs, name: &str, mut command: Command) -> Result<Self> {
        let log = home.path().join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        ns.enter_before_exec(&mut command);
        // SAFETY: setsid(2) and prctl(2) are async-signal-safe and touch no memory of ours.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let program = command.get_program().to_string_lossy().into_owned();
        let child = on_the_spawner(move || command.spawn())?
            .with_context(|| format!("cannot start `{program}`; build it, or let `cargo xtask setup` install it"))?;
        let process = Self { name: name.to_owned(), child, log };
        home.note_child(process.pid())?;
        Ok(process)
    }

    /// The name that its log file carries.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id of the program.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file with its output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its output so far.
    pub fn output(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Whether it still runs (a stopped process counts).
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal to the program and its children.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("a pid that is no pid")?;
        kill_process_group(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// SIGKILL, and waits for the end. No error if it is gone already.
    pub fn kill(&mut self) -> Result<()> {
        if self.is_running() {
            self.signal(Signal::KILL)?;
        }
        self.child.wait().with_context(|| format!("cannot wait for {}", self.name))?;
        Ok(())
    }

    /// SIGTERM, and waits up to `limit` for an orderly end, then SIGKILL.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        if self.is_running() {
            self.signal(Signal::TERM)?;
            let ended = wait::until(limit, "an orderly end", || Ok(!self.is_running()));
            if ended.is_err() {
                self.kill()?;
                return Ok(ExitStatus::from_raw(libc::SIGKILL));
            }
        }
        self.child.wait().with_context(|| format!("cannot wait for {}", self.name))
    }

    /// SIGSTOP: nothing of the program runs any more.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// CPU time that it has used, in nanoseconds, and its resident memory in bytes (proc(5)).
    pub fn usage(&self) -> Result<(u64, u64)> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let rest = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok()).context("an odd /proc/PID/stat");
        let (ticks, pages) = (field(11)? + field(12)?, field(21)?);
        let (per_second, page) = (system_constant(libc::_SC_CLK_TCK)?, system_constant(libc::_SC_PAGESIZE)?);
        Ok((ticks * (1_000_000_000 / per_second), pages * page))
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("baton-lab: {error:#}");
        }
    }
}

fn system_constant(name: libc::c_int) -> Result<u64> {
    // SAFETY: sysconf(3) only returns a number.
    let value = unsafe { libc::sysconf(name) };
    u64::try_from(value).ok().filter(|v| *v > 0).context("sysconf(3) knows no clock tick or page size")
}

/// Runs `work` on a thread that lives as long as the process: PR_SET_PDEATHSIG goes by the *thread* that forked.
fn on_the_spawner<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let jobs = SPAWNER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for job in queue {
                job();
            }
        });
        jobs
    });
    let (done, result) = mpsc::sync_channel(1);
    jobs.send(Box::new(move || drop(done.send(work())))).map_err(|_gone| anyhow!("the spawning thread is gone"))?;
    result.recv().context("the spawning thread is gone")
}
