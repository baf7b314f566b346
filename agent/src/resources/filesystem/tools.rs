//! Programs around a mount: the check before it, and the helpers of filesystems that are not mounted by mount(2) alone.

use std::path::{Path, PathBuf};

use tokio::time::Instant;

use super::{mounting::Failure, options::for_helper};
use crate::{
    config::kinds::{Filesystem, Fsck},
    resources::child::{self, ChildError, Done, Program},
};

/// Where such programs are.
const FOLDERS: [&str; 3] = ["/sbin", "/usr/sbin", "/usr/local/sbin"];

/// The program that mounts this type, if it has one.
pub fn helper(fs_type: &str) -> Option<PathBuf> {
    find(&format!("mount.{fs_type}"))
}

fn find(name: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// Checks a filesystem as it is configured.
///
/// # Errors
/// [`Failure`]: what fsck(8) says in its exit code.
pub async fn check(spec: &Filesystem, device: &Path, until: Instant) -> Result<(), Failure> {
    let ext = spec.fs_type.starts_with("ext");
    let name = if ext { "e2fsck".to_owned() } else { format!("fsck.{}", spec.fs_type) };
    let mut arguments = vec!["-p".into()];
    match spec.fsck {
        Fsck::Never => return Ok(()),
        Fsck::Preen => {}
        Fsck::Force if ext || matches!(spec.fs_type.as_str(), "jfs" | "f2fs") => arguments.push("-f".into()),
        // The others look at everything anyway.
        Fsck::Force => {}
    }
    arguments.push(device.into());
    let Some(path) = find(&name) else {
        let remedy = "install it (e2fsprogs, dosfstools and the like), or write `fsck = \"never\"`";
        return Err(Failure::new(name, "there is no such program", remedy));
    };
    let object = device.display().to_string();
    let done = child::run(Program { path, arguments, ..Program::default() }, until).await;
    let done = done.map_err(|e| {
        let remedy = match &e {
            ChildError::TimedOut(_) => format!("raise `start_timeout`, or check it by hand: `{name} {object}`"),
            ChildError::Start(_) => "see that the program can be run".to_owned(),
        };
        Failure::new(&object, format!("{name}: {e}"), remedy)
    })?;
    let Some((cause, remedy)) = meaning(&done, &name, &object) else { return Ok(()) };
    let said = done.last_words();
    Err(Failure::new(&object, format!("{name} {}: {cause}; it said: {said}", done.status), remedy))
}

/// What an exit code of fsck(8) means, and what to do; `None`: it may be mounted.
fn meaning(done: &Done, name: &str, device: &str) -> Option<(&'static str, String)> {
    let bits = done.code.unwrap_or(8);
    Some(match bits {
        0 | 1 => return None,
        _ if bits & 4 != 0 => {
            ("it has errors that are not repaired without asking", format!("repair it by hand: `{name} {device}`"))
        }
        _ if bits & 2 != 0 => {
            ("it was repaired, and the machine should be restarted", "restart the machine".to_owned())
        }
        _ if bits & 8 != 0 => ("it could not be checked", "see what it said, and dmesg".to_owned()),
        _ if bits & 16 != 0 => ("it does not know how it was called", "write `fsck = \"never\"`".to_owned()),
        _ if bits & 32 != 0 => ("it was cancelled", "see who ended it".to_owned()),
        _ => ("it failed", "see what it said".to_owned()),
    })
}

/// Mounts by a helper: `mount.TYPE DEVICE FOLDER -o OPTIONS`.
///
/// # Errors
/// [`Failure`]: what mount(8) says in its exit code.
pub async fn mount_by_helper(spec: &Filesystem, path: PathBuf, device: &str, until: Instant) -> Result<(), Failure> {
    let mut arguments = vec![device.into(), spec.mount.clone().into_os_string()];
    let options = for_helper(&spec.options);
    if !options.is_empty() {
        arguments.extend(["-o".into(), options.into()]);
    }
    let object = format!("{device} on {}", spec.mount.display());
    let name = path.display().to_string();
    let done = child::run(Program { path, arguments, ..Program::default() }, until).await;
    let done = done.map_err(|e| {
        let remedy = "see that its server is there and answers, or raise `start_timeout`";
        Failure::new(&object, format!("{name}: {e}"), remedy)
    })?;
    if done.code == Some(0) {
        return Ok(());
    }
    let remedy = match done.code {
        Some(1) => "correct `device` or `options`, or the agent's permissions",
        Some(2) => "see what it said: a system error",
        Some(32) => "see that the server is there and exports it to this node",
        _ => "see what it said",
    };
    Err(Failure::new(object, format!("{name} {}; it said: {}", done.status, done.last_words()), remedy))
}
