//! The cluster key: making it, reading it, and deriving one key a purpose from it.
//!
//! The file has two lines, a header and 64 hexadecimal digits, and may be read by its owner alone.

use std::{
    fmt, fs,
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use blake2::{
    Blake2bMac,
    digest::{FixedOutput, Update, consts::U32},
};
use rand::{TryRngCore, rngs::OsRng};
use thiserror::Error;

/// The first line of a key file.
const HEADER: &str = "baton cluster key 1";
/// The length of the key in bytes.
const KEY_BYTES: usize = 32;
/// No key file is longer than this.
const FILE_BYTES_MAX: u64 = 1024;

/// What can be wrong with a key file.
#[derive(Debug, Error)]
pub enum KeyError {
    /// It cannot be opened or read.
    #[error("the key file {path} cannot be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than its owner may read or change it.
    #[error(
        "the key file {path} is open to others (mode {mode:04o}); run `chmod 600 {path}`, and make a new key if others may have read it"
    )]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to somebody else.
    #[error("the key file {path} belongs to user {uid}; give it to root by `chown root {path}`")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// It is no key file.
    #[error("the file {path} is no Baton key: {what}; make one by `baton keygen {path}` and copy it to all machines")]
    Format {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// A new one cannot be written.
    #[error("the key file {path} cannot be written")]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is there already.
    #[error(
        "{path} is there already and is not overwritten; a cluster whose machines have different keys is down: remove it first if you mean it"
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The kernel gave no random bytes.
    #[error("the kernel gave no random bytes: {0}")]
    Random(String),
}

/// The cluster's key. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey([u8; KEY_BYTES]);

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(…)")
    }
}

impl ClusterKey {
    /// A key from its bytes, for tests and benches that need no file.
    pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// Reads a key file and checks that nobody else can.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let unreadable = |source| KeyError::Unreadable { path: path.to_owned(), source };
        let format = |what: &str| KeyError::Format { path: path.to_owned(), what: what.to_owned() };
        // O_NONBLOCK: opening a FIFO by mistake must not hang.
        let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(unreadable)?;
        let meta = file.metadata().map_err(unreadable)?;
        if !meta.is_file() {
            return Err(format("it is not a regular file"));
        }
        let mode = meta.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::OpenToOthers { path: path.to_owned(), mode });
        }
        let uid = meta.uid();
        if uid != 0 && uid != rustix::process::geteuid().as_raw() {
            return Err(KeyError::Foreign { path: path.to_owned(), uid });
        }
        let mut text = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(unreadable)?;
        parse(&text).map_err(|what| format(&what))
    }

    /// Writes a new random key, mode 0600, and refuses to overwrite anything.
    pub fn generate(path: &Path) -> Result<Self, KeyError> {
        let mut key = [0; KEY_BYTES];
        OsRng.try_fill_bytes(&mut key).map_err(|e| KeyError::Random(e.to_string()))?;
        let hex: String = key.iter().map(|b| format!("{b:02x}")).collect();
        let unwritable = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => KeyError::Exists { path: path.to_owned() },
            _ => KeyError::Unwritable { path: path.to_owned(), source },
        };
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(unwritable)?;
        let write = |file: &mut fs::File| {
            // The mode given to open(2) is narrowed by the umask; this also holds with a odd one.
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            file.write_all(format!("{HEADER}\n{hex}\n").as_bytes())?;
            file.sync_all()
        };
        if let Err(source) = write(&mut file) {
            // Half a key is worse than none; if even this fails the error below says enough.
            drop(fs::remove_file(path));
            return Err(KeyError::Unwritable { path: path.to_owned(), source });
        }
        Ok(Self(key))
    }

    /// The key of the heartbeats' signature (SipHash-2-4), for one cluster.
    pub fn beat_key(&self, cluster: &str) -> [u64; 2] {
        let bytes = self.derive(b"baton beat 1", cluster);
        let mut words = [0u64; 2];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = chunk.iter().rev().fold(0, |w, &b| w << 8 | u64::from(b));
        }
        words
    }

    /// The pre-shared key of the RPC channels (Noise NNpsk0), for one cluster.
    pub fn channel_psk(&self, cluster: &str) -> [u8; 32] {
        self.derive(b"baton channel 1", cluster)
    }

    /// Keyed BLAKE2b with the purpose as its personalization: no two purposes and no two clusters share a key.
    fn derive(&self, purpose: &[u8], cluster: &str) -> [u8; 32] {
        // It fails only on keys and purposes that are too long; both are short constants here.
        match Blake2bMac::<U32>::new_with_salt_and_personal(&self.0, &[], purpose) {
            Ok(mut mac) => {
                mac.update(cluster.as_bytes());
                mac.finalize_fixed().into()
            }
            Err(_) => unreachable!("a key of 32 bytes and a purpose of at most 16 always fit"),
        }
    }
}

