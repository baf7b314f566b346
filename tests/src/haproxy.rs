//! Debian's HAProxy on every node of a lab, bound to the VIP before the node has it, in front of back ends.

use std::{fmt::Write, fs, process::Command};

use anyhow::{Context, Result};

use crate::{
    http,
    process::Proc,
    topology::{Lab, VIP4},
};

/// Running proxies; they end when dropped.
#[derive(Debug)]
pub struct Proxies {
    _processes: Vec<Proc>,
}

impl Proxies {
    /// Starts one proxy a node, in front of the lab's back ends.
    pub fn start(lab: &Lab) -> Result<Self> {
        let mut servers = String::new();
        for machine in &lab.back_ends {
            let (address, _) = machine.front.context("a back end stands on the front")?;
            writeln!(servers, "  server {} {address}:{}", machine.name, http::PORT)?;
        }
        let text = format!(
            "defaults\n  mode http\n  timeout connect 1s\n  timeout client 5s\n  timeout server 5s\n\
             frontend vip\n  bind {VIP4}:80\n  default_backend web\nbackend web\n  balance roundrobin\n{servers}"
        );
        let start = |machine: &crate::topology::Machine| {
            // A standby binds the VIP that it does not have.
            machine.ns.sysctl("net/ipv4/ip_nonlocal_bind", "1")?;
            let name = format!("haproxy-{}", machine.name);
            let file = lab.home().path().join(format!("{name}.conf"));
            fs::write(&file, &text)?;
            let mut command = Command::new("haproxy");
            command.arg("-db").arg("-f").arg(&file);
            Proc::spawn(lab.home(), &machine.ns, &name, command)
        };
        Ok(Self { _processes: lab.nodes.iter().map(start).collect::<Result<_>>()? })
    }
}
