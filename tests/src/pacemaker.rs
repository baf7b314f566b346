//! Pacemaker on corosync as a system under test: two members over the first backplane, IPaddr2 for the VIPs, no fencing.
//!
//! Its daemons know one place each in a host's file system, so every member has namespaces of its own besides the network.

use std::{
    fmt::Write,
    fs,
    path::PathBuf,
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    overlap::Tenure,
    process::Proc,
    system::System,
    topology::{Lab, VIP4, VIP6},
};

const MEMBER: &str = include_str!("pacemaker/member.sh");
/// The resource group that holds the VIPs.
const GROUP: &str = "web";
/// corosync's default.
const TOKEN: Duration = Duration::from_secs(3);

/// How a planned move is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `crm_resource --move`, and afterwards `--clear`.
    Move,
    /// The owner becomes a standby, and afterwards is none any more.
    Standby,
}

/// corosync and Pacemaker on all nodes of a lab.
#[derive(Debug)]
pub struct Pacemaker {
    method: Method,
    members: Vec<Option<Proc>>,
    /// A node that was moved away from: the repair undoes what the move left.
    left: Option<usize>,
    logs: Vec<PathBuf>,
}

impl Pacemaker {
    /// A cluster with corosync's default timers.
    pub fn new(method: Method) -> Self {
        Self { method, members: Vec::new(), left: None, logs: Vec::new() }
    }

    fn folder(lab: &Lab, node: usize) -> PathBuf {
        lab.home().path().join(format!("pacemaker-{}", lab.nodes[node].name))
    }

    fn spawn(lab: &Lab, node: usize) -> Result<Proc> {
        let (machine, folder) = (&lab.nodes[node], Self::folder(lab, node));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("corosync.conf"), corosync(lab)?)?;
        fs::write(folder.join("cib.xml"), cib())?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-c", MEMBER, "member", &machine.name]).arg(&folder);
        Proc::spawn(lab.home(), &machine.ns, &format!("pacemaker-{}", machine.name), command)
    }

    /// Runs one of Pacemaker's programs inside of a member.
    fn tool(&self, node: usize, words: &[&str]) -> Result<Output> {
        let member = self.members.get(node).and_then(Option::as_ref).context("no member runs there")?;
        let pid = member.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let inside = children.split_whitespace().next().context("the member has not started yet")?;
        let mut command = Command::new("nsenter");
        command.args(["--target", inside, "--mount", "--uts", "--ipc", "--net", "--pid"]).args(words);
        command.output().context("cannot run nsenter")
    }

    /// The same; that the program fails is an error.
    fn order(&self, node: usize, words: &[&str]) -> Result<()> {
        let output = self.tool(node, words)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`{}` failed ({}): {}", words.join(" "), output.status, said.trim_end());
        Ok(())
    }

    /// The node on which both VIPs are started, with all members online.
    fn started_on(&self, lab: &Lab) -> Result<Option<usize>> {
        let Ok(output) = self.tool(0, &["crm_mon", "--one-shot", "--inactive"]) else { return Ok(None) };
        let text = String::from_utf8_lossy(&output.stdout);
        let names: Vec<_> = lab.nodes.iter().map(|n| n.name.as_str()).collect();
        let online = text.contains(&format!("Online: [ {} ]", names.join(" ")));
        let started = |name: &str| text.matches(&format!("Started {name}")).count() == 2;
        Ok(names.iter().position(|name| started(name)).filter(|_| online))
    }
}

/// The same file for every member.
fn corosync(lab: &Lab) -> Result<String> {
    let mut nodes = String::new();
    for machine in &lab.nodes {
        let address = machine.backplane.first().context("corosync needs a backplane")?;
        let (name, id) = (&machine.name, machine.id);
        writeln!(nodes, "  node {{\n    ring0_addr: {address}\n    name: {name}\n    nodeid: {id}\n  }}")?;
    }
    Ok(format!(
        "totem {{\n  version: 2\n  cluster_name: lab\n  transport: knet\n  crypto_cipher: none\n  crypto_hash: none\n  \
         token: {}\n}}\nnodelist {{\n{nodes}}}\nquorum {{\n  provider: corosync_votequorum\n  two_node: 1\n  \
         wait_for_all: 0\n}}\nlogging {{\n  to_stderr: yes\n  to_syslog: no\n  to_logfile: no\n}}\nsystem {{\n  \
         move_to_root_cgroup: no\n}}\n",
        TOKEN.as_millis()
    ))
}

