//! One established connection: encryption, framing, and its two directions.
//!
//! A sender encrypts and writes in its own context; only what the socket does not take at once waits for the writer task.

use std::{
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use snow::StatelessTransportState;
use tokio::{net::TcpStream, sync::Notify, time::timeout};

use super::limits::{CHUNK_BYTES_MAX, FRAME_BYTES_MAX, MESSAGE_BYTES_MAX, QUEUE_BYTES_MAX, STUCK_TIMEOUT, TAG_BYTES};

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkEnd {
    #[error("the other side closed the connection")]
    Closed,
    #[error("the connection broke")]
    Io(#[from] io::Error),
    #[error("a frame was no valid ciphertext")]
    Ciphertext,
    #[error("a message was truncated, oversized or of an unknown kind")]
    Message,
    #[error("the other side took nothing for {STUCK_TIMEOUT:?}, or fell {QUEUE_BYTES_MAX} bytes behind")]
    Stuck,
    #[error("a newer connection or incarnation took its place")]
    Replaced,
}

/// An established, authenticated connection.
pub(super) struct Link {
    stream: TcpStream,
    noise: StatelessTransportState,
    out: Mutex<Out>,
    more: Notify,
    closed: AtomicBool,
    closing: Notify,
}

#[derive(Default)]
struct Out {
    nonce: u64,
    waiting: BytesMut,
    stuck: bool,
}

impl Link {
    /// `sent` is the number of frames that the handshake sent in this direction under the transport keys.
    pub fn new(stream: TcpStream, noise: StatelessTransportState, sent: u64) -> Self {
        Self {
            stream,
            noise,
            out: Mutex::new(Out { nonce: sent, ..Out::default() }),
            more: Notify::new(),
            closed: AtomicBool::new(false),
            closing: Notify::new(),
        }
    }

    /// The socket, for its options.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends a message, or what the socket does not take goes to the queue. Returns whether the connection took it.
    pub fn send(&self, message: &[u8]) -> bool {
        if self.closed.load(Relaxed) {
            return false;
        }
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if out.stuck || out.waiting.len() + message.len() > QUEUE_BYTES_MAX {
            out.stuck = true;
            self.close();
            return false;
        }
        let empty = out.waiting.is_empty();
        if !self.seal(&mut out, message) {
            self.close();
            return false;
        }
        if empty && self.flush(&mut out).is_err() {
            self.close();
            return false;
        }
        if !out.waiting.is_empty() {
            self.more.notify_one();
        }
        true
    }

    /// Encrypts a message into frames behind what waits already.
    fn seal(&self, out: &mut Out, message: &[u8]) -> bool {
        let mut chunks = message.chunks(CHUNK_BYTES_MAX).peekable();
        let mut plain = Vec::with_capacity(message.len().min(CHUNK_BYTES_MAX) + 1);
        while let Some(chunk) = chunks.next() {
            plain.clear();
            plain.push(u8::from(chunks.peek().is_none()));
            plain.extend_from_slice(chunk);
            let length = plain.len() + TAG_BYTES;
            let Ok(prefix) = u16::try_from(length) else {
                return false;
            };
            let at = out.waiting.len();
            out.waiting.extend_from_slice(&prefix.to_be_bytes());
            out.waiting.resize(at + 2 + length, 0);
            if self.noise.write_message(out.nonce, &plain, &mut out.waiting[at + 2..]).is_err() {
                return false;
            }
            out.nonce += 1;
        }
        true
    }

    /// Writes what the socket takes now. An error means that the connection is over.
    fn flush(&self, out: &mut Out) -> io::Result<()> {
        while !out.waiting.is_empty() {
            match self.stream.try_write(&out.waiting) {
                Ok(written) => out.waiting.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends the connection; [`Link::run`] returns.
    pub fn close(&self) {
        self.closed.store(true, Relaxed);
        self.closing.notify_one();
    }

    /// Runs the connection until it ends; each received message goes to `receive`, which says whether it was valid.
    /// `received` is the number of frames that the handshake received under the transport keys.
    pub async fn run(&self, received: u64, receive: impl FnMut(Bytes) -> bool) -> LinkEnd {
        let end = tokio::select! {
            end = self.read(received, receive) => end,
            end = self.write() => end,
            () = self.closing.notified() => {
                if self.out.lock().unwrap_or_else(PoisonError::into_inner).stuck { LinkEnd::Stuck } else { LinkEnd::Replaced }
            }
        };
        self.close();
        end
    }

    async fn write(&self) -> LinkEnd {
        loop {
            self.more.notified().await;
            loop {
                if self.out.lock().unwrap_or_else(PoisonError::into_inner).waiting.is_empty() {
                    break;
                }
                match timeout(STUCK_TIMEOUT, self.stream.writable()).await {
                    // A broken socket counts as writable for ever: without this end the loop would never let go of the thread.
                    Ok(Ok(())) => {
                        let flushed = self.flush(&mut self.out.lock().unwrap_or_else(PoisonError::into_inner));
                        if let Err(error) = flushed {
                            return error.into();
                        }
                    }
                    Ok(Err(error)) => return error.into(),
                    Err(_) => return LinkEnd::Stuck,
                }
            }
        }
    }

    async fn read(&self, received: u64, mut receive: impl FnMut(Bytes) -> bool) -> LinkEnd {
        let mut opener = Opener::new(received);
        loop {
            if let Err(error) = self.stream.readable().await {
                return error.into();
            }
            opener.input.reserve(1 << 14);
            match self.stream.try_read_buf(&mut opener.input) {
                Ok(0) => return LinkEnd::Closed,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return error.into(),
            }
            loop {
                match opener.open(&self.noise) {
                    Ok(Some(message)) => {
                        if !receive(message) {
                            return LinkEnd::Message;
                        }
                    }
                    Ok(None) => break,
                    Err(end) => return end,
                }
            }
            // A peer that always has more to say must not starve the others on this thread.
            tokio::task::consume_budget().await;
        }
    }
}

/// Decrypts frames and puts messages together.
struct Opener {
    nonce: u64,
    input: BytesMut,
    message: BytesMut,
    plain: Vec<u8>,
}

impl Opener {
    fn new(nonce: u64) -> Self {
        Self { nonce, input: BytesMut::new(), message: BytesMut::new(), plain: vec![0; FRAME_BYTES_MAX] }
    }

    /// The next whole message, or `None` when more bytes are needed.
    fn open(&mut self, noise: &StatelessTransportState) -> Result<Option<Bytes>, LinkEnd> {
        while let [high, low, rest @ ..] = &*self.input {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let Some(frame) = rest.get(..length) else {
                return Ok(None);
            };
            let size = noise.read_message(self.nonce, frame, &mut self.plain).map_err(|_| LinkEnd::Ciphertext)?;
            self.nonce += 1;
            self.input.advance(2 + length);
            let Some((last, chunk)) = self.plain[..size].split_first() else {
                return Err(LinkEnd::Message);
            };
            if self.message.len() + chunk.len() > MESSAGE_BYTES_MAX {
                return Err(LinkEnd::Message);
            }
            self.message.extend_from_slice(chunk);
            if *last != 0 {
                return Ok(Some(self.message.split().freeze()));
            }
        }
        Ok(None)
    }
}

/// The pause that a connection's end asks for before the next attempt.
pub(super) fn pause(end: &LinkEnd, usual: Duration) -> Duration {
    match end {
        // The machine answered a moment ago: try at once, its agent may have restarted.
        LinkEnd::Closed | LinkEnd::Io(_) => usual / 5,
        _ => usual,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use snow::Builder;

    use super::*;

    fn transports() -> (StatelessTransportState, StatelessTransportState) {
        let build = || Builder::new("Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s".parse().expect("pattern"));
        let mut one = build().psk(0, &[7; 32]).expect("key").build_initiator().expect("built");
        let mut two = build().psk(0, &[7; 32]).expect("key").build_responder().expect("built");
        let (mut wire, mut plain) = ([0; 100], [0; 100]);
        let length = one.write_message(&[], &mut wire).expect("written");
        two.read_message(&wire[..length], &mut plain).expect("read");
        let length = two.write_message(&[], &mut wire).expect("written");
        one.read_message(&wire[..length], &mut plain).expect("read");
        (one.into_stateless_transport_mode().expect("done"), two.into_stateless_transport_mode().expect("done"))
    }

    fn frame(noise: &StatelessTransportState, nonce: u64, plain: &[u8]) -> Vec<u8> {
        let mut wire = vec![0; plain.len() + TAG_BYTES];
        noise.write_message(nonce, plain, &mut wire).expect("written");
        [&u16::try_from(wire.len()).expect("short").to_be_bytes()[..], &wire].concat()
    }

    fn open_all(noise: &StatelessTransportState, input: &[u8]) -> Result<Vec<Bytes>, LinkEnd> {
        let mut opener = Opener::new(0);
        let mut messages = Vec::new();
        // Byte by byte: frames come in any pieces.
        for byte in input {
            opener.input.extend_from_slice(&[*byte]);
            while let Some(message) = opener.open(noise)? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    /// A reset socket is "writable" for ever; the writer must end there, not turn on the spot and starve the whole thread.
    #[test]
    fn the_writer_of_a_reset_connection_ends() {
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
                let stream = TcpStream::connect(listener.local_addr().expect("address")).await.expect("connected");
                let (other, _) = listener.accept().await.expect("accepted");
                socket2::SockRef::from(&other).set_linger(Some(std::time::Duration::ZERO)).expect("set");
                drop(other);
                let link = Link::new(stream, transports().0, 0);
                link.out.lock().expect("whole").waiting.extend_from_slice(b"waiting");
                link.more.notify_one();
                done.send(link.write().await.to_string()).expect("heard");
            });
        });
        ended.recv_timeout(std::time::Duration::from_secs(30)).expect("the writer ends");
    }

    #[test]
    fn frames_become_messages_whatever_pieces_they_come_in() {
        let (one, two) = transports();
        let input = [frame(&one, 0, b"\0ab"), frame(&one, 1, b"\x01cd"), frame(&one, 2, b"\x01")].concat();
        assert_eq!(open_all(&two, &input).expect("valid"), ["abcd", ""]);
    }

    #[test]
    fn a_frame_that_is_forged_replayed_or_empty_ends_the_connection() {
        let (one, two) = transports();
        let good = frame(&one, 0, b"\x01ab");
        for bit in 16..good.len() * 8 {
            let mut forged = good.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(open_all(&two, &forged), Err(LinkEnd::Ciphertext)), "bit {bit}");
        }
        assert!(matches!(open_all(&two, &[&good[..], &good[..]].concat()), Err(LinkEnd::Ciphertext)));
        assert!(matches!(open_all(&two, &frame(&one, 0, b"")), Err(LinkEnd::Message)));
    }

    #[test]
    fn a_message_without_end_is_refused_at_the_bound() {
        let (one, two) = transports();
        let mut opener = Opener::new(0);
        let chunk = vec![0; CHUNK_BYTES_MAX + 1];
        let end = (0..1000).find_map(|nonce| {
            opener.input.extend_from_slice(&frame(&one, nonce, &chunk));
            opener.open(&two).err()
        });
        assert!(matches!(end, Some(LinkEnd::Message)));
        assert!(opener.message.len() <= MESSAGE_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn random_bytes_are_never_a_message(input: Vec<u8>) {
            let (_, two) = transports();
            let opened = open_all(&two, &input);
            prop_assert!(opened.is_err() || opened.is_ok_and(|messages| messages.is_empty()));
        }
    }
}
