//! The Noise handshake (NNpsk0): both sides prove that they hold the cluster key and say who they are.
//!
//! A third, empty frame of the dialler proves that it is alive: a recorded first message cannot make a connection.

use blake2::{
    Blake2sMac,
    digest::{FixedOutput, KeyInit, Update, consts::U32},
};
use snow::{Builder, HandshakeState, StatelessTransportState, params::NoiseParams};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::limits::TAG_BYTES;
use crate::cluster::ids::{Incarnation, VoterId};

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = b"baton rpc";
/// Grows when two versions can no longer talk to each other.
pub(super) const PROTOCOL: u16 = 1;
const HELLO_BYTES: usize = 21;
/// A Curve25519 key, the hello and its tag.
const HANDSHAKE_BYTES: usize = 32 + HELLO_BYTES + TAG_BYTES;

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("the connection broke during the handshake")]
    Io(#[from] std::io::Error),
    #[error("the other side does not hold this cluster's key, or does not speak this protocol")]
    Noise(#[from] snow::Error),
    #[error("the other side sent something that is no handshake")]
    Malformed,
    #[error("the other side speaks protocol {theirs}, this agent {PROTOCOL}: run the same version on all machines")]
    Protocol { theirs: u16 },
    #[error("the other side belongs to another cluster that uses the same key: give each cluster its own key")]
    Cluster,
    #[error("voter {theirs} answered where voter {expected} was expected: compare the addresses in the configurations")]
    Voter { expected: VoterId, theirs: VoterId },
}

/// What each side says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub cluster: u64,
    pub from: VoterId,
    pub to: VoterId,
    pub link: u8,
    pub incarnation: Incarnation,
}

impl Hello {
    fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[..2].copy_from_slice(&PROTOCOL.to_le_bytes());
        bytes[2..10].copy_from_slice(&self.cluster.to_le_bytes());
        bytes[10] = self.from.0;
        bytes[11] = self.to.0;
        bytes[12] = self.link;
        bytes[13..].copy_from_slice(&self.incarnation.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, HandshakeError> {
        // The version comes first, so that it can be named even when the rest changes.
        let version: [u8; 2] = bytes.get(..2).and_then(|b| b.try_into().ok()).ok_or(HandshakeError::Malformed)?;
        let theirs = u16::from_le_bytes(version);
        if theirs != PROTOCOL {
            return Err(HandshakeError::Protocol { theirs });
        }
        let bytes: [u8; HELLO_BYTES] = bytes.try_into().map_err(|_| HandshakeError::Malformed)?;
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        Ok(Self {
            cluster: word(2),
            from: VoterId(bytes[10]),
            to: VoterId(bytes[11]),
            link: bytes[12],
            incarnation: word(13),
        })
    }
}

/// What both sides derive from the configuration.
#[derive(Clone)]
pub(super) struct Secret {
    psk: [u8; 32],
    /// The cluster's name, hashed with the key.
    pub cluster: u64,
}

impl Secret {
    /// Derives the pre-shared key from the cluster key; the domain keeps it apart from the heartbeats' key.
    pub fn new(cluster_key: &[u8], cluster: &str) -> Self {
        let psk = derive(cluster_key, b"baton rpc psk 1", b"");
        let name = derive(cluster_key, b"baton rpc name 1", cluster.as_bytes());
        let mut word = [0; 8];
        word.copy_from_slice(&name[..8]);
        Self { psk, cluster: u64::from_le_bytes(word) }
    }

    fn builder(&self) -> Result<Builder<'_>, HandshakeError> {
        let params: NoiseParams = PATTERN.parse()?;
        Ok(Builder::new(params).psk(0, &self.psk)?.prologue(PROLOGUE)?)
    }
}

/// BLAKE2s over domain and data, keyed by the digest of the cluster key (which may have any length).
fn derive(cluster_key: &[u8], domain: &[u8], data: &[u8]) -> [u8; 32] {
    use blake2::{Blake2s256, Digest};
    let key = Blake2s256::digest(cluster_key);
    let mut mac = <Blake2sMac<U32> as KeyInit>::new(&key);
    Update::update(&mut mac, &(domain.len() as u64).to_le_bytes());
    Update::update(&mut mac, domain);
    Update::update(&mut mac, data);
    mac.finalize_fixed().into()
}

