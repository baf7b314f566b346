//! Every bound of the channel, in one place.

use std::time::Duration;

/// Largest message (request, reply or one-way), header included, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Largest Noise message (Noise specification, section 3), tag included.
pub const FRAME_BYTES_MAX: usize = 65_535;
/// Bytes that the authentication tag adds to a frame.
pub const TAG_BYTES: usize = 16;
/// Bytes of a message that one frame carries: one byte says whether it is the last.
pub const CHUNK_BYTES_MAX: usize = FRAME_BYTES_MAX - TAG_BYTES - 1;
/// Bytes that may wait in one connection; a connection that falls further behind is dropped.
pub const QUEUE_BYTES_MAX: usize = 8 << 20;
/// Calls to one peer that may wait for a reply.
pub const PENDING_MAX: usize = 256;
/// Requests of one peer that may be worked on at once; more are dropped and counted.
pub const REQUESTS_MAX: usize = 256;
/// One-way messages that may wait for the receiver; more are dropped and counted.
pub const ONE_WAY_MAX: usize = 1024;
/// Message ids of one peer that are remembered, to drop the copies of other links.
pub const WINDOW: u64 = 4096;
/// Replies kept to be sent again when a request comes again over a new connection.
pub const REPLIES_MAX: usize = 64;
/// Bytes of replies kept for the same purpose.
pub const REPLIES_BYTES_MAX: usize = 1 << 20;
/// Connections that may be in the handshake at once, on all links together.
pub const HANDSHAKES_MAX: usize = 32;
/// How long a handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long connect(2) may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);
/// Between two attempts to connect: short, so that a healed link is used soon; constant, so that it stays cheap.
pub const CONNECT_PAUSE: Duration = Duration::from_millis(50);
/// How long sent bytes may stay unacknowledged (TCP_USER_TIMEOUT), or unsendable.
pub const STUCK_TIMEOUT: Duration = Duration::from_millis(400);
/// Between two attempts to listen on a link's address.
pub const LISTEN_PAUSE: Duration = Duration::from_millis(500);
/// SO_PRIORITY: the highest without CAP_NET_ADMIN (socket(7)), band 0 of pfifo_fast.
pub const PRIORITY: u32 = 6;
