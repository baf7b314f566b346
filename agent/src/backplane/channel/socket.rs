//! The TCP sockets: bound to the link's address, with the options that keep the latency low and dead connections short.

use std::{io, net::SocketAddr};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::limits::{CONNECT_TIMEOUT, HANDSHAKES_MAX, PRIORITY, STUCK_TIMEOUT};

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // The link may be down, its address not there yet: bind all the same, and serve once it comes.
    if address.is_ipv4() {
        socket.set_freebind_v4(true)?
    } else {
        socket.set_freebind_v6(true)?
    }
    Ok(socket)
}

/// Listens on one link's address.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(HANDSHAKES_MAX as i32)?;
    TcpListener::from_std(socket.into())
}

/// Connects from one link's address to the peer's address on that link.
pub(super) async fn connect(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(from)?;
    tune(&SockRef::from(&socket))?;
    socket.bind(&SocketAddr::new(from.ip(), 0).into())?;
    let socket = TcpSocket::from_std_stream(socket.into());
    tokio::time::timeout(CONNECT_TIMEOUT, socket.connect(to))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Sets the options of a connection, also of an accepted one.
pub(super) fn tune(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_priority(PRIORITY)?;
    // Bytes that nobody acknowledges end the connection soon; an idle one is probed.
    socket.set_tcp_user_timeout(Some(STUCK_TIMEOUT))?;
    let second = std::time::Duration::from_secs(1);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(second).with_interval(second).with_retries(2))
}
