//! Kernel packages of Debian, fetched by apt but not installed.
//!
//! apt gets a configuration of its own below a folder given to it: this machine's sources and package lists stay as
//! they are, and may lack the release asked for. It verifies the archive's signature and the package's digest.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// The archive where this machine's own sources name no mirror.
const ARCHIVE: &str = "http://deb.debian.org/debian/";
/// Its security updates.
const SECURITY: &str = "http://deb.debian.org/debian-security/";
/// The archive's keys (package debian-archive-keyring).
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// What depends on the newest kernel of a release.
const NEWEST: &str = "linux-image-cloud-amd64";

/// apt with an archive of its own.
#[derive(Debug)]
pub struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Reads the package lists of a release of Debian, such as `bookworm`, into `folder`.
    pub fn new(folder: PathBuf, release: &str) -> Result<Self> {
        if !Path::new(KEYS).exists() {
            bail!("{KEYS} is missing; install debian-archive-keyring");
        }
        for part in ["state/lists/partial", "cache/archives/partial"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
        }
        let (archive, security) = mirrors();
        let source = |uri: &str, suite: &str| format!("deb [arch=amd64 signed-by={KEYS}] {uri} {suite} main\n");
        let sources = [source(&archive, release), source(&security, &format!("{release}-security"))].concat();
        fs::write(folder.join("sources.list"), sources)?;
        let apt = Self { folder };
        output(apt.command("apt-get").args(["update", "-q"]))?;
        Ok(apt)
    }

    /// Fetches the release's newest cloud kernel and unpacks it into a folder below this one's.
    pub fn kernel(&self) -> Result<PathBuf> {
        let depends = output(self.command("apt-cache").args(["depends", NEWEST]))?;
        let package = depends
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: ").filter(|name| name.starts_with("linux-image-")))
            .with_context(|| format!("{NEWEST} depends on no kernel:\n{depends}"))?;
        output(self.command("apt-get").args(["download", "-q", package]))?;
        let files = fs::read_dir(&self.folder)?.collect::<Result<Vec<_>, _>>()?;
        let file = files.iter().map(fs::DirEntry::path).find(|path| path.extension().is_some_and(|e| e == "deb"));
        let unpacked = self.folder.join("unpacked");
        output(Command::new("dpkg-deb").arg("-x").arg(file.context("apt-get left no package")?).arg(&unpacked))?;
        Ok(unpacked)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let set = |name: &str, value: &Path| format!("{name}={}", value.display());
        command.current_dir(&self.folder);
        for option in [
            set("Dir::Etc::sourcelist", &self.folder.join("sources.list")),
            set("Dir::State", &self.folder.join("state")),
            set("Dir::Cache", &self.folder.join("cache")),
            "Dir::Etc::sourceparts=-".into(),
            "Dir::State::status=/dev/null".into(),
            "APT::Sandbox::User=root".into(),
            "APT::Architecture=amd64".into(),
            "APT::Architectures=amd64".into(),
            "Acquire::Languages=none".into(),
            "Acquire::Retries=3".into(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }
}

/// The mirrors that this machine's sources name for Debian and its security updates.
fn mirrors() -> (String, String) {
    let listed = Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI)", "Origin: Debian"]).output();
    let listed = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let named = |end: &str, otherwise: &str| {
        listed.lines().find(|uri| uri.trim_end_matches('/').ends_with(end)).unwrap_or(otherwise).to_owned()
    };
    (named("/debian", ARCHIVE), named("/debian-security", SECURITY))
}

/// Runs a program and hands back its standard output; an error carries what it printed.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .env("LC_ALL", "C")
        .stdin(std::process::Stdio::null())
        .output()
        .with_context(|| format!("cannot run `{program}`; `cargo xtask setup --vm` installs what guests need"))?;
    if !output.status.success() {
        bail!("`{program}` failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
