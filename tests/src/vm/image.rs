//! The initramfs of a guest: process 1, modules, programs with the libraries that they need, and files.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{cpio::Archive, debian::output, kernel::Kernel, modules::Modules};

/// Where modules lie in a guest; `order` names them in the order in which they load.
pub const MODULES: &str = "/modules";
/// What every guest needs: the control channel, the network device, randomness.
const DEVICES: [&str; 4] = ["virtio_pci", "virtio_console", "virtio_net", "virtio_rng"];
/// Folders that something is mounted on.
const FOLDERS: [&str; 6] = ["/proc", "/sys", "/dev", "/run", "/tmp", "/root"];
/// Where this machine's programs are looked for.
const PATH: [&str; 6] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"];

/// What will be in a guest.
#[derive(Debug)]
pub struct Image {
    kernel: Kernel,
    modules: Vec<String>,
    files: BTreeMap<String, (PathBuf, u32)>,
    links: BTreeMap<String, String>,
}

impl Image {
    /// A guest with the least: `baton-guest` as process 1, and busybox.
    pub fn new(kernel: &Kernel, guest: &Path) -> Result<Self> {
        let mut image =
            Self { kernel: kernel.clone(), modules: Vec::new(), files: BTreeMap::new(), links: BTreeMap::new() };
        image.modules(&DEVICES).binary("/init", guest)?;
        let busybox = find("busybox")?;
        for applet in output(Command::new(&busybox).arg("--list"))?.lines() {
            image.links.insert(format!("/bin/{applet}"), "busybox".into());
        }
        image.links.remove("/bin/busybox");
        image.binary("/bin/busybox", &busybox)?;
        Ok(image)
    }

    /// Modules that process 1 loads, beside what they depend on.
    pub fn modules(&mut self, names: &[&str]) -> &mut Self {
        self.modules.extend(names.iter().map(|name| (*name).to_owned()));
        self
    }

    /// A program of this machine, found by its name.
    pub fn program(&mut self, name: &str) -> Result<&mut Self> {
        let file = find(name)?;
        self.binary(&format!("/usr/bin/{name}"), &file)
    }

    /// A program from a file, under a path in the guest, with the shared libraries that it is linked to.
    pub fn binary(&mut self, path: &str, file: &Path) -> Result<&mut Self> {
        for library in libraries(file)? {
            self.files.insert(library.clone(), (library.into(), 0o755));
        }
        Ok(self.file(path, file, 0o755))
    }

    /// A file, under a path in the guest, with these permissions.
    pub fn file(&mut self, path: &str, file: &Path, permissions: u32) -> &mut Self {
        self.files.insert(path.to_owned(), (file.to_owned(), permissions));
        self
    }

    /// Writes the archive.
    pub fn write(&self, path: &Path) -> Result<()> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut archive = Archive::new(BufWriter::new(file));
        FOLDERS.iter().try_for_each(|folder| archive.folder(folder))?;
        for (path, (file, permissions)) in &self.files {
            archive.file(path, *permissions, &content(file)?)?;
        }
        self.links.iter().try_for_each(|(path, target)| archive.symlink(path, target))?;
        let wanted: Vec<&str> = self.modules.iter().map(String::as_str).collect();
        let mut order = String::new();
        for module in Modules::new(&self.kernel.modules)?.in_order(&wanted)? {
            order.push_str(&module.name);
            order.push('\n');
            archive.file(&format!("{MODULES}/{}.ko", module.name), 0o644, &module.content)?;
        }
        archive.file(&format!("{MODULES}/order"), 0o644, order.as_bytes())?;
        archive.finish().with_context(|| format!("cannot write {}", path.display()))
    }
}

fn find(program: &str) -> Result<PathBuf> {
    PATH.iter().map(|folder| Path::new(folder).join(program)).find(|file| file.is_file()).with_context(|| {
        format!("there is no `{program}` on this machine; `cargo xtask setup --vm` installs what guests need")
    })
}

/// The shared libraries and the loader of a program, by the paths that it finds them under (ldd(1)).
fn libraries(file: &Path) -> Result<Vec<String>> {
    let listed = Command::new("ldd").arg(file).env("LC_ALL", "C").output().context("cannot run `ldd`")?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    if let Some(line) = listed.lines().find(|line| line.contains("not found")) {
        bail!("{} lacks a library: {}", file.display(), line.trim());
    }
    // `name => path (address)`, `path (address)`, or a line without a path for the kernel's part and static programs.
    let paths = listed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.filter(|path| !path.ends_with(':')).map(str::to_owned).collect())
}

/// A file's bytes; of a program, those that are needed to run it: debugging information is many times as long.
fn content(file: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    if !bytes.starts_with(b"\x7fELF") || bytes.len() < 4 << 20 {
        return Ok(bytes);
    }
    let stripped = tempfile::NamedTempFile::new()?;
    output(Command::new("strip").arg("--strip-debug").arg("-o").arg(stripped.path()).arg(file))?;
    Ok(fs::read(stripped.path())?)
}
