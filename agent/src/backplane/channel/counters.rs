//! What the channel counts; all of it is exposed as metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The counters; each only grows.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: AtomicU64),* }

        impl Counters {
            /// Every counter with its name, for the metrics.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Relaxed))),*]
            }
        }
    };
}

counters! {
    /// Connections that finished the handshake.
    connections,
    /// Connections that ended.
    disconnections,
    /// Connections refused: the source address is no peer's address on that link.
    strangers,
    /// Connections refused: too many were in the handshake.
    crowded,
    /// Handshakes that failed: wrong key, random bytes, another cluster or version.
    bad_handshakes,
    /// Handshakes that took too long.
    slow_handshakes,
    /// Frames that were no valid ciphertext, or messages that were truncated, oversized or unknown.
    bad_frames,
    /// Connections dropped because the other side took nothing for too long.
    stuck,
    /// Copies of messages that had come over another link already.
    duplicates,
    /// One-way messages dropped because the receiver was behind.
    one_way_dropped,
    /// Requests dropped because too many of that peer were being worked on.
    requests_dropped,
    /// Replies to calls that were over already (the slower link, or a deadline).
    late_replies,
    /// Requests sent again over a connection that came up while they waited.
    sent_again,
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
