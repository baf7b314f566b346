//! The log through restarts: torn tails, damage, truncation, purging, rotation, and a model.

use std::{
    fs::{self, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
    time::{Duration, Instant},
};

use openraft::{
    EntryPayload, RaftLogReader,
    storage::{RaftLogStorage, RaftLogStorageExt},
};
use proptest::prelude::*;

use super::*;
use crate::cluster::entry::Entry;

const ME: VoterId = VoterId(1);
const SMALL: u64 = 8 << 10;

fn id(term: u64, node: u64, index: u64) -> LogId {
    LogId::new(openraft::CommittedLeaderId::new(term, node), index)
}

fn entry(term: u64, node: u64, index: u64) -> LogEntry {
    let barrier = Entry::Barrier { voter: VoterId(2), incarnation: index * 7 };
    LogEntry { log_id: id(term, node, index), payload: EntryPayload::Normal(barrier) }
}

/// Opens the log, once the thread of the former one has let go of it.
fn open(folder: &Path) -> Result<Log, LogError> {
    let start = Instant::now();
    loop {
        let config = LogConfig { folder: folder.to_owned(), me: ME, segment_bytes: SMALL, on_thread: None };
        match Log::open(config) {
            Err(LogError::InUse { .. }) if start.elapsed() < Duration::from_secs(30) => std::thread::yield_now(),
            other => return other,
        }
    }
}

async fn entries(log: &mut Log) -> Vec<LogEntry> {
    log.try_get_log_entries(..).await.expect("read")
}

async fn append(log: &mut Log, entries: impl IntoIterator<Item = LogEntry, IntoIter: Send> + Send) {
    log.blocking_append(entries).await.expect("appended");
}

/// Changes one byte of a segment.
fn flip(folder: &Path, segment: u64, offset: u64) {
    let mut file = OpenOptions::new().read(true).write(true).open(segment::path(folder, segment)).expect("opened");
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset)).expect("there");
    file.read_exact(&mut byte).expect("read");
    file.seek(SeekFrom::Start(offset)).expect("there");
    file.write_all(&[byte[0] ^ 0x40]).expect("written");
}

/// Where each record of a segment begins, and where the last one ends.
fn offsets(folder: &Path, segment: u64) -> Vec<u64> {
    let bytes = fs::read(segment::path(folder, segment)).expect("read");
    let mut offsets = vec![0];
    while let Some(found) = record::decode(&bytes[offsets[offsets.len() - 1] as usize..], segment) {
        offsets.push(offsets[offsets.len() - 1] + found.size as u64);
    }
    offsets
}

#[tokio::test]
async fn what_was_acknowledged_is_back_after_a_restart() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut log = open(folder.path()).expect("opens");
    assert!(log.is_pristine());
    append(&mut log, (0..10).map(|n| entry(1, 2, n))).await;
    log.save_vote(&Vote::new(3, 2)).await.expect("saved");
    log.save_committed(Some(id(1, 2, 7))).await.expect("saved");
    log.truncate(id(1, 2, 8)).await.expect("truncated");
    append(&mut log, [entry(3, 2, 8)]).await;
    log.purge(id(1, 2, 4)).await.expect("purged");
    drop(log);
    let mut log = open(folder.path()).expect("opens");
    assert!(!log.is_pristine());
    let expected = [entry(1, 2, 5), entry(1, 2, 6), entry(1, 2, 7), entry(3, 2, 8)];
    assert_eq!(entries(&mut log).await, expected);
    assert_eq!(log.read_vote().await.expect("read"), Some(Vote::new(3, 2)));
    assert_eq!(log.read_committed().await.expect("read"), Some(id(1, 2, 7)));
    assert_eq!(log.get_log_state().await.expect("read").last_purged_log_id, Some(id(1, 2, 4)));
    assert_eq!(log.last(), Some(id(3, 2, 8)));
}

#[tokio::test]
async fn a_voter_that_led_does_not_lead_on_after_a_restart() {
    let folder = tempfile::tempdir().expect("temporary folder");
    for (node, leads_on) in [(2, true), (1, false)] {
        let mut log = open(folder.path()).expect("opens");
        log.save_vote(&Vote::new_committed(4 + 2 * (2 - node), node)).await.expect("saved");
        // The vote of an elected leader is not awaited: something behind it takes it along.
        log.write(vec![]).await.expect("durable");
        drop(log);
        let mut log = open(folder.path()).expect("opens");
        let vote = log.read_vote().await.expect("read").expect("there is one");
        assert_eq!((vote.leader_id().voted_for(), vote.committed), (Some(node), leads_on));
    }
}

