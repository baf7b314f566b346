//! Which messages of a peer have come already, and the replies that were given: so that copies over other links do nothing.

use std::collections::VecDeque;

use bytes::Bytes;

use super::limits::{REPLIES_BYTES_MAX, REPLIES_MAX, WINDOW};

const WORDS: usize = (WINDOW / 64) as usize;

/// The newest [`WINDOW`] message ids of one incarnation of a peer. Anything older counts as seen.
#[derive(Debug)]
pub(super) struct Window {
    highest: u64,
    seen: [u64; WORDS],
}

impl Default for Window {
    fn default() -> Self {
        Self { highest: 0, seen: [0; WORDS] }
    }
}

impl Window {
    /// Marks an id as seen; returns whether it was new.
    pub fn is_new(&mut self, id: u64) -> bool {
        if id > self.highest {
            // Clear the bits of the ids in between: they belonged to ids one window older.
            let skipped = (id - self.highest).min(WINDOW);
            for between in id - skipped + 1..=id {
                let (word, bit) = Self::place(between);
                self.seen[word] &= !bit;
            }
            self.highest = id;
        } else if self.highest - id >= WINDOW {
            return false;
        }
        let (word, bit) = Self::place(id);
        let new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        new
    }

    fn place(id: u64) -> (usize, u64) {
        let position = id % WINDOW;
        ((position / 64) as usize, 1 << (position % 64))
    }
}

/// The last replies that were given, encoded, by request id.
#[derive(Debug, Default)]
pub(super) struct Replies {
    kept: VecDeque<(u64, Bytes)>,
    bytes: usize,
}

impl Replies {
    /// Keeps a reply, within the bounds.
    pub fn keep(&mut self, id: u64, reply: Bytes) {
        self.bytes += reply.len();
        self.kept.push_back((id, reply));
        while self.kept.len() > REPLIES_MAX || self.bytes > REPLIES_BYTES_MAX {
            let Some((_, oldest)) = self.kept.pop_front() else {
                break;
            };
            self.bytes -= oldest.len();
        }
    }

    /// The reply to a request, if it is still kept.
    pub fn find(&self, id: u64) -> Option<Bytes> {
        self.kept.iter().rev().find(|(kept, _)| *kept == id).map(|(_, reply)| reply.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_older_than_the_window_counts_as_seen() {
        let mut window = Window::default();
        assert!(window.is_new(1));
        assert!(window.is_new(1 + WINDOW));
        assert!(!window.is_new(1));
        assert!(window.is_new(2));
        assert!(!window.is_new(2));
    }

    #[test]
    fn the_oldest_replies_go_first() {
        let mut replies = Replies::default();
        for id in 0..=REPLIES_MAX as u64 {
            replies.keep(id, Bytes::from_static(b"x"));
        }
        assert_eq!(replies.find(0), None);
        assert_eq!(replies.find(1), Some(Bytes::from_static(b"x")));
        replies.keep(1000, Bytes::from(vec![0; REPLIES_BYTES_MAX + 1]));
        assert_eq!(replies.find(1000), None);
        assert_eq!(replies.bytes, 0);
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_set(ids in prop::collection::vec(1u64..3 * WINDOW, 0..400)) {
            let mut window = Window::default();
            let mut seen = BTreeSet::new();
            let mut highest = 0;
            for id in ids {
                highest = highest.max(id);
                let expected = highest - id < WINDOW && !seen.contains(&id);
                prop_assert_eq!(window.is_new(id), expected);
                seen.insert(id);
            }
        }
    }
}
