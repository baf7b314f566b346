//! One request by HTTP, strictly bounded. It says that it speaks HTTP/1.0, so that no answer comes in chunks.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::config::kinds::Http;

/// No status line and no head is longer.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// So much of a page is looked through.
const BODY_BYTES_MAX: usize = 1 << 20;
const STATUS_LINE_BYTES_MAX: usize = 1 << 10;

/// Asks for a page; why it is not well, in words.
pub async fn get(page: &Http) -> Result<(), String> {
    let mut stream = TcpStream::connect(&page.address).await.map_err(|e| e.to_string())?;
    let request = format!(
        "GET {} HTTP/1.0\r\nHost: {}\r\nUser-Agent: baton/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        page.path,
        page.host,
        env!("CARGO_PKG_VERSION")
    );
    stream.write_all(request.as_bytes()).await.map_err(|e| e.to_string())?;
    let mut answer = Answer { stream, bytes: Vec::new() };
    let line_end = answer.until(b"\n", 0, STATUS_LINE_BYTES_MAX).await?.ok_or("it answers with no status line")?;
    let status = status(answer.bytes.get(..line_end).unwrap_or_default()).ok_or("it does not answer by HTTP")?;
    let well = page.status.map_or((200..400).contains(&status), |wanted| wanted == status);
    if !well {
        let wanted = page.status.map_or_else(|| "200 to 399".to_owned(), |s| s.to_string());
        return Err(format!("status {status}, not {wanted}"));
    }
    let Some(contains) = &page.contains else { return Ok(()) };
    let head = answer.until(b"\r\n\r\n", 0, HEAD_BYTES_MAX).await?.ok_or("its head has no end")?;
    match answer.until(contains.as_bytes(), head, head + BODY_BYTES_MAX).await? {
        Some(_) => Ok(()),
        None => Err(format!("the page does not have \"{}\" in its first MiB", contains.escape_debug())),
    }
}

struct Answer {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Answer {
    /// Reads until some bytes have come at or after `from`; the end of them, or `None` when the answer ends before, or at `limit`.
    async fn until(&mut self, wanted: &[u8], from: usize, limit: usize) -> Result<Option<usize>, String> {
        let mut at = from;
        loop {
            let tail = self.bytes.get(at..).unwrap_or_default();
            if let Some(found) = tail.windows(wanted.len().max(1)).position(|window| window == wanted) {
                return Ok(Some(at + found + wanted.len()));
            }
            // What was looked through is not looked through again, but for a beginning of what is wanted.
            at = from.max((self.bytes.len() + 1).saturating_sub(wanted.len()));
            if self.bytes.len() >= limit {
                return Ok(None);
            }
            let mut more = [0; 4 << 10];
            match self.stream.read(&mut more).await.map_err(|e| e.to_string())? {
                0 => return Ok(None),
                n => self.bytes.extend(more.get(..n).unwrap_or_default()),
            }
        }
    }
}

/// "HTTP/1.1 200 OK".
fn status(line: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(line).ok()?;
    let rest = line.strip_prefix("HTTP/1.")?;
    let code = rest.get(1..)?.strip_prefix(' ')?.get(..3)?;
    code.bytes().all(|b| b.is_ascii_digit()).then(|| code.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_line_has_a_status() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 503\n"), Some(503));
        for bad in [&b""[..], b"HTTP/1.1", b"HTTP/1.1 2x0 OK", b"HTTP/2 200", b"SSH-2.0-x", b"\xff\xfe", b"HTTP/1.1 20"]
        {
            assert_eq!(status(bad), None, "{bad:?}");
        }
    }
}
