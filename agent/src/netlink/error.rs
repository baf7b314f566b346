//! What can go wrong between the agent and the kernel's network stack: the object, the errno and the next step.

use rustix::io::Errno;

/// An error of the netlink layer. Each text names the object, the cause and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetlinkError {
    /// A socket could not be opened or set up.
    #[error("cannot set up {what}: {errno}; {}", remedy(*errno))]
    Setup {
        /// Which socket, or which step of its set-up.
        what: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel refused one request.
    #[error("cannot {action} {object}: {errno}{}; {}", detail_text(detail), remedy(*errno))]
    Refused {
        /// What was asked, as a verb: "add", "delete", "find".
        action: &'static str,
        /// The object: "address 192.0.2.10/32 on eth0".
        object: String,
        /// The kernel's answer.
        errno: Errno,
        /// The kernel's own explanation (NLMSGERR_ATTR_MSG), empty if it gave none.
        detail: String,
    },
    /// Sending to or receiving from the kernel failed as a whole.
    #[error("netlink {action} failed: {errno}; {}", remedy(*errno))]
    Transport {
        /// "send" or "receive".
        action: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel did not answer within the bound.
    #[error(
        "the kernel did not answer a netlink request within {waited_ms} ms; \
         something holds its configuration lock (rtnl): look for a process stuck in ip, tc or a driver"
    )]
    NoAnswer {
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// A value cannot be expressed to the kernel.
    #[error("{object} is not valid: {why}")]
    Invalid {
        /// The object.
        object: String,
        /// What is wrong and what would be right.
        why: &'static str,
    },
    /// The gate is not on a device: an address there would be served without a lease.
    #[error(
        "{device} (number {index}) was made after the agent's start, and the gate is not on it: the agent must start again"
    )]
    Ungated {
        /// The device.
        device: String,
        /// Its number.
        index: u32,
    },
    /// A device cannot carry announcements.
    #[error("{device} cannot announce addresses: {why}")]
    NoEthernet {
        /// The device.
        device: String,
        /// What it lacks and what to do.
        why: &'static str,
    },
}

impl NetlinkError {
    /// The errno behind this error, if there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Setup { errno, .. } | Self::Refused { errno, .. } | Self::Transport { errno, .. } => Some(*errno),
            Self::NoAnswer { .. } | Self::Invalid { .. } | Self::NoEthernet { .. } | Self::Ungated { .. } => None,
        }
    }
}

fn detail_text(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(" (the kernel says: {detail})") }
}

/// The next step for an errno, as it is met in network configuration.
pub fn remedy(errno: Errno) -> &'static str {
    match errno {
        Errno::PERM | Errno::ACCESS => "give the agent CAP_NET_ADMIN and CAP_NET_RAW",
        Errno::NODEV | Errno::NXIO => {
            "check that the device exists (ip link) and that its name is right in the configuration"
        }
        Errno::NETDOWN => "bring the device up (ip link set DEVICE up)",
        Errno::EXIST => "it is there already; another program may manage it",
        Errno::ADDRNOTAVAIL | Errno::SRCH | Errno::NOENT => "it is not there; another program may have removed it",
        Errno::NETUNREACH | Errno::HOSTUNREACH => "add the route that leads to the gateway first",
        Errno::INVAL | Errno::RANGE => "check the prefix length, label and scope in the configuration",
        Errno::NOBUFS | Errno::NOMEM => "the kernel is short of memory or of queue space; it is tried again",
        Errno::AGAIN => "the queue is full or the kernel is slow; it is tried again",
        Errno::OPNOTSUPP | Errno::AFNOSUPPORT => {
            "this kernel lacks the feature; check that IPv6 is not disabled (net.ipv6.conf.DEVICE.disable_ipv6)"
        }
        _ => "see dmesg and `ip -d address` for the state of the device",
    }
}
