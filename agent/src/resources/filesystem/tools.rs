//! Programs around a mount: the check before it, and the helpers of filesystems that are not mounted by mount(2) alone.

use std::path::{Path, PathBuf};

use tokio::time::{Instant, timeout_at};

use super::{mounting::Failure, options::for_helper};
use crate::{
    config::kinds::{Filesystem, Fsck},
    process::Ended,
    resources::call::{Answer, Caller},
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

/// Runs one of them, at the latest until then.
async fn run(tools: &Caller, words: Vec<String>, until: Instant) -> Result<Answer, String> {
    match timeout_at(until, tools.call(words, Vec::new())).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err(format!("it did not end in time and was killed; see {}", tools.output().display())),
    }
}

/// Checks a filesystem as it is configured.
///
/// # Errors
/// [`Failure`]: what fsck(8) says in its exit code.
pub async fn check(tools: &Caller, spec: &Filesystem, device: &Path, until: Instant) -> Result<(), Failure> {
    if spec.fsck == Fsck::Never {
        return Ok(());
    }
    let ext = spec.fs_type.starts_with("ext");
    let name = if ext { "e2fsck".to_owned() } else { format!("fsck.{}", spec.fs_type) };
    let object = device.display().to_string();
    let Some(path) = find(&name) else {
        let remedy = "install it (e2fsprogs, dosfstools and the like), or write `fsck = \"never\"`";
        return Err(Failure::new(name, "there is no such program", remedy));
    };
    let mut words = vec![path.display().to_string(), "-p".to_owned()];
    // The others look at everything anyway.
    if spec.fsck == Fsck::Force && (ext || matches!(spec.fs_type.as_str(), "jfs" | "f2fs")) {
        words.push("-f".to_owned());
    }
    words.push(object.clone());
    let answer = run(tools, words, until).await.map_err(|cause| {
        let remedy = format!("raise `start_timeout`, or check it by hand: `{name} {object}`");
        Failure::new(&object, format!("{name}: {cause}"), remedy)
    })?;
    let Some((cause, remedy)) = meaning(answer.ended, &name, &object) else { return Ok(()) };
    Err(Failure::new(&object, format!("{name}: {cause} ({})", answer.words()), remedy))
}

/// What an exit code of fsck(8) means, and what to do; `None`: it may be mounted.
fn meaning(ended: Ended, name: &str, device: &str) -> Option<(&'static str, String)> {
    let Ended::Code(bits) = ended else { return Some(("it was ended", "see who ended it".to_owned())) };
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
pub async fn mount_by_helper(
    tools: &Caller,
    spec: &Filesystem,
    helper: &Path,
    device: &str,
    until: Instant,
) -> Result<(), Failure> {
    let name = helper.display().to_string();
    let mut words = vec![name.clone(), device.to_owned(), spec.mount.display().to_string()];
    let options = for_helper(&spec.options);
    if !options.is_empty() {
        words.extend(["-o".to_owned(), options]);
    }
    let object = format!("{device} on {}", spec.mount.display());
    let answer = run(tools, words, until).await.map_err(|cause| {
        let remedy = "see that its server is there and answers, or raise `start_timeout`";
        Failure::new(&object, format!("{name}: {cause}"), remedy)
    })?;
    let remedy = match answer.ended {
        Ended::Code(0) => return Ok(()),
        Ended::Code(1) => "correct `device` or `options`, or the agent's permissions",
        Ended::Code(2) => "see what it said: a system error",
        Ended::Code(32) => "see that the server is there and exports it to this node",
        _ => "see what it said",
    };
    Err(Failure::new(object, format!("{name} {}", answer.words()), remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_of_a_check_are_told_in_the_order_of_their_weight() {
        for (code, words) in
            [(2, "restarted"), (3, "restarted"), (6, "not repaired"), (8, "checked"), (32, "cancelled")]
        {
            let (cause, _) = meaning(Ended::Code(code), "e2fsck", "/dev/x").unwrap();
            assert!(cause.contains(words), "{code}: {cause}");
        }
        assert_eq!(meaning(Ended::Code(0), "e2fsck", "/dev/x"), None);
        assert_eq!(meaning(Ended::Code(1), "e2fsck", "/dev/x"), None);
        assert!(meaning(Ended::Signal(9), "e2fsck", "/dev/x").is_some());
    }
}
