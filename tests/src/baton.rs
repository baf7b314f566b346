//! Baton as a system under test: one agent a voter, one shared configuration, private BPF file systems.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Write as _},
    net::IpAddr,
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, mount};
use serde_json::Value;

use crate::{
    freeze::Frozen,
    load::proxy,
    overlap::Tenure,
    process::Proc,
    system::System,
    topology::{Lab, Machine, VIP4, VIP6},
};

/// The cluster's name in the configuration.
pub const CLUSTER: &str = "lab";
/// The group that holds the lab's VIPs.
pub const GROUP: &str = "web";
/// Threads whose name holds this word go on when the rest of an agent is frozen.
const PULSE: &str = "pulse";
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// An agent that takes longer to answer a request counts as one that does not.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Beats and lease of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name in tables.
    pub name: String,
    /// Between two beats.
    pub interval: Duration,
    /// How long a lease lasts.
    pub lease: Duration,
    /// The line of the configuration that sets it.
    line: String,
}

impl Profile {
    /// `default`, `quick` or `fast`.
    pub fn named(name: &str) -> Result<Self> {
        let (interval, lease) = match name {
            "default" => (10, 50),
            "quick" => (4, 16),
            "fast" => (1, 4),
            _ => bail!("no profile is named `{name}`; there are default, quick and fast"),
        };
        let (interval, lease) = (Duration::from_millis(interval), Duration::from_millis(lease));
        Ok(Self { name: name.to_owned(), interval, lease, line: format!("profile = \"{name}\"\n") })
    }

    /// Any other pair of intervals.
    pub fn custom(interval: Duration, lease: Duration) -> Self {
        let (i, l) = (interval.as_millis(), lease.as_millis());
        let line = format!("interval = \"{i}ms\"\nlease = \"{l}ms\"\n");
        Self { name: format!("{i}ms/{l}ms"), interval, lease, line }
    }
}

/// Reads the tenures that the gates of a lab's nodes recorded for the group's slot; a node that never had one has none.
pub type Inspect = fn(&Lab) -> Result<Vec<Tenure>>;

/// The agents of a lab.
pub struct Baton {
    profile: Profile,
    members: Vec<Option<Proc>>,
    frozen: Option<Frozen>,
    inspect: Option<Inspect>,
    mounted: bool,
    vips: Vec<IpAddr>,
    /// Machines whose agent finds no BPF file system.
    bare: BTreeSet<String>,
    /// Further lines of the group.
    placement: String,
    /// Further lines of the group's HAProxy, if it has one.
    haproxy: Option<String>,
    /// The group's `[[group.resource]]` sections, as they stand in the file.
    resources: String,
    /// Programs in the lab's folder, by name.
    programs: Vec<(String, String)>,
}

impl Baton {
    /// Agents with a profile, for the VIPs that every lab reserves. `inspect` reads what the gates recorded.
    pub fn new(profile: Profile, inspect: Option<Inspect>) -> Self {
        Self {
            profile,
            members: Vec::new(),
            frozen: None,
            inspect,
            mounted: false,
            vips: Lab::vips().to_vec(),
            bare: BTreeSet::new(),
            placement: String::new(),
            haproxy: None,
            resources: String::new(),
            programs: Vec::new(),
        }
    }

    /// The same with other VIPs in the group. The lab's observers look at [`VIP4`], so it should be among them.
    #[must_use]
    pub fn with_vips(mut self, vips: Vec<IpAddr>) -> Self {
        self.vips = vips;
        self
    }

    /// The agent on this machine will find no place for its BPF maps. On a node it is allowed to go on without.
    #[must_use]
    pub fn without_bpf(mut self, machine: &str) -> Self {
        self.bare.insert(machine.to_owned());
        self
    }

