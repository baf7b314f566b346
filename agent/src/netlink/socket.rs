//! A netlink socket for requests: batches in one system call, their acknowledgements, single reads and dumps.
//!
//! The kernel carries requests out inside sendmsg(2) and has queued all answers when it returns, so nothing here waits
//! longer than the kernel works; a receive timeout bounds the reading. Inside sendmsg(2) the kernel may wait for its own
//! configuration lock (rtnl), which nobody can bound: another process that configures the network holds it meanwhile.

use std::{ops::Range, time::Duration};

use netlink_packet_core::{Emitable, NLM_F_DUMP, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR};
use netlink_sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_ROUTE, NETLINK_SOCK_DIAG},
};
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send, sockopt},
};

use super::{
    batch::Batch,
    error::NetlinkError,
    wire::{self, Message},
};

/// How long an answer is waited for.
pub const ANSWER_TIMEOUT: Duration = Duration::from_millis(250);
/// The largest number of requests in one sendmsg(2): bounds the refusals that the receive queue must hold.
pub const BATCH_MAX: usize = 1024;
/// Receive queue: BATCH_MAX refusals of about 1 KiB each, twice over.
const RECEIVE_QUEUE_BYTES: usize = 4 << 20;
/// Send queue: sendmsg(2) refuses datagrams larger than this.
const SEND_QUEUE_BYTES: usize = 1 << 20;
/// The kernel's dumps come in datagrams of at most 32 KiB.
const BUFFER_BYTES: usize = 64 << 10;
/// How many datagrams are read at most for one answer.
const READS_MAX: usize = 1 << 16;
/// How often a dump that the kernel calls inconsistent is repeated.
const DUMP_TRIES: usize = 4;
/// NLM_F_CAPPED and NLM_F_ACK_TLVS on an error message (linux/netlink.h).
const ACK_TLVS: u16 = 0x200;
/// NLMSGERR_ATTR_MSG: the kernel's explanation of a refusal.
const ATTR_MSG: u16 = 1;

/// A message that was kept from a dump or a read: RTM_* type and payload.
pub type Kept = (u16, Vec<u8>);

/// A socket for requests to the kernel's network configuration. One thread uses it at a time.
pub struct RequestSocket {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for RequestSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestSocket").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// An `io::Error` of netlink-sys as an errno.
pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

impl RequestSocket {
    /// Open a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`NetlinkError::Setup`] when the kernel refuses the socket or one of its options.
    pub fn open() -> Result<Self, NetlinkError> {
        Self::of_protocol(NETLINK_ROUTE)
    }

    /// Open a socket for sock_diag(7) in the calling thread's network namespace.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn open_diagnostics() -> Result<Self, NetlinkError> {
        Self::of_protocol(NETLINK_SOCK_DIAG)
    }

