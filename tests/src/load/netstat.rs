//! Counters of a namespace's TCP (`/proc/net/netstat`, `/proc/net/snmp`): pairs of lines, names above values.

use std::fs;

use anyhow::{Context, Result};

use crate::netns::NetNs;

/// Counters that tell of trouble.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// SYNs and SYN-ACKs that were sent again (TcpExt TCPSynRetrans).
    pub syn_retransmits: u64,
    /// Segments sent again, the above among them (Tcp RetransSegs).
    pub retransmits: u64,
    /// Resets sent (Tcp OutRsts).
    pub resets_sent: u64,
}

impl Tcp {
    /// The counters of the namespace that the calling thread is in.
    pub fn here() -> Result<Self> {
        let extended =
            fs::read_to_string("/proc/thread-self/net/netstat").context("cannot read the counters of TCP")?;
        let plain = fs::read_to_string("/proc/thread-self/net/snmp").context("cannot read the counters of TCP")?;
        let counter = |text: &str, part: &str, name: &str| {
            value(text, part, name).with_context(|| format!("this kernel doesn't count {part} {name}"))
        };
        Ok(Self {
            syn_retransmits: counter(&extended, "TcpExt:", "TCPSynRetrans")?,
            retransmits: counter(&plain, "Tcp:", "RetransSegs")?,
            resets_sent: counter(&plain, "Tcp:", "OutRsts")?,
        })
    }

    /// The counters of `ns`.
    pub fn of(ns: &NetNs) -> Result<Self> {
        ns.run(Self::here)?
    }

    /// What was counted since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            syn_retransmits: self.syn_retransmits.saturating_sub(earlier.syn_retransmits),
            retransmits: self.retransmits.saturating_sub(earlier.retransmits),
            resets_sent: self.resets_sent.saturating_sub(earlier.resets_sent),
        }
    }
}

fn value(text: &str, part: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.split(' ').next() == Some(part));
    let (names, values) = (lines.next()?, lines.next()?);
    let (_, value) = names.split(' ').zip(values.split(' ')).find(|(n, _)| *n == name)?;
    value.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_name() {
        let text = "TcpExt: A B\nTcpExt: 1 22\nIpExt: B\nIpExt: 3\n";
        assert_eq!((value(text, "TcpExt:", "B"), value(text, "IpExt:", "B")), (Some(22), Some(3)));
        assert_eq!(value(text, "TcpExt:", "C"), None);
    }

    #[test]
    fn this_kernel_counts_them() {
        assert!(Tcp::here().is_ok());
    }
}
