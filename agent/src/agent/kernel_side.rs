//! The kernel side at the start: as a keeper has kept it, attached, or in memory where that is allowed.

use anyhow::anyhow;
use tracing::{info, warn};

use super::{places::Places, slots::Slots, stacks};
use crate::{
    cluster::ids::{Incarnation, Role},
    config::{Config, Hook},
    keeper::Held,
    kernel::{self, Chain, Kernel, KernelConfig, LinkConfig, LinkHook},
};

/// The kernel side: BPF, or memory where that is allowed; as a keeper has kept it, if there is one.
pub(super) fn take(
    config: &Config,
    incarnation: Incarnation,
    places: &Places,
    slots: &Slots,
) -> anyhow::Result<(Kernel, Option<Held>)> {
    let me = config.me().ok_or_else(|| anyhow!("this machine is not among the voters"))?;
    let links = places.links.iter().zip(&me.links).map(|(device, link)| LinkConfig {
        device: device.clone(),
        hook: match link.hook {
            Hook::Auto => LinkHook::Auto,
            Hook::Tc => LinkHook::Tc,
            Hook::Xdp => LinkHook::Xdp,
        },
    });
    let kernel_config = KernelConfig {
        cluster: config.shared.name.clone(),
        cluster_id: config.cluster_hash(),
        node: config.this.name.to_string(),
        bpffs: config.this.bpffs.clone(),
        me: config.this.id,
        voters: config.shared.voters.keys().copied().collect(),
        key: config.key.beat_key(&config.shared.name),
        port: config.shared.port,
        incarnation,
        lease_ns: config.shared.timing.lease_ns,
        links: links.collect(),
        fronts: places.fronts.clone(),
        others: places.others.clone(),
        vips: stacks::vips(config, slots, &places.fronts),
        chain: Chain::Auto,
        realtime: config.this.realtime,
    };
    if let Some(held) = Held::find(&config.this.run_dir) {
        let (kept, hello) = (kernel::adopt(&kernel_config, held.hello().incarnation), held.hello());
        match kept {
            Ok(kernel) if hello.groups == slots.groups() => {
                info!(of = hello.incarnation, "a keeper beats for this machine: the gates go on as they are");
                return Ok((kernel, Some(held)));
            }
            Ok(_) => warn!("the configuration has other groups now: an ordinary start, which closes the gates first"),
            Err(error) => {
                warn!(error = %anyhow::Error::new(error), "an ordinary start, which closes the gates first");
            }
        }
        if let Err(error) = held.watch(|| ()) {
            warn!(%error, "nobody waits for the keeper's end");
        }
        held.end();
    }
    match kernel::attach(&kernel_config) {
        Ok(kernel) => Ok((kernel, None)),
        Err(error) if me.role == Role::Arbiter || config.this.unenforced_lease => {
            warn!(error = %anyhow::Error::new(error), "no BPF: the agent answers heartbeats itself, nothing is enforced");
            Ok((kernel::in_memory(&kernel_config)?, None))
        }
        Err(error) => Err(anyhow::Error::new(error).context(
            "the gate cannot be enforced without BPF; `unenforced_lease = true` under [this] goes on without it, and \
             then two owners are possible while an agent is stopped",
        )),
    }
}
