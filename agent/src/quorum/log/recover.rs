//! Reading the segments back at the start.

use std::{collections::BTreeMap, fs, io, path::Path};

use super::{
    LogError,
    record::{ALIGNMENT, Record, decode},
    segment,
};
use crate::quorum::types::{LogEntry, LogId, Vote};

/// What the segments said.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    pub entries: BTreeMap<u64, LogEntry>,
    /// Every segment but the last, with the largest index of an entry in it.
    pub sealed: Vec<(u64, u64)>,
    /// The segment to go on with.
    pub segment: u64,
    /// Where its records end; 0 means that it has none.
    pub end: u64,
    /// The largest index of an entry in it.
    pub largest: u64,
    /// Where the records of the segment before it end.
    pub previous_end: u64,
    /// Bytes of a torn write that were left out.
    pub torn: bool,
}

impl Recovered {
    fn take(&mut self, record: Record) -> Result<(), &'static str> {
        match record {
            Record::Head { vote, committed, purged, .. } => {
                self.vote = vote;
                self.committed = committed;
                self.purged = purged;
                self.drop_purged();
            }
            Record::Vote(vote) => self.vote = Some(vote),
            Record::Committed(id) => self.committed = Some(id),
            Record::Entry(entry) => {
                let index = entry.log_id.index;
                if self.entries.last_key_value().is_some_and(|(last, _)| index != last + 1) {
                    return Err("an entry does not follow the one before it");
                }
                self.largest = self.largest.max(index);
                self.entries.insert(index, entry);
            }
            Record::Truncate(since) => {
                self.entries.split_off(&since);
            }
            Record::Purge(upto) => {
                self.purged = Some(upto);
                self.drop_purged();
            }
        }
        Ok(())
    }

    fn drop_purged(&mut self) {
        if let Some(purged) = self.purged {
            self.entries = self.entries.split_off(&(purged.index + 1));
        }
    }
}

/// Reads every segment of the folder. Nothing is changed on disk.
pub(super) fn recover(folder: &Path) -> Result<Recovered, LogError> {
    let io = |source: io::Error| LogError::Io { path: folder.to_owned(), source };
    let all = segment::list(folder).map_err(io)?;
    // Removal goes from the front, but the order in which names vanish is the file system's: take the run at the end.
    let first = all.iter().rev().zip(all.iter().rev().skip(1)).find(|(later, earlier)| **later != **earlier + 1);
    let first = first.map_or(all.first().copied(), |(later, _)| Some(*later));
    let mut recovered = Recovered::default();
    let mut ended = false;
    for number in all.into_iter().filter(|number| Some(*number) >= first) {
        let path = segment::path(folder, number);
        let damage = |offset, what| LogError::Damaged { path: path.clone(), offset, what };
        let bytes = fs::read(&path).map_err(|source| LogError::Io { path: path.clone(), source })?;
        let (records, end) = scan(&bytes, number).map_err(|(offset, what)| damage(offset, what))?;
        if records.is_empty() && Some(number) != first {
            // Made ahead of time, not yet used.
            recovered.torn |= end.1;
            ended = true;
            continue;
        }
        if ended {
            return Err(damage(0, "it has records, but the segment before it has none"));
        }
        match records.first() {
            Some(Record::Head { previous_end, .. }) => {
                if Some(number) != first && *previous_end != recovered.end {
                    let path = segment::path(folder, number - 1);
                    let what = "records that were acknowledged are missing at its end";
                    return Err(LogError::Damaged { path, offset: recovered.end, what });
                }
                if Some(number) != first {
                    recovered.sealed.push((recovered.segment, recovered.largest));
                }
                recovered.previous_end = *previous_end;
            }
            Some(_) => return Err(damage(0, "it does not begin with a head")),
            None => {}
        }
        (recovered.segment, recovered.largest) = (number, 0);
        for record in records {
            recovered.take(record).map_err(|what| damage(end.0, what))?;
        }
        recovered.end = end.0;
        recovered.torn |= end.1;
    }
    let next = recovered.purged.map_or(0, |purged| purged.index + 1);
    if recovered.entries.first_key_value().is_some_and(|(index, _)| *index != next) {
        let path = segment::path(folder, recovered.segment);
        return Err(LogError::Damaged { path, offset: 0, what: "the entries before its first one are missing" });
    }
    Ok(recovered)
}

type Scanned = (Vec<Record>, (u64, bool));

/// The records of one segment, where they end, and whether something torn stands behind the end.
fn scan(bytes: &[u8], number: u64) -> Result<Scanned, (u64, &'static str)> {
    let mut records = Vec::new();
    let mut offset = 0;
    while let Some(found) = bytes.get(offset..).and_then(|rest| decode(rest, number)) {
        records.push(found.record);
        offset += found.size;
    }
    let rest = bytes.get(offset..).unwrap_or_default();
    if rest.iter().all(|byte| *byte == 0) {
        return Ok((records, (offset as u64, false)));
    }
    // A record behind the gap that knew the gap as durable proves that the gap once held acknowledged records.
    for step in (ALIGNMENT..rest.len()).step_by(ALIGNMENT) {
        if decode(&rest[step..], number).is_some_and(|found| found.durable > offset as u64) {
            return Err((offset as u64, "a record that was acknowledged is unreadable"));
        }
    }
    Ok((records, (offset as u64, true)))
}
