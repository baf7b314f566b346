//! What the groups of the configuration consist of on this machine: their VIPs for the gate, their resources for the executor.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;
use tracing::warn;

use super::{executor::Stack, slots::Slots};
use crate::{
    cluster::ids::GroupId,
    config::{Config, Group},
    kernel::{Device, Exits, VipRow},
    resources::{
        Notifier, Resource,
        haproxy::{Haproxy, Setup},
        vip::{Vip, VipSpec},
    },
};

/// Each VIP with its group's slot and the front that carries it here.
pub(super) fn vips(config: &Config, slots: &Slots, fronts: &[Device]) -> Vec<VipRow> {
    let me = config.this.id;
    let front = |name: &str| fronts.iter().find(|device| device.name == name).map_or(0, |device| device.ifindex);
    let groups = config.shared.groups.values();
    let rows = groups.filter_map(|group| Some((slots.of(&group.id)?, group)));
    rows.flat_map(|(slot, group)| group.vips.iter().map(move |vip| (slot, vip)))
        .map(|(slot, vip)| VipRow {
            address: vip.address,
            slot,
            front: vip.device.get(&me).map_or(0, |name| front(name)),
        })
        .collect()
}

/// The resources of the groups that may run on this machine. What they report by themselves goes to `notifier`;
/// `exits` tells them early that a process ends.
pub(super) fn stacks(
    config: &Config,
    gated: Option<&[Device]>,
    notifier: &Notifier,
    exits: Option<&Arc<Exits>>,
) -> anyhow::Result<BTreeMap<GroupId, Stack>> {
    let mine = config.shared.groups.values().filter(|g| g.nodes.contains(&config.this.id));
    mine.map(|group| Ok((group.id.clone(), stack(config, group, gated, notifier, exits)?))).collect()
}

/// HAProxys first: a group whose HAProxy is dead must not announce its addresses.
fn stack(
    config: &Config,
    group: &Group,
    gated: Option<&[Device]>,
    notifier: &Notifier,
    exits: Option<&Arc<Exits>>,
) -> anyhow::Result<Stack> {
    let me = config.this.id;
    let haproxy = |setup| Box::new(Haproxy::new(setup, notifier.clone(), exits.cloned())) as Box<dyn Resource>;
    let mut resources: Vec<Box<dyn Resource>> = Setup::of(config, group).into_iter().map(haproxy).collect();
    let knowledge = !resources.is_empty();
    let specs: Vec<VipSpec> = group
        .vips
        .iter()
        .filter_map(|vip| {
            let device = vip.device.get(&me)?;
            Some(VipSpec { prefix: vip.prefix, ..VipSpec::host(vip.address, device) })
        })
        .collect();
    let addresses = specs.len();
    let mut vip = Vip::new(&format!("{}/vip", group.id), specs)
        .with_context(|| format!("the addresses of group {} cannot be prepared", group.id))?;
    if let Some(gated) = gated {
        vip.confine(&gated.iter().map(|device| device.ifindex).collect());
    }
    for device in vip.missing() {
        warn!(group = %group.id, device, "the device does not exist yet; its addresses wait for it");
    }
    resources.push(Box::new(vip));
    Ok(Stack { resources, addresses, knowledge })
}
