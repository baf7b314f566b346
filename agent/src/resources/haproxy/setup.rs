//! What a HAProxy is on this node, and what the configuration says of it.

use std::path::PathBuf;

use crate::{
    cluster::ids::GroupId,
    config::{self, Config, Group},
};

/// What a HAProxy is on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// The group.
    pub group: GroupId,
    /// The resource's name; its files in the run directory are named after it, too.
    pub name: String,
    /// This node's name, which is also its name among HAProxy's peers where the configuration has it there.
    pub node: String,
    /// HAProxy's configuration on this node.
    pub config: PathBuf,
    /// Where its record and its output are kept, over a restart of the agent.
    pub run_dir: PathBuf,
    /// Its part of the configuration.
    pub spec: config::Haproxy,
    /// Whether it is watched with realtime priority.
    pub realtime: bool,
}

impl Setup {
    /// The HAProxys of a group on this machine: "web/haproxy", "web/haproxy-2".
    pub fn of(config: &Config, group: &Group) -> Vec<Self> {
        let this = &config.this;
        let here =
            group.haproxies.iter().enumerate().filter_map(|(n, spec)| Some((n, spec, spec.config.get(&this.id)?)));
        here.map(|(n, spec, file)| Self {
            group: group.id.clone(),
            name: if n == 0 { format!("{}/haproxy", group.id) } else { format!("{}/haproxy-{}", group.id, n + 1) },
            node: this.name.to_string(),
            config: file.clone(),
            run_dir: this.run_dir.clone(),
            spec: spec.clone(),
            realtime: this.realtime,
        })
        .collect()
    }
}
