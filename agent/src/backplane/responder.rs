//! Answers heartbeats from user space, on a thread of its own: what the BPF programs do, for machines without them.

use std::{
    io,
    net::UdpSocket,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use baton_ebpf::wire::{BYTES, LINKS_MAX};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::kernel::Tables;

/// Datagrams taken from one socket before the others get their turn.
const BURST_MAX: usize = 32;

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Responder {
    stop: Arc<AtomicBool>,
    wake: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    /// Starts the thread on the beat sockets, each with its link's number. The sockets are made non-blocking, which
    /// their duplicates share. `priority` is a SCHED_FIFO priority, for which the process needs the right.
    ///
    /// # Errors
    /// A link number beyond the table, a socket that cannot be duplicated, a thread or priority that cannot be had.
    pub fn start(tables: Arc<Tables>, sockets: &[(usize, &UdpSocket)], priority: Option<i32>) -> io::Result<Self> {
        let mut owned = Vec::with_capacity(sockets.len());
        for (link, socket) in sockets {
            if *link >= LINKS_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("backplane link {link} is beyond the {LINKS_MAX} that there can be"),
                ));
            }
            let socket = socket.try_clone()?;
            socket.set_nonblocking(true)?;
            owned.push((*link, socket));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (thread_stop, thread_wake) = (Arc::clone(&stop), wake.try_clone()?);
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let thread = thread::Builder::new().name("responder".into()).spawn(move || {
            let scheduled = priority.map_or(Ok(()), realtime);
            let go = scheduled.is_ok();
            if ready.send(scheduled).is_ok() && go {
                serve(&tables, &owned, &thread_stop, &thread_wake);
            }
        })?;
        let responder = Self { stop, wake, thread: Some(thread) };
        started.recv().map_err(io::Error::other)??;
        Ok(responder)
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Err(error) = rustix::io::write(&self.wake, &1u64.to_ne_bytes()) {
            tracing::warn!(%error, "the responder cannot be woken");
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the responder had panicked");
        }
    }
}

/// Runs the calling thread under SCHED_FIFO.
fn realtime(priority: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: 0 is the calling thread; the structure outlives the call.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn serve(tables: &Tables, sockets: &[(usize, UdpSocket)], stop: &AtomicBool, wake: &OwnedFd) {
    while !stop.load(Ordering::Acquire) {
        let mut waited: Vec<_> = sockets.iter().map(|(_, socket)| PollFd::new(socket, PollFlags::IN)).collect();
        waited.push(PollFd::from_borrowed_fd(wake.as_fd(), PollFlags::IN));
        match poll(&mut waited, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "the responder cannot wait for heartbeats and ends");
                return;
            }
        }
        for (link, socket) in sockets {
            answer(tables, *link, socket);
        }
    }
}

/// Takes what has arrived on one socket, up to [`BURST_MAX`].
fn answer(tables: &Tables, link: usize, socket: &UdpSocket) {
    // One byte more than a heartbeat tells a longer datagram apart.
    let mut datagram = [0; BYTES + 1];
    for _ in 0..BURST_MAX {
        // An error is "nothing there", or an ICMP error of an earlier answer, which reading clears.
        let Ok((length, from)) = socket.recv_from(&mut datagram) else {
            return;
        };
        if let Some(answer) = tables.receive(link, &datagram[..length])
            && let Err(error) = socket.send_to(&answer, from)
        {
            tracing::debug!(%error, %from, "an acknowledgement was not sent");
        }
    }
}
