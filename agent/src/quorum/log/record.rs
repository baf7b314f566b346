//! The records of the log and their frames on disk.
//!
//! ```text
//! magic u32 | crc32c u32 | length u32 | 0 u32 | segment u64 | durable u64 | payload (JSON), padded to 8 bytes
//! ```
//! Little-endian; the checksum covers everything behind it. `durable` is the offset up to which the segment was known to
//! be on disk when the record was written: it tells a torn tail (never acknowledged) from damage (acknowledged once).

use serde::{Deserialize, Serialize};

use crate::quorum::types::{LogEntry, LogId, Vote};

const MAGIC: u32 = u32::from_le_bytes(*b"BTNL");
/// Bytes before the payload.
pub(super) const HEADER_BYTES: usize = 32;
/// Records begin at multiples of this.
pub(super) const ALIGNMENT: usize = 8;

/// A record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Record {
    /// The first record of a segment: what the segments before it said, so that they can go.
    Head {
        vote: Option<Vote>,
        committed: Option<LogId>,
        purged: Option<LogId>,
        /// Where the records of the segment before end.
        previous_end: u64,
    },
    Vote(Vote),
    Committed(LogId),
    Entry(LogEntry),
    /// Entries from this index on are gone.
    Truncate(u64),
    /// Entries up to this one are gone; a snapshot covers them.
    Purge(LogId),
}

/// Appends a record's frame to `out`.
pub(super) fn encode(record: &Record, segment: u64, durable: u64, out: &mut Vec<u8>) -> std::io::Result<()> {
    let at = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    serde_json::to_writer(&mut *out, record)?;
    let length = u32::try_from(out.len() - at - HEADER_BYTES)
        .map_err(|_| std::io::Error::other("a log record is larger than 4 GiB"))?;
    let header = &mut out[at..at + HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC.to_le_bytes());
    header[8..12].copy_from_slice(&length.to_le_bytes());
    header[16..24].copy_from_slice(&segment.to_le_bytes());
    header[24..32].copy_from_slice(&durable.to_le_bytes());
    let checksum = crc32c::crc32c(&out[at + 8..]);
    out[at + 4..at + 8].copy_from_slice(&checksum.to_le_bytes());
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    Ok(())
}

/// A frame that was found whole.
pub(super) struct Found {
    pub record: Record,
    /// The segment's durable length when it was written.
    pub durable: u64,
    /// Bytes that it takes, padding included.
    pub size: usize,
}

/// The record at the start of `bytes`, if a whole and sound one of this segment stands there.
pub(super) fn decode(bytes: &[u8], segment: u64) -> Option<Found> {
    let header = bytes.get(..HEADER_BYTES)?;
    let u32_at = |at: usize| Some(u32::from_le_bytes(header.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(header.get(at..at + 8)?.try_into().ok()?));
    if u32_at(0)? != MAGIC || u64_at(16)? != segment {
        return None;
    }
    let length = usize::try_from(u32_at(8)?).ok()?;
    let end = HEADER_BYTES.checked_add(length)?;
    let frame = bytes.get(..end)?;
    if crc32c::crc32c(&frame[8..]) != u32_at(4)? {
        return None;
    }
    let record = serde_json::from_slice(&frame[HEADER_BYTES..]).ok()?;
    Some(Found { record, durable: u64_at(24)?, size: end.next_multiple_of(ALIGNMENT) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn any_flipped_bit_is_noticed() {
        let mut frame = Vec::new();
        encode(&Record::Vote(Vote::new(7, 2)), 3, 4096, &mut frame).expect("encodes");
        let found = decode(&frame, 3).expect("sound");
        assert_eq!((found.record, found.durable, found.size), (Record::Vote(Vote::new(7, 2)), 4096, frame.len()));
        assert!(decode(&frame, 4).is_none());
        let padding =
            frame.len() - (HEADER_BYTES + serde_json::to_vec(&Record::Vote(Vote::new(7, 2))).expect("json").len());
        for bit in 0..(frame.len() - padding) * 8 {
            frame[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&frame, 3).is_none(), "bit {bit}");
            frame[bit / 8] ^= 1 << (bit % 8);
        }
    }

    proptest! {
        #[test]
        fn random_bytes_are_no_record(bytes: Vec<u8>) {
            prop_assert!(decode(&bytes, 0).is_none());
        }
    }
}
