//! Early notice of the end of processes. A process descriptor (pidfd) tells of an end once the kernel has closed all that the
//! process had, which takes milliseconds where that is a thousand sockets; the program `process_exit` tells when it begins.
//!
//! ```text
//! do_exit of a watched process ─► process_exit ─► ring EXITS ─► thread "exits" ─► eventfd of each Watch
//! ```
//!
//! It is a hint: the program runs at the end of any thread, and knows processes by their numbers alone. Whoever is woken asks
//! [`Process::ending`]. The program lives with this object: nothing is pinned.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData, RingBuf},
    programs::{RawTracePoint, raw_trace_point::RawTracePointLink},
};
use rustix::event::{EventfdFlags, eventfd};
use tracing::{error, warn};

use super::{
    error::{KernelError, map_error},
    object::{EXITS, PROCESS_EXIT, WATCHED, program_error},
};
use crate::{
    process::{Process, wait},
    realtime,
};

/// Where the program is attached.
const TRACEPOINT: &str = "sched_process_exit";
/// What /proc/self/ns/pid shows in the first namespace (PROC_PID_INIT_INO of linux/proc_ns.h): the program sees its numbers.
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// The processes that are watched.
#[derive(Debug)]
pub struct Exits {
    watched: Arc<Mutex<Watched>>,
    end: OwnedFd,
    thread: Option<JoinHandle<()>>,
    /// The program is attached as long as this is.
    _link: RawTracePointLink,
}

/// Wakes whoever waits for it (it becomes readable) when the end of a thread of the process begins.
#[derive(Debug)]
pub struct Watch {
    watched: Arc<Mutex<Watched>>,
    pid: u32,
    wake: Arc<OwnedFd>,
}

#[derive(Debug)]
struct Watched {
    map: HashMap<MapData, u32, u8>,
    wakes: BTreeMap<u32, Vec<Arc<OwnedFd>>>,
}

impl Exits {
    /// Attaches the program of a loaded object.
    ///
    /// # Errors
    /// A kernel that refuses it, or a process namespace in which the agent sees other numbers than the program does.
    pub(super) fn attach(ebpf: &mut Ebpf, realtime: bool) -> Result<Self, KernelError> {
        let namespace = std::fs::read_link("/proc/self/ns/pid").map_err(KernelError::Exits)?;
        if namespace.as_os_str() != FIRST_NAMESPACE {
            let why = format!("the agent is in a process namespace of its own ({})", namespace.display());
            return Err(KernelError::Exits(io::Error::other(why)));
        }
        let take = |ebpf: &mut Ebpf, name| ebpf.take_map(name).ok_or(KernelError::Missing(name));
        let map: Map = take(ebpf, WATCHED)?;
        let map = HashMap::try_from(map).map_err(map_error(WATCHED))?;
        let ring = RingBuf::try_from(take(ebpf, EXITS)?).map_err(map_error(EXITS))?;
        let program = ebpf.program_mut(PROCESS_EXIT).ok_or(KernelError::Missing(PROCESS_EXIT))?;
        let program: &mut RawTracePoint = program.try_into().map_err(program_error(PROCESS_EXIT))?;
        program.load().map_err(program_error(PROCESS_EXIT))?;
        let link = program.attach(TRACEPOINT).map_err(program_error(PROCESS_EXIT))?;
        let link = program.take_link(link).map_err(program_error(PROCESS_EXIT))?;
        let watched = Arc::new(Mutex::new(Watched { map, wakes: BTreeMap::new() }));
        let end = event().map_err(KernelError::Exits)?;
        let reader = Reader { ring, watched: Arc::clone(&watched), end: end.try_clone().map_err(KernelError::Exits)? };
        let thread = std::thread::Builder::new().name("exits".into()).spawn(move || {
            if realtime && let Err(error) = realtime::become_fifo(realtime::WORKER_PRIORITY) {
                warn!(%error, "the ends of processes are read without realtime priority");
            }
            reader.run();
        });
        Ok(Self { watched, end, thread: Some(thread.map_err(KernelError::Exits)?), _link: link })
    }

    /// Watches a process until the watch is dropped. It is woken once at the beginning: the end may have begun already.
    ///
    /// # Errors
    /// Too many processes, or too few descriptors.
    pub fn watch(&self, process: &Process) -> io::Result<Watch> {
        let (pid, wake) = (process.pid(), Arc::new(event()?));
        let mut watched = lock(&self.watched);
        watched.map.insert(pid, 0, 0).map_err(io::Error::other)?;
        watched.wakes.entry(pid).or_default().push(Arc::clone(&wake));
        drop(watched);
        ring(&wake);
        Ok(Watch { watched: Arc::clone(&self.watched), pid, wake })
    }

    /// The numbers of the processes that the program tells about now.
    ///
    /// # Errors
    /// A map that cannot be read.
    pub fn numbers(&self) -> Result<Vec<u32>, KernelError> {
        let watched = lock(&self.watched);
        let mut numbers = watched.map.keys().collect::<Result<Vec<_>, _>>().map_err(map_error(WATCHED))?;
        numbers.sort_unstable();
        Ok(numbers)
    }
}

impl Drop for Exits {
    fn drop(&mut self) {
        ring(&self.end);
        if let Some(thread) = self.thread.take() {
            // An error is a panic of the thread, which was printed already.
            drop(thread.join());
        }
    }
}

impl Watch {
    /// Takes the wakes; there may be none.
    pub fn clear(&self) {
        rustix::io::read(&*self.wake, &mut [0; 8]).ok();
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = lock(&self.watched);
        let Some(wakes) = watched.wakes.get_mut(&self.pid) else { return };
        wakes.retain(|wake| !Arc::ptr_eq(wake, &self.wake));
        if wakes.is_empty() {
            watched.wakes.remove(&self.pid);
            // One that stays costs a wake that nobody hears.
            watched.map.remove(&self.pid).ok();
        }
    }
}

/// The thread that hands on what the program tells.
struct Reader {
    ring: RingBuf<MapData>,
    watched: Arc<Mutex<Watched>>,
    end: OwnedFd,
}

impl Reader {
    fn run(mut self) {
        loop {
            while let Some(told) = self.ring.next() {
                let Ok(pid) = <[u8; 4]>::try_from(&*told).map(u32::from_ne_bytes) else { continue };
                lock(&self.watched).wakes.get(&pid).into_iter().flatten().for_each(|wake| ring(wake));
            }
            match wait(&[self.end.as_fd(), self.ring.as_fd()], None) {
                Ok(ready) if ready[0] => return,
                Ok(_) => {}
                Err(error) => {
                    error!(%error, "the ends of processes are noticed by their descriptors alone from now on");
                    return;
                }
            }
        }
    }
}

fn event() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

fn ring(event: &OwnedFd) {
    // It can fail only when 2^64 wakes wait.
    rustix::io::write(event, &1_u64.to_ne_bytes()).ok();
}

/// What it guards is whole between any two steps.
fn lock(watched: &Mutex<Watched>) -> MutexGuard<'_, Watched> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}
