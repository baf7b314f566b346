//! Packet sockets (packet(7)): one a device, opened in advance, that send whole frames, many in one system call.

use std::{
    ffi::c_int,
    mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use rustix::{io::Errno, net::sockopt};

use super::{error::NetlinkError, frame::Frame};

/// Frames that one sendmmsg(2) takes here: the headers stand on the stack, about 80 bytes each.
pub const SEND_MAX: usize = 128;
/// Send queue: a thousand announcements that wait for a slow device, about 1 KiB each in the kernel's accounting.
const SEND_QUEUE_BYTES: usize = 2 << 20;

/// A socket that sends frames on one device. It receives nothing.
///
/// The frames pass through the queueing discipline and the tc egress hook, the gate included: PACKET_QDISC_BYPASS, which
/// would go around it, stays off.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
}

impl PacketSocket {
    /// Open a socket on the device `index`.
    ///
    /// # Errors
    /// [`NetlinkError::Setup`] when the kernel refuses (EPERM without CAP_NET_RAW, ENODEV).
    pub fn open(index: u32) -> Result<Self, NetlinkError> {
        let setup = |what| move |errno| NetlinkError::Setup { what, errno };
        // SAFETY: socket(2) takes no pointers. Protocol 0: nothing is received.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
        if fd < 0 {
            return Err(NetlinkError::Setup { what: "the packet socket", errno: last_errno() });
        }
        // SAFETY: the kernel has just given this descriptor to us alone.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        if sockopt::set_socket_send_buffer_size_force(&socket, SEND_QUEUE_BYTES).is_err() {
            sockopt::set_socket_send_buffer_size(&socket, SEND_QUEUE_BYTES)
                .map_err(setup("the packet socket's send queue"))?;
        }
        bind(&socket, index).map_err(setup("the packet socket's device"))?;
        Ok(Self { socket })
    }

    /// Send frames in order, without waiting and without allocating. Returns how many the kernel took; when fewer than
    /// all, also why it stopped.
    pub fn send(&self, frames: &[Frame]) -> (usize, Option<Errno>) {
        let mut sent = 0;
        for chunk in frames.chunks(SEND_MAX) {
            let mut done = 0;
            // Each turn either sends at least one frame or returns.
            while done < chunk.len() {
                match send_many(&self.socket, &chunk[done..]) {
                    Ok(0) => return (sent + done, Some(Errno::AGAIN)),
                    Ok(n) => done += n,
                    Err(Errno::INTR) => {}
                    Err(errno) => return (sent + done, Some(errno)),
                }
            }
            sent += chunk.len();
        }
        (sent, None)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn bind(socket: &OwnedFd, index: u32) -> Result<(), Errno> {
    let index = c_int::try_from(index).map_err(|_| Errno::NODEV)?;
    let family = u16::try_from(libc::AF_PACKET).map_err(|_| Errno::INVAL)?;
    let address = libc::sockaddr_ll {
        sll_family: family,
        sll_protocol: 0,
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(mem::size_of_val(&address)).map_err(|_| Errno::INVAL)?;
    // SAFETY: the pointer and the length describe a live sockaddr_ll, which the kernel only reads.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// sendmmsg(2) of at most SEND_MAX frames.
fn send_many(socket: &OwnedFd, frames: &[Frame]) -> Result<usize, Errno> {
    // SAFETY: all-zero is a valid iovec and a valid mmsghdr (null pointers with zero lengths).
    let (mut parts, mut headers) =
        unsafe { (mem::zeroed::<[libc::iovec; SEND_MAX]>(), mem::zeroed::<[libc::mmsghdr; SEND_MAX]>()) };
    let count = frames.len().min(SEND_MAX);
    for ((part, header), frame) in parts.iter_mut().zip(&mut headers).zip(frames) {
        let bytes = frame.as_bytes();
        part.iov_base = bytes.as_ptr().cast_mut().cast();
        part.iov_len = bytes.len();
        header.msg_hdr.msg_iov = part;
        header.msg_hdr.msg_iovlen = 1;
    }
    let count = libc::c_uint::try_from(count).map_err(|_| Errno::INVAL)?;
    // SAFETY: the first `count` headers point at parts, and these at frames, all of which outlive the call; the kernel reads
    // the frames and writes msg_len only.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_DONTWAIT) };
    usize::try_from(sent).map_err(|_| last_errno())
}
