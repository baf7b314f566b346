//! When a process is ready: it says so (sd_notify(3)), or accepts connections, or a command says so.

use std::{
    io,
    io::IoSliceMut,
    mem::MaybeUninit,
    os::{linux::net::SocketAddrExt as _, unix::net::SocketAddr},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt::set_socket_passcred};
use tokio::{
    io::Interest,
    net::{TcpStream, UnixDatagram},
    time::{sleep, timeout},
};

use crate::{process::Ended, resources::call::Caller};

/// Between two attempts to connect, and how long one may take.
const CONNECT_AGAIN: Duration = Duration::from_millis(20);
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Between two calls of a command, and how long one may take.
const CALL_AGAIN: Duration = Duration::from_millis(200);
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// sd_notify sends a few lines.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// The socket on which a process says that it is ready.
#[derive(Debug)]
pub struct Notified {
    socket: std::os::unix::net::UnixDatagram,
    /// What `NOTIFY_SOCKET` says.
    pub address: String,
}

impl Notified {
    /// A socket without a place in the file system: the run directory is closed to other users.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new() -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("baton/notify/{}/{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let socket = std::os::unix::net::UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        socket.set_nonblocking(true)?;
        // Anyone may send to it, so who sends is asked for.
        set_socket_passcred(&socket, true)?;
        Ok(Self { socket, address: format!("@{name}") })
    }

    /// Waits until root or the process's own user says that it is ready.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn ready(self, user: Option<u32>) -> io::Result<()> {
        let socket = UnixDatagram::from_std(self.socket)?;
        loop {
            let (message, sender) = socket.async_io(Interest::READABLE, || receive(&socket)).await?;
            let trusted = sender.is_some_and(|uid| uid == 0 || Some(uid) == user);
            if trusted && message.split(|b| *b == b'\n').any(|line| line == b"READY=1") {
                return Ok(());
            }
        }
    }
}

fn receive(socket: &UnixDatagram) -> io::Result<(Vec<u8>, Option<u32>)> {
    let mut bytes = [0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::DONTWAIT)?;
    let sender = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmCredentials(who) => Some(who.uid.as_raw()),
        _ => None,
    });
    Ok((bytes.get(..got.bytes).unwrap_or_default().to_vec(), sender))
}

/// Waits until a port accepts a connection. Says why not with each attempt.
pub async fn connects(address: &str, why: &mut String) {
    loop {
        match timeout(CONNECT_LIMIT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return,
            Ok(Err(e)) => *why = format!("{address}: {e}"),
            Err(_) => *why = format!("{address}: no answer within {CONNECT_LIMIT:?}"),
        }
        sleep(CONNECT_AGAIN).await;
    }
}

/// Waits until a command exits with 0. Says why not with each attempt.
pub async fn answers(caller: &Caller, words: &[String], environment: &[(String, String)], why: &mut String) {
    loop {
        match timeout(CALL_LIMIT, caller.call(words.to_vec(), environment.to_vec())).await {
            Ok(Ok(answer)) if answer.ended == Ended::Code(0) => return,
            Ok(Ok(answer)) => *why = answer.words(),
            Ok(Err(e)) => *why = e.to_string(),
            Err(_) => *why = format!("no answer within {CALL_LIMIT:?}"),
        }
        sleep(CALL_AGAIN).await;
    }
}
