//! Two network namespaces joined by a veth pair: `front` here, `peer` there. They live as long as their threads.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use baton::netlink::{
    RequestSocket,
    link::{self, Link, Mac},
};

/// How long a condition is waited for before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

type Job = Box<dyn FnOnce() + Send>;

/// The far namespace; dropping it ends its thread and with it the namespace.
pub struct Lab {
    jobs: mpsc::Sender<Job>,
}

/// Run a test in a fresh namespace, joined to another one. Addresses: 192.0.2.1 and 2001:db8::1 here, .2 and ::2 there.
pub fn run(test: impl FnOnce(&Lab) + Send + 'static) {
    let here = thread::spawn(move || {
        isolate();
        let (jobs, queue) = mpsc::channel::<Job>();
        let (tell, told) = mpsc::channel();
        let there = thread::spawn(move || {
            isolate();
            tell.send(rustix::thread::gettid().as_raw_nonzero()).unwrap();
            queue.into_iter().for_each(|job| job());
        });
        let tid = told.recv().unwrap();
        ip("link add front type veth peer name peer");
        ip(&format!("link set peer netns {tid}"));
        let lab = Lab { jobs };
        for (device, last) in [("front", 1), ("peer", 2)] {
            let configure = move || {
                write_sysctl(&format!("ipv6/conf/{device}/accept_dad"), "0");
                ip(&format!("link set {device} up"));
                ip(&format!("address add 192.0.2.{last}/24 dev {device}"));
                ip(&format!("address add 2001:db8::{last}/64 dev {device} nodad"));
            };
            if device == "front" { configure() } else { lab.there(configure) }
        }
        until("the link is ready", || link().ready());
        test(&lab);
        drop(lab);
        there.join().expect("the far namespace's thread");
    });
    if let Err(panic) = here.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Lab {
    /// Run a closure in the far namespace and wait for its result.
    pub fn there<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        self.jobs.send(Box::new(move || drop(tell.send(job())))).unwrap();
        told.recv().expect("the job in the far namespace panicked")
    }

    /// What the far namespace's neighbour cache says of an address, as `ip neigh` prints it.
    pub fn neighbour(&self, address: IpAddr) -> String {
        self.there(move || ip(&format!("neigh show to {address} dev peer")))
    }

    /// Let the far namespace learn the address in the ordinary way, by sending something to it.
    pub fn resolve(&self, address: IpAddr, expect: Mac) {
        until("the peer resolves the address", || {
            self.there(move || {
                let any: IpAddr = if address.is_ipv4() { "0.0.0.0".parse() } else { "::".parse() }.unwrap();
                let socket = std::net::UdpSocket::bind((any, 0)).unwrap();
                drop(socket.send_to(b"who are you", (address, 9)));
            });
            self.neighbour(address).contains(&expect.to_string())
        });
    }
}

/// The front device as it is now.
pub fn link() -> Link {
    link::by_name(&mut RequestSocket::open().unwrap(), "front").unwrap()
}

/// A packet socket on a device that hears everything, all protocols.
pub fn listen(index: u32) -> OwnedFd {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: socket(2) takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(protocol)) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the descriptor is new and ours alone.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all-zero is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = index as i32;
    // SAFETY: pointer and length describe a live sockaddr_ll.
    let bound = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as libc::socklen_t)
    };
    assert_eq!(bound, 0, "{}", io::Error::last_os_error());
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 16 << 20).unwrap();
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, Some(PATIENCE)).unwrap();
    socket
}

/// The next frame for which `wanted` gives something.
pub fn hear<T>(socket: &OwnedFd, mut wanted: impl FnMut(&[u8]) -> Option<T>) -> T {
    let limit = Instant::now() + PATIENCE;
    let mut buffer = [0; 2048];
    while Instant::now() < limit {
        let (length, _) = rustix::net::recv(socket, &mut buffer[..], rustix::net::RecvFlags::empty()).expect("a frame");
        if let Some(found) = wanted(&buffer[..length]) {
            return found;
        }
    }
    panic!("the frame did not come");
}

/// Run ip(8) in the calling thread's namespace; it must succeed.
pub fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("ip(8) is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Write a setting below /proc/sys/net of the calling thread's namespace.
pub fn write_sysctl(path: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{path}"), value).unwrap_or_else(|e| panic!("{path}: {e}"));
}

/// Wait until a condition holds.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < limit, "timed out: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn isolate() {
    // SAFETY: unshare(2) with CLONE_NEWNET moves only the calling thread.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "unshare(CLONE_NEWNET), which needs root: {}", io::Error::last_os_error());
    ip("link set lo up");
}