/// The dialler's side.
pub(super) async fn initiate(
    stream: &mut TcpStream,
    secret: &Secret,
    hello: Hello,
) -> Result<(StatelessTransportState, Hello), HandshakeError> {
    let mut noise = secret.builder()?.build_initiator()?;
    write(stream, &mut noise, &hello).await?;
    let theirs = read(stream, &mut noise).await?;
    check(&theirs, &hello)?;
    if theirs.from != hello.to {
        return Err(HandshakeError::Voter { expected: hello.to, theirs: theirs.from });
    }
    let transport = noise.into_stateless_transport_mode()?;
    let mut alive = [0; TAG_BYTES];
    transport.write_message(0, &[], &mut alive)?;
    write_frame(stream, &alive).await?;
    Ok((transport, theirs))
}

/// The listener's side; `answer` makes its hello out of the dialler's.
pub(super) async fn respond(
    stream: &mut TcpStream,
    secret: &Secret,
    answer: impl FnOnce(&Hello) -> Hello,
) -> Result<(StatelessTransportState, Hello), HandshakeError> {
    let mut noise = secret.builder()?.build_responder()?;
    let theirs = read(stream, &mut noise).await?;
    let hello = answer(&theirs);
    check(&theirs, &hello)?;
    write(stream, &mut noise, &hello).await?;
    let transport = noise.into_stateless_transport_mode()?;
    let mut alive = [0; TAG_BYTES];
    read_frame(stream, &mut alive).await?;
    transport.read_message(0, &alive, &mut [])?;
    Ok((transport, theirs))
}

fn check(theirs: &Hello, mine: &Hello) -> Result<(), HandshakeError> {
    if theirs.cluster != mine.cluster {
        return Err(HandshakeError::Cluster);
    }
    if theirs.to != mine.from {
        return Err(HandshakeError::Voter { expected: theirs.to, theirs: mine.from });
    }
    Ok(())
}

async fn write(stream: &mut TcpStream, noise: &mut HandshakeState, hello: &Hello) -> Result<(), HandshakeError> {
    let mut message = [0; HANDSHAKE_BYTES];
    let length = noise.write_message(&hello.encode(), &mut message)?;
    write_frame(stream, &message[..length]).await
}

async fn read(stream: &mut TcpStream, noise: &mut HandshakeState) -> Result<Hello, HandshakeError> {
    let mut message = [0; HANDSHAKE_BYTES];
    read_frame(stream, &mut message).await?;
    let mut payload = [0; HANDSHAKE_BYTES];
    let length = noise.read_message(&message, &mut payload)?;
    Hello::decode(&payload[..length])
}

async fn write_frame(stream: &mut TcpStream, frame: &[u8]) -> Result<(), HandshakeError> {
    let length = u16::try_from(frame.len()).map_err(|_| HandshakeError::Malformed)?;
    let mut bytes = Vec::with_capacity(2 + frame.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(frame);
    stream.write_all(&bytes).await?;
    Ok(())
}

/// Reads a frame of exactly the expected length: nothing in the handshake varies.
async fn read_frame(stream: &mut TcpStream, frame: &mut [u8]) -> Result<(), HandshakeError> {
    if usize::from(stream.read_u16().await?) != frame.len() {
        return Err(HandshakeError::Malformed);
    }
    stream.read_exact(frame).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello { cluster: 9, from: VoterId(1), to: VoterId(2), link: 1, incarnation: 77 }
    }

    #[test]
    fn a_hello_survives_the_round_trip() {
        assert_eq!(Hello::decode(&hello().encode()).expect("valid"), hello());
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = hello().encode();
        bytes[0] = 200;
        assert!(matches!(Hello::decode(&bytes), Err(HandshakeError::Protocol { theirs: 200 })));
        assert!(matches!(Hello::decode(&[1, 0, 3]), Err(HandshakeError::Malformed)));
    }

    #[test]
    fn keys_names_and_domains_are_kept_apart() {
        let a = Secret::new(b"key", "one");
        let b = Secret::new(b"key", "two");
        let c = Secret::new(b"other", "one");
        assert_eq!(a.psk, b.psk);
        assert_ne!(a.cluster, b.cluster);
        assert_ne!(a.psk, c.psk);
        assert_ne!(a.cluster, c.cluster);
    }
}