    /// Further lines of the group's configuration, such as `failback = true`.
    #[must_use]
    pub fn placed_by(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.placement);
        self
    }

    /// The group has a HAProxy, configured as [`proxy::configuration`] writes it; further lines of its table.
    #[must_use]
    pub fn with_haproxy(mut self, lines: &str) -> Self {
        self.haproxy = Some(lines.to_owned());
        self
    }

    /// The group's resources: sections `[[group.resource]]` as they stand in the file. `{lab}` is replaced by the lab's folder.
    #[must_use]
    pub fn with_resources(mut self, sections: &str) -> Self {
        sections.clone_into(&mut self.resources);
        self
    }

    /// An executable file in the lab's folder.
    #[must_use]
    pub fn with_program(mut self, name: &str, text: &str) -> Self {
        self.programs.push((name.to_owned(), text.to_owned()));
        self
    }

    /// The agent's program: `BATON_BIN`, or `baton` beside the folder of the running test.
    pub fn program() -> Result<PathBuf> {
        if let Some(path) = std::env::var_os("BATON_BIN") {
            let path = PathBuf::from(path);
            ensure!(path.is_file(), "BATON_BIN names {}, which is no file", path.display());
            return Ok(path);
        }
        let me = std::env::current_exe()?;
        let folders = me.ancestors().skip(1).take(2);
        let found = folders.map(|f| f.join("baton")).find(|f| f.is_file());
        found.context("there is no `baton` program; run `cargo build --package baton`, or set BATON_BIN")
    }

    /// The folder of a voter's agent.
    pub fn folder(lab: &Lab, machine: &Machine) -> PathBuf {
        lab.home().path().join(&machine.name)
    }

    /// The symbolic link by which a voter's agent is started: a test can put another program behind it.
    pub fn link(lab: &Lab, machine: &Machine) -> PathBuf {
        Self::folder(lab, machine).join("baton")
    }

    /// The voter's private BPF file system.
    pub fn bpffs(lab: &Lab, machine: &Machine) -> PathBuf {
        Self::folder(lab, machine).join("bpf")
    }

    /// Runs a command of `baton` against the agent on a voter, and returns what it printed.
    pub fn command(lab: &Lab, machine: &Machine, arguments: &[&str]) -> Result<String> {
        let mut command = machine.ns.command(Self::program()?);
        command.arg("--config").arg(configuration_file(lab, machine)).args(arguments);
        let output = command.output().context("cannot run `baton`")?;
        ensure!(
            output.status.success(),
            "`baton {}` on {} failed ({}): {}",
            arguments.join(" "),
            machine.name,
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The status of the agent on a voter, over its control socket; `None` while none answers.
    pub fn status(lab: &Lab, machine: &Machine) -> Result<Option<Value>> {
        let Ok(answer) = ask(&socket(lab, machine), r#"{"request":"status"}"#) else {
            return Ok(None);
        };
        let answer: Value = serde_json::from_str(&answer).context("the agent's answer is no JSON")?;
        ensure!(answer["response"] == "status", "the agent refused to tell its status: {answer}");
        Ok(Some(answer["status"].clone()))
    }

    fn prepare(&mut self, lab: &Lab) -> Result<()> {
        if self.mounted {
            return Ok(());
        }
        let key = lab.home().path().join("cluster.key");
        let made = Command::new(Self::program()?).arg("keygen").arg(&key).output().context("cannot run `baton`")?;
        ensure!(made.status.success(), "`baton keygen` failed: {}", String::from_utf8_lossy(&made.stderr));
        for (name, text) in &self.programs {
            let path = lab.home().path().join(name);
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        for machine in lab.voters() {
            let folder = Self::folder(lab, machine);
            for part in ["data", "run", "bpf"] {
                fs::create_dir_all(folder.join(part))?;
            }
            symlink(Self::program()?, Self::link(lab, machine))?;
            let bpf = folder.join("bpf");
            if self.haproxy.is_some() && machine.front.is_some() {
                proxy::configuration(lab, machine)?;
            }
            fs::write(configuration_file(lab, machine), self.configuration(lab, machine, &key))?;
            if self.bare.contains(&machine.name) {
                // Nothing can be mounted on a file.
                fs::remove_dir(&bpf)?;
                fs::write(&bpf, "")?;
                continue;
            }
            mount("bpf", &bpf, "bpf", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, c"mode=0700")
                .with_context(|| format!("cannot mount a BPF file system on {}", bpf.display()))?;
        }
        self.mounted = true;
        Ok(())
    }

    /// The file of one voter: `[this]` differs, the rest is the same everywhere.
    fn configuration(&self, lab: &Lab, me: &Machine, key: &Path) -> String {
        let folder = Self::folder(lab, me);
        let folder = folder.display();
        let mut text = format!(
            "[cluster]\nname = \"{CLUSTER}\"\nkey_file = \"{}\"\n{}port = 7420\n\n[this]\nname = \"{}\"\n\
             data_dir = \"{folder}/data\"\nrun_dir = \"{folder}/run\"\nbpffs = \"{folder}/bpf\"\n\
             metrics = \"127.0.0.1:9420\"\nrealtime = true\n",
            key.display(),
            self.profile.line,
            me.name
        );
        if self.bare.contains(&me.name) && me.front.is_some() {
            text.push_str("unenforced_lease = true\n");
        }
        for voter in lab.voters() {
            let backplane: Vec<_> = voter.backplane.iter().map(|a| format!("\"{a}\"")).collect();
            let (role, front) = match voter.front {
                Some(_) => ("node", "front = [\"front0\"]\n"),
                None => ("arbiter", ""),
            };
            // Writing to a string cannot fail.
            write!(
                text,
                "\n[[voter]]\nid = {}\nname = \"{}\"\nrole = \"{role}\"\nbackplane = [{}]\n{front}",
                voter.id,
                voter.name,
                backplane.join(", ")
            )
            .unwrap_or_default();
        }
        write!(text, "\n[[group]]\nname = \"{GROUP}\"\n{}\n", self.placement).unwrap_or_default();
        if let Some(lines) = &self.haproxy {
            let file = |m: &Machine| format!("{} = \"{}\"", m.name, proxy::file(lab, m).display());
            let files: Vec<_> = lab.nodes.iter().map(file).collect();
            write!(text, "\n[[group.haproxy]]\nconfig = {{ {} }}\n{lines}\n", files.join(", ")).unwrap_or_default();
        }
        write!(text, "\n{}\n", self.resources.replace("{lab}", &lab.home().path().display().to_string()))
            .unwrap_or_default();
        for vip in &self.vips {
            // Those of the front's own networks carry its prefix; all others stand for themselves.
            let prefix = match vip {
                IpAddr::V4(v4) if *v4 == VIP4 => 24,
                IpAddr::V6(v6) if *v6 == VIP6 => 64,
                IpAddr::V4(_) => 32,
                IpAddr::V6(_) => 128,
            };
            write!(text, "\n[[group.vip]]\naddress = \"{vip}/{prefix}\"\ndevice = \"front0\"\n").unwrap_or_default();
        }
        text
    }

    /// The statuses of all voters whose agent answers.
    fn statuses(&self, lab: &Lab) -> Result<Vec<Value>> {
        let all: Result<Vec<_>> = lab.voters().map(|machine| Self::status(lab, machine)).collect();
        Ok(all?.into_iter().flatten().collect())
    }
}

/// The control socket of the agent on a voter.
pub fn socket(lab: &Lab, machine: &Machine) -> PathBuf {
    Baton::folder(lab, machine).join("run/control.sock")
}

fn configuration_file(lab: &Lab, machine: &Machine) -> PathBuf {
    Baton::folder(lab, machine).join("baton.toml")
}

/// One request over a control socket: a line up, a line down.
fn ask(socket: &Path, request: &str) -> Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    writeln!(stream, "{request}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer)
}

fn group(status: &Value) -> &Value {
    let groups = status["groups"].as_array();
    groups.and_then(|groups| groups.iter().find(|g| g["name"] == GROUP)).unwrap_or(&Value::Null)
}

impl System for Baton {
    fn name(&self) -> &str {
        "baton"
    }

    fn profile(&self) -> &str {
        &self.profile.name
    }

    fn period(&self) -> Duration {
        self.profile.interval
    }

    fn lease(&self) -> Option<Duration> {
        Some(self.profile.lease)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn start(&mut self, lab: &Lab) -> Result<()> {
        self.prepare(lab)?;
        self.frozen = None;
        self.members.resize_with(lab.voters().count(), || None);
        for (member, machine) in self.members.iter_mut().zip(lab.voters()) {
            if member.as_mut().is_some_and(Proc::is_running) {
                continue;
            }
            *member = None;
            let mut command = Command::new(Self::link(lab, machine));
            command.arg("--config").arg(configuration_file(lab, machine)).args(["agent", "--name", &machine.name]);
            *member = Some(Proc::spawn(lab.home(), &machine.ns, &format!("baton-{}", machine.name), command)?);
        }
        Ok(())
    }

    /// All agents answer and agree on the owner, the owner serves, a standby could take over, and the leader is off the
    /// owner.
    fn ready(&mut self, lab: &Lab) -> Result<bool> {
        for member in self.members.iter_mut().flatten() {
            if !member.is_running() {
                bail!("{} ended by itself:\n{}", member.name(), member.output());
            }
        }
        let statuses = self.statuses(lab)?;
        let Some(owner) = statuses.first().and_then(|s| group(s)["owner"].as_str()) else {
            return Ok(false);
        };
        let agreed = statuses.iter().all(|s| {
            let voters = s["voters"].as_array();
            group(s)["owner"] == owner
                && s["quorum"] == true
                && s["leader"].is_string()
                && s["leader"] != owner
                && (s["role"] != "node" || s["lease"]["held"] == true)
                && voters.is_some_and(|v| v.iter().all(|v| v["life"] == "alive"))
                && group(s)["moving_to"].is_null()
        });
        let serves = statuses.iter().any(|s| s["node"] == owner && group(s)["serving_here"] == true);
        let spare = statuses.iter().any(|s| group(s)["candidates"].as_array().is_some_and(|c| !c.is_empty()));
        Ok(statuses.len() == self.members.len() && agreed && serves && spare)
    }

    fn settled(&mut self, lab: &Lab) -> Result<bool> {
        let drained = |s: &Value| group(s)["draining_on"].is_null();
        Ok(self.ready(lab)? && self.statuses(lab)?.iter().all(drained))
    }

    fn owner(&mut self, lab: &Lab) -> Result<Option<usize>> {
        let statuses = self.statuses(lab)?;
        let newest = statuses.iter().map(group).max_by_key(|g| g["epoch"].as_u64());
        Ok(newest.and_then(|g| g["owner"].as_str()).and_then(|name| lab.node(name)))
    }

    fn process(&mut self, node: usize) -> Option<&mut Proc> {
        self.members.get_mut(node)?.as_mut()
    }

    fn arbiter_process(&mut self) -> Option<&mut Proc> {
        self.members.last_mut()?.as_mut()
    }

    fn planned_move(&mut self, lab: &Lab, from: usize, to: usize) -> Result<()> {
        let (from, to) = (&lab.nodes[from], &lab.nodes[to]);
        Self::command(lab, from, &["move", "--no-wait", GROUP, &to.name]).map(drop)
    }

    fn wedge(&mut self, _lab: &Lab, node: usize) -> Result<()> {
        let pid = self.process(node).context("no agent runs there")?.pid();
        self.frozen = Some(Frozen::all_but(pid, PULSE)?);
        Ok(())
    }

    /// Every owner has an epoch of its own.
    fn takeovers(&mut self, lab: &Lab) -> Result<u64> {
        let epochs = self.statuses(lab)?;
        epochs.iter().filter_map(|s| group(s)["epoch"].as_u64()).max().context("no agent tells its epoch")
    }

    fn tenures(&mut self, lab: &Lab) -> Result<Option<Vec<Tenure>>> {
        self.inspect.map(|inspect| inspect(lab)).transpose()
    }

    fn logs(&mut self) -> String {
        self.members.iter().flatten().map(|m| format!("--- {}\n{}\n", m.name(), m.output())).collect()
    }

    fn kill(&mut self, node: usize) -> Result<()> {
        // A frozen thread belongs to its tracer: let go first, so that the process can end.
        self.frozen = None;
        self.process(node).context("no agent runs there")?.kill()
    }

    fn stop(&mut self) -> Result<()> {
        self.frozen = None;
        for member in self.members.iter_mut().flatten() {
            if member.is_running() {
                member.resume()?;
                member.signal(rustix::process::Signal::TERM)?;
            }
        }
        for member in self.members.iter_mut().flatten() {
            member.terminate(STOP_LIMIT)?;
        }
        self.members.clear();
        Ok(())
    }
}
