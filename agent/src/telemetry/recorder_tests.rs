//! The recorder with its threads and its file.

use std::{fs, io::Write as _, time::Instant};

use super::*;
use crate::{
    cluster::{entry::Cause, ids::GroupId},
    telemetry::record::PhaseName,
};

const A: VoterId = VoterId(1);
const B: VoterId = VoterId(2);

fn names() -> BTreeMap<VoterId, Arc<str>> {
    [(A, "lb1".into()), (B, "lb2".into())].into()
}

/// Waits for a condition; the limit is for a machine that hangs.
fn until<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "it never came");
        thread::sleep(Duration::from_millis(5));
    }
}

fn changed(epoch: u64) -> Fact {
    Fact::OwnerChanged { group: GroupId::new("web"), epoch, from: Some(A), to: Some(B), cause: Cause::Silent }
}

#[test]
fn a_takeover_arrives_in_memory_at_followers_and_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(dir.path()).unwrap();
    let mut news = history.follow();
    let recorder = Recorder::start(B, names(), history.clone()).unwrap();
    let group = GroupId::new("web");
    let now = clock::now();
    recorder.mark(now, Mark::LastBeat { node: A });
    recorder.fact(now + 10, Fact::Silent(A));
    recorder.fact(now + 20, changed(5));
    for mark in [
        Mark::GateOpen { group: group.clone(), epoch: 5 },
        Mark::Announced { group: group.clone(), epoch: 5 },
        Mark::Started { group: group.clone(), epoch: 5 },
        Mark::FirstPacket { group, epoch: 5 },
    ] {
        recorder.mark(now + 30, mark);
    }
    let record = until(|| news.try_recv().ok());
    assert_eq!(
        (record.seq, record.group.as_deref(), record.from.as_deref(), record.to.as_deref()),
        (1, Some("web"), Some("lb1"), Some("lb2"))
    );
    assert_eq!((record.total_ns, record.at(PhaseName::Silent)), (30, Some(now + 10)));
    assert_eq!(history.since(0), std::slice::from_ref(&record));
    assert!(history.since(1).is_empty());
    let stats = history.stats();
    assert_eq!((stats.failovers[&Cause::Silent], stats.phases[&PhaseName::Silent].count()), (1, 1));

    // A crash in the middle of a line must cost that line alone, and numbers go on.
    let path = dir.path().join("failovers.jsonl");
    until(|| fs::read_to_string(&path).ok().filter(|t| t.ends_with("}\n")));
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"seq\":9,\"rec").unwrap();
    let again = History::open(dir.path()).unwrap();
    assert_eq!(*again.since(0)[0], *record);
    again.add((*record).clone());
    until(|| (History::open(dir.path()).unwrap().since(0).len() == 2).then_some(()));
    assert_eq!(History::open(dir.path()).unwrap().since(1)[0].seq, 2);
}

#[test]
fn the_end_of_the_recorder_tells_what_is_under_way() {
    let history = History::in_memory();
    let recorder = Recorder::start(B, names(), history.clone()).unwrap();
    recorder.fact(clock::now(), changed(2));
    drop(recorder);
    until(|| history.since(0).first().cloned());
}

#[test]
fn memory_stays_within_its_bound() {
    let history = History::in_memory();
    let recorder = Recorder::start(A, names(), history.clone()).unwrap();
    recorder.fact(clock::now(), changed(1));
    let model = until(|| history.since(0).first().cloned());
    for _ in 0..1_000 {
        history.add((*model).clone());
    }
    assert_eq!(history.since(0).len(), 256);
    assert_eq!(history.since(0).last().unwrap().seq, 1_001);
    assert_eq!(history.stats().failovers[&Cause::Silent], 1_001, "what is forgotten stays counted");
}
