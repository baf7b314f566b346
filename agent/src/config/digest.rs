//! The digest by which machines notice that their configurations differ.

use blake2::{Blake2b, Digest, digest::consts::U8};

use super::model::Shared;

/// A digest over everything that must be equal on all machines.
///
/// It is taken over the validated model, voters by id and groups by name, so comments, order and layout do not count.
pub(super) fn digest(shared: &Shared) -> Result<u64, serde_json::Error> {
    let mut hash = Blake2b::<U8>::new();
    hash.update(b"baton configuration 1\0");
    hash.update(serde_json::to_vec(shared)?);
    Ok(u64::from_le_bytes(hash.finalize().into()))
}

/// A short hash of the cluster's name, never 0.
pub(super) fn name_hash(name: &str) -> u32 {
    let mut hash = Blake2b::<U8>::new();
    hash.update(b"baton cluster name 1\0");
    hash.update(name.as_bytes());
    let whole = u64::from_le_bytes(hash.finalize().into());
    u32::try_from(whole & 0xffff_ffff).unwrap_or(1).max(1)
}
