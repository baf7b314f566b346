//! The kernel's network settings that a failover depends on: read, judged in clear sentences, and set, through /proc/sys.
//!
//! /proc/sys/net shows the network namespace of the thread that opens it.

use std::{fmt, fs, io, path::PathBuf};

use rustix::io::Errno;

use super::error::NetlinkError;

/// How a setting of a device combines with that of "all" (the kernel's ip-sysctl.rst).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// One for the namespace.
    Namespace,
    /// The larger of `conf/all` and `conf/DEVICE` counts.
    LargerOfAllAndDevice,
    /// `conf/DEVICE` alone counts.
    Device,
}

/// One setting and what a failover needs of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Path below /proc/sys/net, with DEVICE for the device's name.
    path: &'static str,
    scope: Scope,
    /// The values that will do; the first is the one that [`Finding::apply`] writes.
    allowed: &'static [i64],
    why: &'static str,
}

/// What a front device needs.
pub const FRONT: [Requirement; 7] = [
    Requirement {
        path: "ipv4/conf/DEVICE/arp_ignore",
        scope: Scope::LargerOfAllAndDevice,
        allowed: &[1, 2],
        why: "otherwise this node answers ARP for a VIP that stands on its loopback while a move drains",
    },
    Requirement {
        path: "ipv4/conf/DEVICE/arp_announce",
        scope: Scope::LargerOfAllAndDevice,
        allowed: &[2],
        why: "otherwise this node's own ARP requests may carry a VIP that it gave up, and take it back from its owner",
    },
    Requirement {
        path: "ipv4/conf/DEVICE/proxy_arp",
        scope: Scope::LargerOfAllAndDevice,
        allowed: &[0],
        why: "otherwise this node answers ARP for VIPs that stand on other nodes",
    },
    Requirement {
        path: "ipv4/ip_nonlocal_bind",
        scope: Scope::Namespace,
        allowed: &[1],
        why: "otherwise services on a standby cannot bind the VIP before it arrives",
    },
    Requirement {
        path: "ipv6/ip_nonlocal_bind",
        scope: Scope::Namespace,
        allowed: &[1],
        why: "otherwise services on a standby cannot bind the VIP before it arrives",
    },
    Requirement {
        path: "ipv6/conf/DEVICE/disable_ipv6",
        scope: Scope::Device,
        allowed: &[0],
        why: "otherwise no IPv6 VIP can stand on the device",
    },
    Requirement {
        path: "ipv6/conf/DEVICE/accept_dad",
        scope: Scope::LargerOfAllAndDevice,
        allowed: &[1, 0],
        why: "with 2 a duplicate of the link-local address switches IPv6 off on the device, VIPs included",
    },
];

/// What a backplane device needs when a move is steered through it.
pub const BACKPLANE: [Requirement; 1] = [Requirement {
    path: "ipv4/conf/DEVICE/rp_filter",
    scope: Scope::LargerOfAllAndDevice,
    allowed: &[2, 0],
    why: "the strict filter (1) drops the packets that the peer forwards during a move",
}];

/// A setting that is not as a failover needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    requirement: &'static Requirement,
    device: String,
    have: i64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = dotted(&self.requirement.path.replace("DEVICE", &self.device));
        let want: Vec<String> = self.requirement.allowed.iter().map(i64::to_string).collect();
        let want = want.join(" or ");
        write!(f, "net.{name} counts as {} and should be {want}: {}", self.have, self.requirement.why)
    }
}

impl Finding {
    /// The setting's path below /proc/sys/net.
    pub fn path(&self) -> String {
        self.requirement.path.replace("DEVICE", &self.device)
    }

    /// The value that counts now.
    pub fn have(&self) -> i64 {
        self.have
    }

    /// Set it, and check that it counts.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] when /proc/sys is not writable, [`NetlinkError::Invalid`] when `conf/all` outweighs it.
    pub fn apply(&self) -> Result<(), NetlinkError> {
        let value = self.requirement.allowed.first().copied().unwrap_or(0);
        write(&self.path(), value)?;
        match check_one(self.requirement, &self.device)? {
            None => Ok(()),
            Some(_) => Err(NetlinkError::Invalid {
                object: format!("setting net.{}", dotted(&self.path())),
                why: "the value of conf.all outweighs that of the device; set it there too",
            }),
        }
    }
}

