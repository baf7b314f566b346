//! A kernel for guests: fetched from Debian once, unpacked, and kept in a cache.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::debian::Apt;

/// The kernels that can be had: series and the release of Debian that ships it.
pub const SERIES: [(&str, &str); 2] = [("6.1", "bookworm"), ("6.12", "trixie")];

/// A kernel that QEMU can start.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// `6.1`.
    pub series: String,
    /// `6.1.0-56-cloud-amd64`.
    pub release: String,
    /// The uncompressed kernel. QEMU starts it by the PVH entry, in half the time that a compressed one takes.
    pub vmlinux: PathBuf,
    /// The folder of its modules.
    pub modules: PathBuf,
}

impl Kernel {
    /// A kernel of the series from the cache, or from Debian if it isn't there or `refresh` asks for the newest.
    pub fn get(cache: &Path, series: &str, refresh: bool) -> Result<Self> {
        let Some((_, debian)) = SERIES.iter().find(|(known, _)| *known == series) else {
            let known = SERIES.map(|(known, _)| known).join(", ");
            bail!("no kernel {series}; there are {known}");
        };
        fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
        // Runs side by side share the cache: one fetches, the others wait for it.
        let lock = cache.join("lock");
        let lock = File::create(&lock).with_context(|| format!("cannot open {}", lock.display()))?;
        lock.lock().context("cannot lock the cache of kernels")?;
        let link = cache.join(series);
        if refresh || !link.exists() {
            fetch(cache, &link, debian).with_context(|| format!("no kernel {series} from Debian {debian}"))?;
        }
        Self::open(&link, series)
    }

    fn open(link: &Path, series: &str) -> Result<Self> {
        let folder = fs::canonicalize(link).with_context(|| format!("cannot read {}", link.display()))?;
        let release = folder.file_name().and_then(|n| n.to_str()).context("a cache with an odd name")?.to_owned();
        let modules = folder.join("modules");
        Ok(Self { series: series.to_owned(), vmlinux: folder.join("vmlinux"), modules, release })
    }
}

/// Fetches a kernel into a folder named by its release, and points the link there in one step: a guest that another
/// run starts meanwhile keeps the folder that it has.
fn fetch(cache: &Path, link: &Path, debian: &str) -> Result<()> {
    eprintln!("vm: fetching the kernel of Debian {debian}");
    let work = tempfile::Builder::new().prefix("fetch-").tempdir_in(cache)?;
    let unpacked = Apt::new(work.path().to_owned(), debian)?.kernel()?;
    let modules = ["lib/modules", "usr/lib/modules"].map(|path| unpacked.join(path));
    let modules = modules.iter().find(|path| path.exists()).context("the package has no modules")?;
    let release = fs::read_dir(modules)?.next().context("the package has no modules")??.file_name();
    let folder = cache.join(&release);
    if !folder.exists() {
        let image = unpacked.join("boot").join(format!("vmlinuz-{}", release.to_string_lossy()));
        let made = work.path().join("made");
        fs::create_dir(&made)?;
        let image = fs::read(&image).with_context(|| format!("cannot read {}", image.display()))?;
        fs::write(made.join("vmlinux"), uncompressed(&image)?)?;
        fs::rename(modules.join(&release), made.join("modules"))?;
        fs::rename(&made, &folder)?;
    }
    let fresh = work.path().join("link");
    std::os::unix::fs::symlink(&release, &fresh)?;
    fs::rename(&fresh, link).with_context(|| format!("cannot make {}", link.display()))
}

/// The kernel inside a bzImage (Documentation/arch/x86/boot.rst, `payload_offset` and `payload_length`).
fn uncompressed(image: &[u8]) -> Result<Vec<u8>> {
    let word = |at: usize| {
        let bytes = image.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        bytes.map(|bytes| u32::from_le_bytes(bytes) as usize)
    };
    let payload = (|| {
        (image.get(0x202..0x206)? != b"\0\0\0\0" && image.get(0x1fe..0x200)? == [0x55, 0xaa]).then_some(())?;
        let setup = match image.get(0x1f1)? {
            0 => 4,
            sectors => usize::from(*sectors),
        };
        let start = (setup + 1) * 512 + word(0x248)?;
        // The last four bytes are the size before compression, which no decompressor wants.
        image.get(start..(start + word(0x24c)?).checked_sub(4)?)
    })();
    let payload = payload.context("the kernel is no bzImage")?;
    let (program, arguments): (_, &[&str]) = match payload {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("zstd", &["--decompress", "--stdout"]),
        [0xfd, b'7', b'z', b'X', ..] => ("xz", &["--decompress", "--stdout", "--single-stream"]),
        [0x02, 0x21, 0x4c, 0x18, ..] => ("lz4", &["--decompress", "--stdout"]),
        [0x1f, 0x8b, ..] => ("gzip", &["--decompress", "--stdout"]),
        _ => bail!("the kernel is compressed in a way that is not known here: {:02x?}", payload.get(..4)),
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{program}`; `cargo xtask setup --vm` installs what guests need"))?;
    let mut input = child.stdin.take().context("a pipe")?;
    let output = std::thread::scope(|scope| {
        // That the program ended early is said by its exit code.
        scope.spawn(move || input.write_all(payload).ok());
        child.wait_with_output()
    })?;
    if !output.status.success() || !output.stdout.starts_with(b"\x7fELF") {
        bail!("the kernel could not be unpacked by {program}");
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_kernel_is_refused() {
        for bytes in [&[][..], &[0; 100], &[0xff; 4096]] {
            assert!(uncompressed(bytes).is_err());
        }
        let folder = tempfile::tempdir().unwrap();
        let error = Kernel::get(folder.path(), "2.4", false).unwrap_err();
        assert!(error.to_string().contains("6.12"));
    }
}