fn parse(text: &[u8]) -> Result<ClusterKey, String> {
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it is longer than {FILE_BYTES_MAX} bytes"));
    }
    let text = std::str::from_utf8(text).map_err(|_not_text| "it is not text".to_owned())?;
    let mut lines = text.lines();
    if lines.next().map(str::trim) != Some(HEADER) {
        return Err(format!("its first line is not \"{HEADER}\""));
    }
    let hex = lines.next().unwrap_or_default().trim().as_bytes();
    if hex.len() != 2 * KEY_BYTES {
        return Err(format!("its second line has {} characters, not {}", hex.len(), 2 * KEY_BYTES));
    }
    if lines.any(|l| !l.trim().is_empty()) {
        return Err("it has more than two lines".into());
    }
    let mut key = [0; KEY_BYTES];
    for (byte, pair) in key.iter_mut().zip(hex.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
        match (digit(pair[0]), digit(pair[1])) {
            (Some(high), Some(low)) => *byte = high << 4 | low,
            _ => return Err("its second line is not hexadecimal".into()),
        }
    }
    if key == [0; KEY_BYTES] {
        return Err("the key is all zeros".into());
    }
    Ok(ClusterKey(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_reads_back_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let key = ClusterKey::generate(&path).unwrap();
        assert_eq!(ClusterKey::read(&path).unwrap(), key);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(matches!(ClusterKey::generate(&path), Err(KeyError::Exists { .. })));
        assert_eq!(ClusterKey::read(&path).unwrap(), key, "the refused second keygen changed nothing");
    }

    #[test]
    fn purposes_and_clusters_have_keys_of_their_own() {
        let key = ClusterKey::from_bytes([7; 32]);
        assert_ne!(key.channel_psk("a"), key.channel_psk("b"));
        assert_ne!(key.beat_key("a"), key.beat_key("b"));
        let psk = key.channel_psk("a");
        assert_ne!(key.beat_key("a")[0].to_le_bytes(), psk[..8]);
        assert_ne!(key.channel_psk("a"), ClusterKey::from_bytes([8; 32]).channel_psk("a"));
        assert_eq!(key.channel_psk("a"), key.clone().channel_psk("a"));
    }

    #[test]
    fn every_malformed_file_is_refused_with_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let hex = "ab".repeat(32);
        for (text, reason) in [
            (String::new(), "first line"),
            (hex.clone(), "first line"),
            (format!("{HEADER}\n"), "0 characters"),
            (format!("{HEADER}\n{}\n", &hex[2..]), "62 characters"),
            (format!("{HEADER}\n{}\n", "zz".repeat(32)), "not hexadecimal"),
            (format!("{HEADER}\n{}\n", "00".repeat(32)), "all zeros"),
            (format!("{HEADER}\n{hex}\nmore\n"), "more than two lines"),
            (format!("{HEADER}\n{hex}\n{}", " ".repeat(2000)), "longer than"),
        ] {
            fs::write(&path, &text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = ClusterKey::read(&path).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(ClusterKey::read(&path), Err(KeyError::OpenToOthers { mode: 0o640, .. })));
        assert!(matches!(ClusterKey::read(dir.path()), Err(KeyError::Format { .. })));
        assert!(matches!(ClusterKey::read(&dir.path().join("none")), Err(KeyError::Unreadable { .. })));
    }
}
