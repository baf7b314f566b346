//! keepalived (VRRP) as a system under test: one instance a node, over the first backplane, its VIPs on the front.

use std::{fmt::Write, fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{
    overlap::Tenure,
    process::Proc,
    system::System,
    topology::{Lab, VIP4, VIP6},
};

const STOP_LIMIT: Duration = Duration::from_secs(5);

/// keepalived on all nodes of a lab.
#[derive(Debug)]
pub struct Keepalived {
    advert: &'static str,
    profile: &'static str,
    period: Duration,
    realtime: bool,
    /// A planned move lowers the owner's priority instead of stopping its daemon.
    by_priority: bool,
    members: Vec<Option<Proc>>,
    /// A member that was told to stop and starts anew at the next repair.
    leaving: Option<usize>,
    /// Lengths of the logs of earlier processes are part of the same files: a count never falls.
    logs: Vec<PathBuf>,
}

impl Keepalived {
    /// Its default: one advertisement a second.
    pub fn default_setting() -> Self {
        Self::new("1", "1s", Duration::from_secs(1), false)
    }

    /// Its floor: an advertisement every 10 ms, with realtime priority.
    pub fn floor_realtime() -> Self {
        Self::new("0.01", "0.01s-rt", Duration::from_millis(10), true)
    }

    /// Its floor with ordinary priority.
    pub fn floor() -> Self {
        Self::new("0.01", "0.01s", Duration::from_millis(10), false)
    }

    fn new(advert: &'static str, profile: &'static str, period: Duration, realtime: bool) -> Self {
        let (by_priority, members, logs) = (false, Vec::new(), Vec::new());
        Self { advert, profile, period, realtime, by_priority, members, leaving: None, logs }
    }

    /// The same with preemption: a planned move lowers the first member's priority by a file that the daemon watches. The
    /// repair gives it back, and the VIPs return.
    #[must_use]
    pub fn moved_by_priority(mut self) -> Self {
        self.by_priority = true;
        self
    }

    /// The file whose number, times -100, is added to a member's priority.
    fn priority_file(lab: &Lab, node: usize) -> PathBuf {
        lab.home().path().join(format!("keepalived-{}.lower", lab.nodes[node].name))
    }

    fn configuration(&self, lab: &Lab, node: usize) -> String {
        let mut text = String::from("global_defs {\n  vrrp_version 3\n");
        if self.realtime {
            text.push_str("  vrrp_rt_priority 50\n  vrrp_no_swap\n");
        }
        let priority = 150 - 10 * node;
        let (preemption, tracked) = if self.by_priority {
            let file = Self::priority_file(lab, node);
            let tracked = format!("track_file lower {{\n  file \"{}\"\n}}\n", file.display());
            ("  track_file {\n    lower weight -100\n  }\n", tracked)
        } else {
            ("  nopreempt\n", String::new())
        };
        write!(
            text,
            "}}\n{tracked}vrrp_instance web {{\n  state BACKUP\n{preemption}  interface bp0\n  virtual_router_id 51\n  \
             priority {priority}\n  advert_int {}\n  track_interface {{\n    front0\n  }}\n  virtual_ipaddress {{\n    \
             {VIP4}/24 dev front0\n  }}\n  virtual_ipaddress_excluded {{\n    {VIP6}/64 dev front0\n  }}\n}}\n",
            self.advert
        )
        // Writing to a string cannot fail.
        .unwrap_or_default();
        text
    }

    fn spawn(&self, lab: &Lab, node: usize) -> Result<Proc> {
        let machine = &lab.nodes[node];
        let path = |suffix: &str| lab.home().path().join(format!("keepalived-{}.{suffix}", machine.name));
        let configuration = path("conf");
        fs::write(&configuration, self.configuration(lab, node))?;
        if self.by_priority {
            fs::write(Self::priority_file(lab, node), "0\n")?;
        }
        // What a killed daemon left on the front is taken away, as an administrator would before the next start.
        machine.ns.feed("ip", &["-force", "-batch", "-"], &leftovers()).ok();
        for stale in ["pid", "vrrp.pid"] {
            fs::remove_file(path(stale)).ok();
        }
        let mut command = Command::new("keepalived");
        command
            .args(["--dont-fork", "--vrrp", "--log-console", "--no-syslog", "--log-detail"])
            .arg(format!("--use-file={}", configuration.display()))
            .arg(format!("--pid={}", path("pid").display()))
            .arg(format!("--vrrp_pid={}", path("vrrp.pid").display()));
        Proc::spawn(lab.home(), &machine.ns, &format!("keepalived-{}", machine.name), command)
    }

    /// The state that a member entered last, by its log.
    fn state(&self, node: usize) -> Option<String> {
        let log = fs::read_to_string(self.logs.get(node)?).ok()?;
        let (_, after) = log.rsplit_once("Entering ")?;
        after.split_whitespace().next().map(str::to_owned)
    }
}

fn leftovers() -> String {
    format!("address del {VIP4}/24 dev front0\naddress del {VIP6}/64 dev front0\n")
}

impl System for Keepalived {
    fn name(&self) -> &str {
        "keepalived"
    }

    fn profile(&self) -> &str {
        self.profile
    }

    fn period(&self) -> Duration {
        self.period
    }

    fn lease(&self) -> Option<Duration> {
        None
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn start(&mut self, lab: &Lab) -> Result<()> {
        self.members.resize_with(lab.nodes.len(), || None);
        match self.leaving.take() {
            Some(node) if self.by_priority => fs::write(Self::priority_file(lab, node), "0\n")?,
            Some(node) => {
                if let Some(member) = self.members[node].as_mut() {
                    member.terminate(STOP_LIMIT)?;
                }
            }
            None => {}
        }
        for node in 0..lab.nodes.len() {
            if self.members[node].as_mut().is_none_or(|member| !member.is_running()) {
                self.members[node] = None;
                self.members[node] = Some(self.spawn(lab, node)?);
            }
        }
        self.logs = self.members.iter().flatten().map(|member| member.log().to_owned()).collect();
        Ok(())
    }

    fn ready(&mut self, lab: &Lab) -> Result<bool> {
        for member in &mut self.members {
            if let Some(member) = member
                && !member.is_running()
            {
                bail!("{} ended by itself:\n{}", member.name(), member.output());
            }
        }
        let masters = (0..lab.nodes.len()).filter(|n| self.state(*n).as_deref() == Some("MASTER")).count();
        let backups = (0..lab.nodes.len()).filter(|n| self.state(*n).as_deref() == Some("BACKUP")).count();
        Ok(masters == 1 && backups == lab.nodes.len() - 1)
    }

    fn owner(&mut self, lab: &Lab) -> Result<Option<usize>> {
        Ok((0..lab.nodes.len()).find(|n| self.state(*n).as_deref() == Some("MASTER")))
    }

    fn process(&mut self, node: usize) -> Option<&mut Proc> {
        self.members.get_mut(node)?.as_mut()
    }

    /// An orderly stop of the owner's daemon, which tells the other at once (priority 0); or a lower priority of the owner.
    fn planned_move(&mut self, lab: &Lab, from: usize, _to: usize) -> Result<()> {
        if self.by_priority {
            fs::write(Self::priority_file(lab, from), "1\n")?;
            self.leaving = Some(from);
            return Ok(());
        }
        let member = self.process(from).context("no keepalived to stop there")?;
        member.signal(rustix::process::Signal::TERM)?;
        self.leaving = Some(from);
        Ok(())
    }

    fn wedge(&mut self, _lab: &Lab, _node: usize) -> Result<()> {
        bail!("keepalived has no part that beats while another hangs")
    }

    fn takeovers(&mut self, _lab: &Lab) -> Result<u64> {
        let mut count = 0;
        for log in &self.logs {
            let text = fs::read(log)?;
            count += String::from_utf8_lossy(&text).matches("Entering MASTER STATE").count() as u64;
        }
        Ok(count)
    }

    fn tenures(&mut self, _lab: &Lab) -> Result<Option<Vec<Tenure>>> {
        Ok(None)
    }

    fn logs(&mut self) -> String {
        self.members.iter().flatten().map(|m| format!("--- {}\n{}\n", m.name(), m.output())).collect()
    }

    fn stop(&mut self) -> Result<()> {
        for member in self.members.iter_mut().flatten() {
            member.resume().ok();
            member.terminate(STOP_LIMIT)?;
        }
        self.members.clear();
        Ok(())
    }
}
