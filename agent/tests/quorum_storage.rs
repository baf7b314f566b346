//! openraft's own test suite for storages, run against the durable log and the state machine.

mod quorum_support;

use baton::{
    cluster::ids::VoterId,
    quorum::{
        log::{Log, LogConfig, SEGMENT_BYTES},
        machine::Machine,
        types::{StorageError, TypeConfig},
    },
};
use openraft::{
    StorageIOError,
    testing::{StoreBuilder, Suite},
};
use quorum_support::Barriers;
use tempfile::TempDir;

struct Folders;

impl StoreBuilder<TypeConfig, Log, Machine<Barriers>, TempDir> for Folders {
    async fn build(&self) -> Result<(TempDir, Log, Machine<Barriers>), StorageError> {
        let failed = |error: &dyn std::error::Error| StorageIOError::write(&std::io::Error::other(error.to_string()));
        let folder = tempfile::tempdir().map_err(|error| failed(&error))?;
        let log = Log::open(LogConfig {
            folder: folder.path().to_owned(),
            me: VoterId(1),
            segment_bytes: SEGMENT_BYTES / 64,
            on_thread: None,
        })
        .map_err(|error| failed(&error))?;
        let (machine, _events) = Machine::open(folder.path()).map_err(|error| failed(&error))?;
        Ok((folder, log, machine))
    }
}

#[test]
fn the_storage_passes_the_suite() {
    Suite::test_all(Folders).expect("passes");
}
