//! CPU burners: busy loops that compete with the system under test.

use std::process::Command;

use anyhow::Result;

use crate::{home::Home, netns::NetNs, process::Proc};

/// Busy loops as processes of ordinary priority; they end when dropped.
#[derive(Debug)]
pub struct Burners {
    _processes: Vec<Proc>,
}

impl Burners {
    /// Starts `count` busy loops, each in a session of its own, so that autogroup scheduling doesn't tame them.
    pub fn start(home: &Home, ns: &NetNs, count: usize) -> Result<Self> {
        let start = |n| {
            let mut command = Command::new("sh");
            command.args(["-c", "while :; do :; done"]);
            Proc::spawn(home, ns, &format!("burner{n}"), command)
        };
        Ok(Self { _processes: (0..count).map(start).collect::<Result<_>>()? })
    }
}
