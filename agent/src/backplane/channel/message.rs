//! The messages inside the encrypted frames: `kind u8 | method u8 | id u64 little-endian | body`.

use bytes::{BufMut, Bytes, BytesMut};

use super::limits::MESSAGE_BYTES_MAX;

/// Bytes before the body.
pub(super) const HEADER_BYTES: usize = 10;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// A request; its id names it to the receiver.
    Request = 1,
    /// A request that may have come before over a connection that died: answer it again if it was answered.
    Again = 2,
    /// The reply to the request of that id.
    Reply = 3,
    /// The request of that id could not be answered; the body is the reason.
    Failure = 4,
    /// A message without reply.
    OneWay = 5,
}

/// A decoded message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub kind: Kind,
    pub method: u8,
    pub id: u64,
    pub body: Bytes,
}

/// Encodes a message; `None` when it is larger than [`MESSAGE_BYTES_MAX`].
pub(super) fn encode(kind: Kind, method: u8, id: u64, body: &[u8]) -> Option<Bytes> {
    if body.len() > MESSAGE_BYTES_MAX - HEADER_BYTES {
        return None;
    }
    let mut message = BytesMut::with_capacity(HEADER_BYTES + body.len());
    message.put_u8(kind as u8);
    message.put_u8(method);
    message.put_u64_le(id);
    message.put_slice(body);
    Some(message.freeze())
}

/// Decodes a message; `None` when it is truncated or of an unknown kind.
pub(super) fn decode(message: Bytes) -> Option<Message> {
    let header: [u8; HEADER_BYTES] = message.get(..HEADER_BYTES)?.try_into().ok()?;
    let [kind, method, id @ ..] = header;
    let kind = match kind {
        1 => Kind::Request,
        2 => Kind::Again,
        3 => Kind::Reply,
        4 => Kind::Failure,
        5 => Kind::OneWay,
        _ => return None,
    };
    Some(Message { kind, method, id: u64::from_le_bytes(id), body: message.slice(HEADER_BYTES..) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_survives_the_round_trip() {
        let bytes = encode(Kind::Again, 7, u64::MAX - 1, b"body").expect("small enough");
        let message = decode(bytes).expect("valid");
        assert_eq!(
            message,
            Message { kind: Kind::Again, method: 7, id: u64::MAX - 1, body: Bytes::from_static(b"body") }
        );
    }

    #[test]
    fn an_oversized_body_is_refused() {
        assert_eq!(encode(Kind::Request, 0, 1, &vec![0; MESSAGE_BYTES_MAX]), None);
    }

    proptest! {
        #[test]
        fn random_bytes_are_decoded_or_refused_but_never_misread(bytes: Vec<u8>) {
            if let Some(message) = decode(Bytes::from(bytes.clone())) {
                let again = encode(message.kind, message.method, message.id, &message.body);
                prop_assert_eq!(again, Some(Bytes::from(bytes)));
            }
        }
    }
}