/// Check a device against [`FRONT`] or [`BACKPLANE`].
///
/// Settings that this kernel does not have (IPv6 not built in) are passed over.
///
/// # Errors
/// [`NetlinkError::Refused`] when a setting cannot be read, ENODEV's text when the device does not exist.
pub fn check(requirements: &'static [Requirement], device: &str) -> Result<Vec<Finding>, NetlinkError> {
    if !file("ipv4/conf", device)?.is_dir() {
        return Err(NetlinkError::Refused {
            action: "check the settings of",
            object: format!("device {device}"),
            errno: Errno::NODEV,
            detail: String::new(),
        });
    }
    let mut findings = Vec::new();
    for requirement in requirements {
        findings.extend(check_one(requirement, device)?);
    }
    Ok(findings)
}

fn check_one(requirement: &'static Requirement, device: &str) -> Result<Option<Finding>, NetlinkError> {
    let Some(mut have) = read_optional(&requirement.path.replace("DEVICE", device))? else {
        return Ok(None);
    };
    if requirement.scope == Scope::LargerOfAllAndDevice {
        have = have.max(read_optional(&requirement.path.replace("DEVICE", "all"))?.unwrap_or(0));
    }
    let bad = !requirement.allowed.contains(&have);
    Ok(bad.then(|| Finding { requirement, device: device.to_owned(), have }))
}

/// Whether the node forwards IPv6 on a device, which its neighbour advertisements must say (RFC 4861, 7.2.6).
pub(super) fn is_ipv6_router(device: &str) -> bool {
    matches!(read_optional(&format!("ipv6/conf/{device}/forwarding")), Ok(Some(1..)))
}

/// Read a setting by its path below /proc/sys/net, such as `ipv4/conf/eth0/arp_notify`.
///
/// # Errors
/// [`NetlinkError::Refused`] when it does not exist or is no number.
pub fn read(path: &str) -> Result<i64, NetlinkError> {
    read_optional(path)?.ok_or_else(|| refused("read", path, Errno::NOENT))
}

/// Write a setting by its path below /proc/sys/net.
///
/// # Errors
/// [`NetlinkError::Refused`] when /proc/sys is not writable or the kernel refuses the value.
pub fn write(path: &str, value: i64) -> Result<(), NetlinkError> {
    fs::write(file(path, "")?, value.to_string()).map_err(|e| refused("set", path, errno(&e)))
}

fn read_optional(path: &str) -> Result<Option<i64>, NetlinkError> {
    match fs::read_to_string(file(path, "")?) {
        Ok(text) => text.trim().parse().map(Some).map_err(|_| refused("read", path, Errno::INVAL)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(refused("read", path, errno(&e))),
    }
}

/// A path below /proc/sys/net; one that would lead elsewhere is refused.
fn file(path: &str, rest: &str) -> Result<PathBuf, NetlinkError> {
    let parts = || path.split('/').chain(Some(rest).filter(|r| !r.is_empty()));
    if parts().any(|part| part.is_empty() || part == "." || part == ".." || part.contains(['/', '\0'])) {
        let why = "a setting's path has no empty part, no '..' and no device name with '/'";
        return Err(NetlinkError::Invalid { object: format!("setting {path}/{rest}"), why });
    }
    Ok(parts().fold(PathBuf::from("/proc/sys/net"), |all, part| all.join(part)))
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

fn refused(action: &'static str, path: &str, errno: Errno) -> NetlinkError {
    NetlinkError::Refused { action, object: format!("setting net.{}", dotted(path)), errno, detail: String::new() }
}

/// The name that sysctl(8) uses: dots for slashes, and slashes for the dots of a device's name.
fn dotted(path: &str) -> String {
    path.chars()
        .map(|c| {
            if c == '/' {
                '.'
            } else if c == '.' {
                '/'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_sysctl() {
        assert_eq!(dotted("ipv4/conf/eth0.10/arp_ignore"), "ipv4.conf.eth0/10.arp_ignore");
    }

    #[test]
    fn paths_cannot_leave_the_tree() {
        for bad in ["../kernel/panic", "ipv4//x", "", "ipv4/conf/../../../kernel/panic"] {
            assert!(matches!(read(bad), Err(NetlinkError::Invalid { .. })), "{bad}");
        }
        assert!(check(&FRONT, "a/../../b").is_err());
    }

    #[test]
    fn a_finding_says_what_and_why() {
        let finding = Finding { requirement: &FRONT[0], device: "eth0".into(), have: 0 };
        let text = finding.to_string();
        assert!(
            text.starts_with("net.ipv4.conf.eth0.arp_ignore counts as 0 and should be 1 or 2: otherwise"),
            "{text}"
        );
    }
}
