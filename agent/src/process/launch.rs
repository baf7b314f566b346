//! Starts a program with all that a service may need: an environment of its own, a user, a session, a control group.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::{Command, Stdio},
};

use super::{Account, Process};

/// Where programs are looked for by what Baton starts, unless the configuration says otherwise.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is started, and how. It inherits nothing of the agent's environment.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The program, and its arguments.
    pub words: &'a [String],
    /// Its environment, beside `PATH`; a later one of the same name wins.
    pub environment: &'a [(String, String)],
    /// Where it starts.
    pub directory: &'a Path,
    /// As whom; as the agent if none.
    pub account: Option<&'a Account>,
    /// In a session of its own; otherwise in a process group of its own.
    pub session: bool,
    /// `cgroup.procs` of the control groups that it enters before it does anything, open for writing.
    pub cgroups: &'a [File],
    /// Where both its outputs go.
    pub output: File,
}

/// Starts it. Blocks until the program was found and runs.
///
/// # Errors
/// The kernel's; `InvalidInput` without a program.
pub fn launch(launch: Launch<'_>) -> io::Result<Process> {
    let (program, arguments) = launch.words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", PATH).current_dir(launch.directory).stdin(Stdio::null());
    command.envs(launch.environment.iter().map(|(name, value)| (name, value)));
    command.stdout(launch.output.try_clone()?).stderr(launch.output);
    if !launch.session && launch.account.is_none() && launch.cgroups.is_empty() {
        command.process_group(0);
    } else {
        let cgroups: Vec<RawFd> = launch.cgroups.iter().map(|file| file.as_raw_fd()).collect();
        let account = launch.account.map(|a| (a.uid, a.gid, a.groups.clone()));
        let session = launch.session;
        let enter = move || enter(&cgroups, session, account.as_ref());
        // SAFETY: `enter` makes system calls on memory that was made before the fork, and nothing else.
        unsafe { command.pre_exec(enter) };
    }
    // Dropping the handle leaves the process alone; it stays ours to wait for, so its number cannot be used again before.
    let process = Process::child(command.spawn()?.id())?;
    // As in `run`: the agent's exemption is not for what it starts.
    drop(fs::write(format!("/proc/{}/oom_score_adj", process.pid()), "0"));
    Ok(process)
}

/// In the child, between fork and exec: no allocation, no lock. The order matters: a user may not enter a control group.
fn enter(cgroups: &[RawFd], session: bool, account: Option<&(u32, u32, Vec<u32>)>) -> io::Result<()> {
    let check = |answer: libc::c_int| if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    for fd in cgroups {
        // SAFETY: the descriptor is open (the file outlives the spawn), and one byte is read of a constant.
        if unsafe { libc::write(*fd, c"0".as_ptr().cast(), 1) } != 1 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: both take numbers alone.
    check(unsafe { if session { libc::setsid() } else { libc::setpgid(0, 0) } })?;
    if let Some((uid, gid, groups)) = account {
        // SAFETY: the list is as long as said; the others take numbers alone.
        unsafe {
            check(libc::setgroups(groups.len(), groups.as_ptr()))?;
            check(libc::setgid(*gid))?;
            check(libc::setuid(*uid))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Seek as _},
        time::Duration,
    };

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;
    use crate::process::{Ended, session};

    fn said(words: &[&str], account: Option<&Account>, session: bool) -> (String, Option<Ended>) {
        let mut output = File::from(memfd_create("output", MemfdFlags::CLOEXEC).unwrap());
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        let process = launch(Launch {
            words: &words,
            environment: &[("A".into(), "b c".into())],
            directory: Path::new("/"),
            account,
            session,
            cgroups: &[],
            output: output.try_clone().unwrap(),
        })
        .unwrap();
        assert!(super::super::wait(&[std::os::fd::AsFd::as_fd(&process)], Some(Duration::from_secs(20))).unwrap()[0]);
        let mut text = String::new();
        output.rewind().unwrap();
        output.read_to_string(&mut text).unwrap();
        (text, process.outcome())
    }

    #[test]
    fn the_environment_is_what_was_given_and_nothing_of_the_agents() {
        let (text, ended) = said(&["/usr/bin/env"], None, false);
        assert_eq!((text, ended), (format!("A=b c\nPATH={PATH}\n"), Some(Ended::Code(0))));
    }

    #[test]
    fn a_user_has_its_groups_and_a_session_of_its_own() {
        let account = Account::find("daemon", Some("nogroup")).unwrap();
        let script = "id -u; id -g; ps -o sid= -p $$ | tr -d ' '; echo $$";
        let (text, _) = said(&["/bin/sh", "-c", script], Some(&account), true);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], [account.uid.to_string(), account.gid.to_string()]);
        assert_eq!(lines[2], lines[3], "it leads its session");
    }

    #[test]
    fn the_members_of_a_session_are_found() {
        let words = ["/bin/sh", "-c", "sleep 60 & wait"].map(str::to_owned);
        let process = launch(Launch {
            words: &words,
            environment: &[],
            directory: Path::new("/"),
            account: None,
            session: true,
            cgroups: &[],
            output: File::from(memfd_create("output", MemfdFlags::CLOEXEC).unwrap()),
        })
        .unwrap();
        let leader = process.identity().unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while session(&leader).unwrap().len() < 2 {
            assert!(std::time::Instant::now() < deadline, "{:?}", session(&leader));
            std::thread::sleep(Duration::from_millis(5));
        }
        process.signal_group(rustix::process::Signal::KILL).unwrap();
        while !session(&leader).unwrap().is_empty() {
            assert!(std::time::Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(process.outcome(), Some(Ended::Signal(9)));
    }
}
