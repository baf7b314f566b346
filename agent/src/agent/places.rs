//! Where the configuration's links are on this machine: which device carries each backplane address, and which are the fronts.

use anyhow::{Context as _, anyhow};
use tracing::{info, warn};

use crate::{
    config::Config,
    kernel::Device,
    netlink::{
        RequestSocket, address,
        link::{self, Link},
        sysctl,
    },
};

/// The devices of this machine, by what they are for.
#[derive(Clone, Debug)]
pub struct Places {
    /// The device of each backplane link, in order.
    pub links: Vec<Device>,
    /// The front devices.
    pub fronts: Vec<Device>,
    /// Every other Ethernet device: a VIP's packets must not leave by it.
    pub others: Vec<Device>,
}

impl Places {
    /// Looks the devices up. A backplane address that stands nowhere and a front that does not exist are errors.
    pub fn find(config: &Config) -> anyhow::Result<Self> {
        let me = config.me().ok_or_else(|| anyhow!("this machine is not among the voters"))?;
        let mut socket = RequestSocket::open()?;
        let all = link::list(&mut socket)?;
        let mut links = Vec::new();
        for (number, wanted) in me.links.iter().enumerate() {
            let mut found = None;
            for link in &all {
                if address::list(&mut socket, link.index)?.iter().any(|a| a.ip == wanted.address) {
                    found = Some(device(link));
                    break;
                }
            }
            links.push(found.ok_or_else(|| {
                anyhow!(
                    "backplane address {} (link {number} of {}) stands on no device of this machine: bring the link up \
                     before the agent, or correct `backplane` or the name under [this]",
                    wanted.address,
                    me.name
                )
            })?);
        }
        let fronts = me
            .front
            .iter()
            .map(|name| {
                let link = link::by_name(&mut socket, name)
                    .with_context(|| format!("front device {name} of {} cannot be used", me.name))?;
                Ok(device(&link))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let taken = |link: &Link| links.iter().chain(&fronts).any(|d| d.ifindex == link.index);
        let others = all.iter().filter(|l| l.mac.is_some() && l.name != "lo" && !taken(l)).map(device).collect();
        Ok(Self { links, fronts, others })
    }

    /// Sets what a failover needs below /proc/sys/net, and says so; what cannot be set is warned of.
    pub fn set_sysctls(&self, config: &Config) {
        if config.me().is_none_or(|me| me.front.is_empty()) {
            return;
        }
        let fronts = self.fronts.iter().map(|d| (&sysctl::FRONT[..], d));
        for (requirements, device) in fronts {
            match sysctl::check(requirements, &device.name) {
                Ok(findings) => {
                    for finding in findings {
                        match finding.apply() {
                            Ok(()) => info!(was = %finding, "setting changed"),
                            Err(error) => warn!(%finding, %error, "setting could not be changed"),
                        }
                    }
                }
                Err(error) => warn!(device = device.name, %error, "settings could not be read"),
            }
        }
    }
}

fn device(link: &Link) -> Device {
    Device { ifindex: link.index, name: link.name.clone() }
}