#[tokio::test]
async fn a_leader_is_told_early_but_a_commit_waits_for_the_disk() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut log = open(folder.path()).expect("opens");
    log.save_vote(&Vote::new_committed(5, 1)).await.expect("saved");
    append(&mut log, [entry(5, 1, 0)]).await;
    log.save_committed(Some(id(5, 1, 0))).await.expect("saved");
    // Durable by now: it is found by whoever reads the files, without another sync.
    let found = recover::recover(folder.path()).expect("readable");
    assert_eq!(found.entries.into_values().collect::<Vec<_>>(), [entry(5, 1, 0)]);
}

#[tokio::test]
async fn a_candidate_leads_only_once_its_vote_for_itself_is_on_disk() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut log = open(folder.path()).expect("opens");
    for term in 1..50 {
        log.save_vote(&Vote::new(term, 1)).await.expect("begun");
        log.save_vote(&Vote::new_committed(term, 1)).await.expect("saved");
        let found = recover::recover(folder.path()).expect("readable");
        assert_eq!(found.vote.map(|vote| *vote.leader_id()), Some(openraft::LeaderId::new(term, 1)));
    }
}

#[tokio::test]
async fn a_torn_tail_is_left_out_and_never_comes_back() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut log = open(folder.path()).expect("opens");
    append(&mut log, [entry(1, 2, 0)]).await;
    // One write of two records.
    append(&mut log, [entry(1, 2, 1), entry(1, 2, 2)]).await;
    drop(log);
    drop(open(folder.path()).expect("opens"));
    let at = offsets(folder.path(), 0);
    // Head, 0, 1, 2: of the last write, the first half did not reach the disk but the second did.
    flip(folder.path(), 0, at[2] + 20);
    let mut log = open(folder.path()).expect("a torn write is tolerated");
    assert_eq!(entries(&mut log).await, [entry(1, 2, 0)]);
    append(&mut log, [entry(2, 3, 1)]).await;
    drop(log);
    let mut log = open(folder.path()).expect("opens");
    assert_eq!(entries(&mut log).await, [entry(1, 2, 0), entry(2, 3, 1)], "the stale record behind it is gone");
}

#[tokio::test]
async fn damage_to_what_was_acknowledged_is_refused_with_the_way_out() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut log = open(folder.path()).expect("opens");
    for n in 0..4 {
        append(&mut log, [entry(1, 2, n)]).await;
    }
    drop(log);
    drop(open(folder.path()).expect("opens"));
    let at = offsets(folder.path(), 0);
    for damaged in &at[..4] {
        flip(folder.path(), 0, damaged + 40);
        let refused = open(folder.path()).err().expect("refused");
        assert!(matches!(refused, LogError::Damaged { .. }));
        assert!(refused.to_string().contains("under a new voter number"), "{refused}");
        flip(folder.path(), 0, damaged + 40);
    }
    open(folder.path()).expect("sound again");
}

#[tokio::test]
async fn segments_follow_one_another_and_go_once_they_are_purged() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut log = open(folder.path()).expect("opens");
    log.save_vote(&Vote::new(1, 2)).await.expect("saved");
    for n in 0..300 {
        append(&mut log, [entry(1, 2, n)]).await;
    }
    let segments = segment::list(folder.path()).expect("listed");
    assert!(segments.len() > 3, "{segments:?}");
    drop(log);
    let mut log = open(folder.path()).expect("opens");
    assert_eq!(entries(&mut log).await, (0..300).map(|n| entry(1, 2, n)).collect::<Vec<_>>());
    log.purge(id(1, 2, 250)).await.expect("purged");
    let start = Instant::now();
    while segment::list(folder.path()).expect("listed").first() == Some(&0) {
        assert!(start.elapsed() < Duration::from_secs(30), "the first segment never goes");
        std::thread::yield_now();
    }
    drop(log);
    let mut log = open(folder.path()).expect("opens");
    assert_eq!(entries(&mut log).await, (251..300).map(|n| entry(1, 2, n)).collect::<Vec<_>>());
    assert_eq!(log.read_vote().await.expect("read"), Some(Vote::new(1, 2)));
}

