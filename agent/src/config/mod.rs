//! The configuration: one TOML file for all machines of a cluster, plus who this machine is (docs/configuration.md).
//!
//! [`load`] reads it, and refuses it with *all* its mistakes at once, each with its line and what would be right.

mod cluster;
mod constraints;
mod diagnostic;
mod digest;
pub mod duration;
mod groups;
mod haproxy;
pub mod key;
pub mod kinds;
mod model;
mod raw;
mod reader;
mod resources;
pub mod size;
#[cfg(test)]
mod tests;
mod voters;

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use toml::de::DeTable;

pub(crate) use self::diagnostic::did_you_mean;
pub use self::{
    constraints::Capacity,
    diagnostic::{ConfigError, Mistake},
    groups::{GROUPS_MAX, VIPS_MAX},
    key::{ClusterKey, KeyError},
    kinds::{Kind, Script},
    model::{
        Config, DrainMode, Group, Haproxy, Hook, Link, Managed, OnFailed, OnFailure, Resource, Shared, This, Vip, Voter,
    },
    resources::{ADDRESSES, HAPROXY},
};
use self::{diagnostic::Mistakes, raw::Raw};

/// Where the configuration is, unless the command line says otherwise.
pub const CONFIG_FILE: &str = "/etc/baton/baton.toml";
/// Where the control socket is, unless the configuration says otherwise.
pub const RUN_DIR: &str = "/run/baton";
/// No configuration is larger than this.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A configuration without mistakes, and what it is doubtful about.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The warnings with their places, if there are any; render it for people.
    pub warnings: Option<Box<ConfigError>>,
}

/// Reads and checks a file. `name` says which voter this machine is; otherwise the file or the host name does.
pub fn load(file: &Path, name: Option<&str>) -> Result<Loaded, Box<ConfigError>> {
    let text = read(file)?;
    check(file, &text, name)
}

/// The control socket of the agent on this machine, by its configuration; other mistakes in the file do not matter.
///
/// A file that is not there means the default: the command line works without one.
pub fn socket_of(file: Option<&Path>) -> Result<PathBuf, Box<ConfigError>> {
    let text = match file {
        Some(file) => read(file)?,
        None => fs::read_to_string(CONFIG_FILE).unwrap_or_default(),
    };
    let (document, _errors) = DeTable::parse_recoverable(&text);
    let mut m = Mistakes::new(&text);
    let this = Raw::read(document.get_ref(), &mut m).this;
    let run_dir = this.run_dir.map_or_else(|| RUN_DIR.to_owned(), |d| d.value);
    Ok(socket_in(Path::new(&run_dir)))
}

/// The control socket in a run directory.
pub fn socket_in(run_dir: &Path) -> PathBuf {
    run_dir.join("control.sock")
}

fn read(file: &Path) -> Result<String, Box<ConfigError>> {
    let refuse = |message: String, help: &str| {
        let mut m = Mistakes::new("");
        m.error_nowhere(message, help);
        ConfigError::new(file, "", m.into_list())
    };
    let unreadable =
        |e: std::io::Error| refuse(format!("it cannot be read: {e}"), "name the right file by `--config FILE`");
    let handle = fs::File::open(file).map_err(unreadable)?;
    if !handle.metadata().map_err(unreadable)?.is_file() {
        return Err(refuse("it is not a regular file".into(), "name the right file by `--config FILE`"));
    }
    let mut bytes = Vec::new();
    handle.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(refuse("it is larger than 4 MiB".into(), "no configuration is that large: name the right file"));
    }
    String::from_utf8(bytes).map_err(|e| refuse(format!("it is not UTF-8 text: {e}"), "name a TOML file"))
}

/// Checks a text. Mistakes of syntax, of schema and between keys are all reported together where they can be told apart.
fn check(file: &Path, text: &str, name: Option<&str>) -> Result<Loaded, Box<ConfigError>> {
    let mut m = Mistakes::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for e in &errors {
        let span = e.span().unwrap_or(0..0);
        // The first error of a line says what is wrong; the next ones are its echo.
        if !m.blames_line_of(&span) {
            m.error(&span, format!("this is not TOML: {}", e.message()), "see https://toml.io for how to write it");
        }
    }
    let broken_lines = m.lines();
    let raw = Raw::read(document.get_ref(), &mut m);
    if !errors.is_empty() {
        // The parser guesses on: values of its own making have an empty span, and keys that are there may be lost to it.
        let missing = |t: &str| t.contains(" has no `") || t.contains("has no section");
        m.retain_since(broken_lines.len(), |mistake| {
            let real = mistake.span.as_ref().is_some_and(|s| !s.is_empty());
            real && !broken_lines.contains(&mistake.line) && !missing(&mistake.message)
        });
        return Err(ConfigError::new(file, text, m.into_list()));
    }
    let cluster = cluster::check_cluster(&raw.cluster, file, &mut m);
    let this = cluster::check_this(&raw.this, &mut m);
    let voters = voters::check_voters(&raw.voters, &mut m);
    let me = voters::who_am_i(&raw.this, name, &voters, &mut m);
    let groups = groups::check_groups(&raw.groups, &voters, &mut m);
    let refused = m.any_error();
    let mistakes = m.into_list();
    let (false, Some(id), Some(key)) = (refused, me, cluster.key) else {
        return Err(ConfigError::new(file, text, mistakes));
    };
    let shared = Shared { name: cluster.name, timing: cluster.timing, port: cluster.port, voters, groups };
    let digest = match digest::digest(&shared) {
        Ok(digest) => digest,
        Err(e) => {
            let mut m = Mistakes::new(text);
            m.error_nowhere(format!("its digest cannot be taken: {e}"), "report this as a bug of Baton");
            return Err(ConfigError::new(file, text, m.into_list()));
        }
    };
    let this = This {
        id,
        name: shared.name_of(id),
        data_dir: this.data_dir,
        run_dir: this.run_dir,
        bpffs: this.bpffs,
        metrics: this.metrics,
        unenforced_lease: this.unenforced_lease,
        realtime: this.realtime,
        starts_at_once: this.starts_at_once,
    };
    let texts = mistakes.iter().map(|w| format!("{}: {}", w.message, w.help)).collect();
    let warnings = (!mistakes.is_empty()).then(|| ConfigError::new(file, text, mistakes));
    Ok(Loaded { config: Config { shared, this, key, digest, warnings: texts }, warnings })
}