    fn of_protocol(protocol: isize) -> Result<Self, NetlinkError> {
        let setup = |what| move |e: std::io::Error| NetlinkError::Setup { what, errno: errno_of(&e) };
        let option = |what| move |errno: Errno| NetlinkError::Setup { what, errno };
        let mut socket = Socket::new(protocol).map_err(setup("the netlink socket"))?;
        socket.bind_auto().map_err(setup("the netlink socket's address"))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(setup("the netlink socket's peer"))?;
        socket.set_cap_ack(true).map_err(setup("NETLINK_CAP_ACK"))?;
        socket.set_ext_ack(true).map_err(setup("NETLINK_EXT_ACK"))?;
        // Filters of dumps are honoured only with strict checking (Linux 4.20); without it the caller's own filter works.
        if socket.set_netlink_get_strict_chk(true).is_err() {
            tracing::debug!("this kernel does not filter dumps");
        }
        force_receive_queue(&socket, RECEIVE_QUEUE_BYTES)?;
        if sockopt::set_socket_send_buffer_size_force(&socket, SEND_QUEUE_BYTES).is_err() {
            sockopt::set_socket_send_buffer_size(&socket, SEND_QUEUE_BYTES)
                .map_err(option("the netlink send queue"))?;
        }
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(ANSWER_TIMEOUT))
            .map_err(option("the netlink receive timeout"))?;
        Ok(Self { socket, sequence: 1, buffer: vec![0; BUFFER_BYTES] })
    }

    /// Send the requests `range` of a batch, and wait until the kernel has carried out all of them.
    ///
    /// `refused` is called for each request that the kernel refused, in order, with its tag, the errno and the kernel's
    /// explanation (often empty). A refusal does not stop the requests behind it.
    ///
    /// # Errors
    /// [`NetlinkError::Transport`] or [`NetlinkError::NoAnswer`] when the state of the batch is unknown.
    pub fn transact(
        &mut self,
        batch: &mut Batch,
        range: Range<usize>,
        mut refused: impl FnMut(usize, Errno, &str),
    ) -> Result<(), NetlinkError> {
        let end = range.end.min(batch.len());
        let mut from = range.start;
        while from < end {
            let to = end.min(from + BATCH_MAX);
            let base = self.sequence;
            let count = u32::try_from(to - from).unwrap_or(u32::MAX);
            self.sequence = base.wrapping_add(count);
            self.send(batch.stamp(from, to, base))?;
            self.read(|message| {
                let offset = message.sequence.wrapping_sub(base);
                if message.kind != NLMSG_ERROR || offset >= count {
                    return false;
                }
                if let (Some(errno), Some(tag)) =
                    (error_code(message.payload), batch.tag(from + usize::try_from(offset).unwrap_or(usize::MAX)))
                {
                    refused(tag, errno, &explanation(&message));
                }
                offset + 1 == count
            })?;
            from = to;
        }
        Ok(())
    }

    /// Ask for one object, such as a link by its name.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`], with `object` in its text, when the kernel has no such object.
    pub fn get(&mut self, kind: u16, body: &impl Emitable, object: &str) -> Result<Kept, NetlinkError> {
        let mut answer = None;
        self.request(kind, 0, body, |message| {
            answer = Some(match error_code_of(&message) {
                Some(errno) => Err(NetlinkError::Refused {
                    action: "find",
                    object: object.to_owned(),
                    errno,
                    detail: explanation(&message),
                }),
                None => Ok((message.kind, message.payload.to_vec())),
            });
            true
        })?;
        answer.unwrap_or(Err(NetlinkError::NoAnswer { waited_ms: timeout_ms() }))
    }

    /// Ask for all objects of a kind. A dump that changed while it ran is repeated.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] when the kernel refuses the dump; the transport errors of [`Self::transact`].
    pub fn dump(&mut self, kind: u16, body: &impl Emitable) -> Result<Vec<Kept>, NetlinkError> {
        let mut kept = Vec::new();
        for _ in 0..DUMP_TRIES {
            kept.clear();
            let torn = self.dump_each(kind, body, |kind, payload| kept.push((kind, payload.to_vec())))?;
            if !torn {
                break;
            }
        }
        // After DUMP_TRIES the list may be torn; the watch and the next probe see whatever changed meanwhile.
        Ok(kept)
    }

    /// Look at all objects of a kind, once. Returns whether they changed meanwhile.
    pub(super) fn dump_each(
        &mut self,
        kind: u16,
        body: &impl Emitable,
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<bool, NetlinkError> {
        let mut interrupted = false;
        let mut failure = None;
        self.request(kind, NLM_F_DUMP, body, |message| {
            interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
            if message.kind == NLMSG_DONE {
                return true;
            }
            if let Some(errno) = error_code_of(&message) {
                failure = Some(NetlinkError::Refused {
                    action: "list",
                    object: format!("objects of netlink type {kind}"),
                    errno,
                    detail: explanation(&message),
                });
                return true;
            }
            each(message.kind, message.payload);
            false
        })?;
        failure.map_or(Ok(interrupted), Err)
    }

    fn request(
        &mut self,
        kind: u16,
        flags: u16,
        body: &impl Emitable,
        mut each: impl FnMut(Message<'_>) -> bool,
    ) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        batch.push(kind, flags, body, 0);
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        // A read answers by its object, a dump by NLMSG_DONE: an acknowledgement would only be left behind in the queue,
        // where the next transaction skips it by its sequence number.
        self.send(batch.stamp(0, 1, sequence))?;
        self.read(|message| message.sequence == sequence && each(message))
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NetlinkError> {
        match send(&self.socket, bytes, SendFlags::empty()) {
            Ok(_) => Ok(()),
            // Interrupted before the kernel began: once more is enough, a signal storm is an error.
            Err(Errno::INTR) => send(&self.socket, bytes, SendFlags::empty())
                .map(drop)
                .map_err(|errno| NetlinkError::Transport { action: "send", errno }),
            Err(errno) => Err(NetlinkError::Transport { action: "send", errno }),
        }
    }

    /// Read datagrams until `each` says that the answer is complete.
    fn read(&mut self, mut each: impl FnMut(Message<'_>) -> bool) -> Result<(), NetlinkError> {
        for _ in 0..READS_MAX {
            let length = match recv(&self.socket, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => length,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {
                    return Err(NetlinkError::NoAnswer { waited_ms: timeout_ms() });
                }
                Err(errno) => {
                    return Err(NetlinkError::Transport { action: "receive", errno });
                }
            };
            let mut complete = false;
            for message in wire::messages(self.buffer.get(..length).unwrap_or(&[])) {
                complete |= each(message);
            }
            if complete {
                return Ok(());
            }
        }
        Err(NetlinkError::NoAnswer { waited_ms: timeout_ms() })
    }
}

fn timeout_ms() -> u64 {
    u64::try_from(ANSWER_TIMEOUT.as_millis()).unwrap_or(u64::MAX)
}

/// Raise a socket's receive queue past net.core.rmem_max where the agent may, else up to it.
pub(super) fn force_receive_queue(socket: &Socket, bytes: usize) -> Result<(), NetlinkError> {
    if sockopt::set_socket_recv_buffer_size_force(socket, bytes).is_ok() {
        return Ok(());
    }
    sockopt::set_socket_recv_buffer_size(socket, bytes)
        .map_err(|errno| NetlinkError::Setup { what: "the netlink receive queue", errno })
}

/// The errno of an NLMSG_ERROR payload; none for an acknowledgement.
fn error_code(payload: &[u8]) -> Option<Errno> {
    let code = i32::from_ne_bytes(payload.get(..4)?.try_into().ok()?);
    (code != 0).then(|| Errno::from_raw_os_error(code.saturating_neg()))
}

fn error_code_of(message: &Message<'_>) -> Option<Errno> {
    (message.kind == NLMSG_ERROR).then(|| error_code(message.payload)).flatten()
}

/// The kernel's explanation of a refusal (NETLINK_EXT_ACK); with NETLINK_CAP_ACK it follows the request's header.
fn explanation(message: &Message<'_>) -> String {
    if message.flags & ACK_TLVS == 0 {
        return String::new();
    }
    wire::attributes(message.payload, 4 + wire::HEADER_LEN)
        .find(|(kind, _)| *kind == ATTR_MSG)
        .map(|(_, value)| wire::text(value))
        .unwrap_or_default()
}