#[tokio::test]
async fn a_segment_that_lost_its_end_or_its_place_is_refused() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut log = open(folder.path()).expect("opens");
    for n in 0..200 {
        append(&mut log, [entry(1, 2, n)]).await;
    }
    drop(log);
    drop(open(folder.path()).expect("opens"));
    let at = offsets(folder.path(), 0);
    flip(folder.path(), 0, at[at.len() - 2] + 40);
    assert!(matches!(open(folder.path()), Err(LogError::Damaged { .. })), "the last record of a full segment");
    flip(folder.path(), 0, at[at.len() - 2] + 40);
    fs::remove_file(segment::path(folder.path(), 1)).expect("removed");
    assert!(matches!(open(folder.path()), Err(LogError::Damaged { .. })), "a missing segment");
}

#[test]
fn a_second_agent_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let _log = open(folder.path()).expect("opens");
    let config = LogConfig { folder: folder.path().to_owned(), me: ME, segment_bytes: SMALL, on_thread: None };
    assert!(matches!(Log::open(config), Err(LogError::InUse { .. })));
}

/// What may happen to a log.
#[derive(Clone, Debug)]
enum Step {
    Append(u8),
    Truncate(u8),
    Purge(u8),
    Vote,
    Commit(u8),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1u8..20).prop_map(Step::Append),
        1 => any::<u8>().prop_map(Step::Truncate),
        1 => any::<u8>().prop_map(Step::Purge),
        1 => Just(Step::Vote),
        1 => any::<u8>().prop_map(Step::Commit),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..40)
}

/// What the log should hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    entries: BTreeMap<u64, LogEntry>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    term: u64,
}

impl Model {
    fn pick(&self, n: u8) -> Option<LogId> {
        let at = usize::from(n) % self.entries.len().max(1);
        self.entries.values().nth(at).map(|entry| entry.log_id)
    }
}

async fn follow(folder: &Path, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut log = open(folder).expect("opens");
    let mut model = Model { term: 1, ..Model::default() };
    for step in steps {
        match step {
            Step::Append(count) => {
                let next = model.entries.last_key_value().map(|(last, _)| last + 1);
                let next = next.unwrap_or(model.purged.map_or(0, |purged| purged.index + 1));
                let new: Vec<_> = (next..next + u64::from(*count)).map(|n| entry(model.term, 2, n)).collect();
                append(&mut log, new.clone()).await;
                model.entries.extend(new.into_iter().map(|entry| (entry.log_id.index, entry)));
            }
            Step::Truncate(n) => {
                // raft truncates only what is not committed.
                let Some(id) = model.pick(*n).filter(|id| Some(*id) > model.committed) else {
                    continue;
                };
                log.truncate(id).await.expect("truncated");
                model.entries.split_off(&id.index);
            }
            Step::Purge(n) => {
                let Some(id) = model.pick(*n) else { continue };
                log.purge(id).await.expect("purged");
                model.entries = model.entries.split_off(&(id.index + 1));
                model.purged = Some(id);
                model.committed = model.committed.max(Some(id));
                log.save_committed(model.committed).await.expect("saved");
            }
            Step::Vote => {
                model.term += 1;
                model.vote = Some(Vote::new(model.term, 2));
                log.save_vote(&Vote::new(model.term, 2)).await.expect("saved");
            }
            Step::Commit(n) => {
                model.committed = model.committed.max(model.pick(*n));
                log.save_committed(model.committed).await.expect("saved");
            }
            Step::Reopen => {
                drop(log);
                log = open(folder).expect("opens");
            }
        }
        let found = Model {
            entries: entries(&mut log).await.into_iter().map(|entry| (entry.log_id.index, entry)).collect(),
            purged: log.get_log_state().await.expect("read").last_purged_log_id,
            vote: log.read_vote().await.expect("read"),
            committed: log.read_committed().await.expect("read"),
            term: model.term,
        };
        prop_assert_eq!(&found, &model);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_log_agrees_with_a_model_through_restarts(steps in steps()) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        runtime.block_on(follow(folder.path(), &steps))?;
    }

    #[test]
    fn a_flipped_byte_is_noticed_or_only_loses_the_last_write(position in 0..100u64) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        let all: Vec<_> = (0..6).map(|n| entry(1, 2, n)).collect();
        runtime.block_on(async {
            let mut log = open(folder.path()).expect("opens");
            for one in &all {
                append(&mut log, [one.clone()]).await;
            }
        });
        drop(open(folder.path()).expect("opens"));
        let at = offsets(folder.path(), 0);
        flip(folder.path(), 0, position * at[at.len() - 1] / 100);
        match open(folder.path()) {
            Ok(mut log) => {
                let found = runtime.block_on(entries(&mut log));
                prop_assert!(found == all || found == all[..5], "{found:?}");
            }
            Err(LogError::Damaged { .. }) => {}
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}
