//! Heads of HTTP/1.1 messages (RFC 9112), as much of them as client and server of a load need.

use std::io;

/// A head that is longer is none.
const HEAD_MAX: usize = 16 * 1024;

/// A parsed head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The first line.
    pub start: String,
    /// Bytes of the head, the empty line included: the body begins there.
    pub bytes: usize,
    /// The value of Content-Length.
    pub length: Option<u64>,
    /// Whether the connection ends with this message.
    pub close: bool,
    /// Whether a change to another protocol is asked for or granted.
    pub upgrade: bool,
}

/// The head at the start of `bytes`, once all of it is there.
pub fn head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let Some(end) = bytes.windows(4).take(HEAD_MAX).position(|w| w == b"\r\n\r\n") else {
        return if bytes.len() > HEAD_MAX { Err(wrong("a head without an end")) } else { Ok(None) };
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| wrong("a head that is no text"))?;
    let mut lines = text.split("\r\n");
    let start = lines.next().unwrap_or_default().to_owned();
    let mut head = Head { start, bytes: end + 4, length: None, close: false, upgrade: false };
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| wrong("a field without a colon"))?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            head.length = Some(value.parse().map_err(|_| wrong("an odd Content-Length"))?);
        } else if name.eq_ignore_ascii_case("connection") {
            let has = |token: &str| value.split(',').any(|word| word.trim().eq_ignore_ascii_case(token));
            head.close |= has("close");
            head.upgrade |= has("upgrade");
        }
    }
    Ok(Some(head))
}

impl Head {
    /// The status of an answer.
    pub fn status(&self) -> Option<u16> {
        self.start.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()
    }

    /// Method and target of a request.
    pub fn request(&self) -> Option<(&str, &str)> {
        let mut words = self.start.split(' ');
        let (method, target) = (words.next()?, words.next()?);
        (words.next() == Some("HTTP/1.1")).then_some((method, target))
    }
}

/// An error for a message that is not what it should be.
pub fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_when_they_are_whole() {
        let text = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nConnection: Close\r\n\r\nhello";
        assert_eq!(head(&text[..40]).unwrap(), None);
        let found = head(text).unwrap().unwrap();
        assert_eq!((found.status(), found.length, found.close, found.upgrade), (Some(200), Some(5), true, false));
        assert_eq!(&text[found.bytes..], b"hello");
        let asked = head(b"GET /x HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\n\r\n").unwrap().unwrap();
        assert_eq!((asked.request(), asked.close, asked.upgrade), (Some(("GET", "/x")), false, true));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(head(b"HTTP/1.1 200 OK\r\nno field\r\n\r\n").is_err());
        assert!(head(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n").is_err());
        assert!(head(&vec![b'x'; HEAD_MAX + 4]).is_err());
    }
}