fn cib() -> String {
    let pair = |id: &str, name: &str, value: &str| format!("<nvpair id=\"{id}\" name=\"{name}\" value=\"{value}\"/>");
    let vip = |id: &str, address: String, bits: &str| {
        let (ip, mask, nic) = (format!("{id}-ip"), format!("{id}-mask"), format!("{id}-nic"));
        format!(
            "<primitive id=\"{id}\" class=\"ocf\" provider=\"heartbeat\" type=\"IPaddr2\"><instance_attributes \
             id=\"{id}-a\">{}{}{}</instance_attributes><operations><op id=\"{id}-m\" name=\"monitor\" interval=\"10s\"/>\
             </operations></primitive>",
            pair(&ip, "ip", &address),
            pair(&mask, "cidr_netmask", bits),
            pair(&nic, "nic", "front0")
        )
    };
    format!(
        "<cib validate-with=\"pacemaker-3.8\" admin_epoch=\"1\" epoch=\"1\" num_updates=\"0\"><configuration><crm_config>\
         <cluster_property_set id=\"options\">{}{}{}</cluster_property_set></crm_config><nodes/><resources>\
         <group id=\"{GROUP}\">{}{}</group></resources><constraints/><rsc_defaults><meta_attributes id=\"defaults\">{}\
         </meta_attributes></rsc_defaults></configuration></cib>\n",
        pair("options-f", "stonith-enabled", "false"),
        pair("options-q", "no-quorum-policy", "ignore"),
        // How long members wait for one that decides already, at their start only.
        pair("options-d", "dc-deadtime", "2s"),
        vip("vip4", VIP4.to_string(), "24"),
        vip("vip6", VIP6.to_string(), "64"),
        pair("defaults-s", "resource-stickiness", "100")
    )
}

impl System for Pacemaker {
    fn name(&self) -> &str {
        "pacemaker"
    }

    fn profile(&self) -> &str {
        "3s"
    }

    fn period(&self) -> Duration {
        TOKEN / 4
    }

    fn lease(&self) -> Option<Duration> {
        None
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }

    /// Starts what does not run, and undoes what the last move left: a constraint, or a standby.
    fn start(&mut self, lab: &Lab) -> Result<()> {
        self.members.resize_with(lab.nodes.len(), || None);
        for node in 0..lab.nodes.len() {
            if self.members[node].as_mut().is_none_or(|member| !member.is_running()) {
                self.members[node] = None;
                self.members[node] = Some(Self::spawn(lab, node)?);
            }
        }
        self.logs = (0..lab.nodes.len()).map(|node| Self::folder(lab, node).join("pacemaker.log")).collect();
        if let Some(from) = self.left.take() {
            let name = lab.nodes[from].name.as_str();
            match self.method {
                Method::Move => self.order(from, &["crm_resource", "--clear", "--resource", GROUP])?,
                Method::Standby => {
                    self.order(from, &["crm_attribute", "--node", name, "--name", "standby", "--delete"])?;
                }
            }
        }
        Ok(())
    }

    fn ready(&mut self, lab: &Lab) -> Result<bool> {
        for member in self.members.iter_mut().flatten() {
            if !member.is_running() {
                bail!("{} ended by itself:\n{}", member.name(), member.output());
            }
        }
        Ok(self.started_on(lab)?.is_some())
    }

    fn owner(&mut self, lab: &Lab) -> Result<Option<usize>> {
        self.started_on(lab)
    }

    fn process(&mut self, node: usize) -> Option<&mut Proc> {
        self.members.get_mut(node)?.as_mut()
    }

    fn planned_move(&mut self, lab: &Lab, from: usize, to: usize) -> Result<()> {
        let (here, there) = (lab.nodes[from].name.as_str(), lab.nodes[to].name.as_str());
        self.left = Some(from);
        match self.method {
            Method::Move => self.order(from, &["crm_resource", "--move", "--resource", GROUP, "--node", there]),
            Method::Standby => {
                self.order(from, &["crm_attribute", "--node", here, "--name", "standby", "--update", "on"])
            }
        }
    }

    fn wedge(&mut self, _lab: &Lab, _node: usize) -> Result<()> {
        bail!("nothing is known of a part of Pacemaker that beats while another hangs")
    }

    /// By the log of whichever member decides.
    fn takeovers(&mut self, _lab: &Lab) -> Result<u64> {
        let mut count = 0;
        for log in &self.logs {
            let text = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
            count += String::from_utf8_lossy(&text).matches("Initiating start operation vip4_start_0").count() as u64;
        }
        Ok(count)
    }

    fn tenures(&mut self, _lab: &Lab) -> Result<Option<Vec<Tenure>>> {
        Ok(None)
    }

    fn logs(&mut self) -> String {
        let last = |text: String| {
            text.lines().rev().take(40).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
        };
        let logs = self.logs.iter().filter_map(|log| Some((log, fs::read_to_string(log).ok()?)));
        let logs = logs.map(|(log, text)| format!("--- {}\n{}\n", log.display(), last(text)));
        let outputs = self.members.iter().flatten().map(|m| format!("--- {}\n{}\n", m.name(), m.output()));
        outputs.chain(logs).collect()
    }

    /// The members' process namespaces end as a whole.
    fn stop(&mut self) -> Result<()> {
        for member in self.members.iter_mut().flatten() {
            member.resume().ok();
            member.kill()?;
        }
        self.members.clear();
        Ok(())
    }
}
