//! What the groups of the configuration consist of on this machine: their VIPs for the gate, their resources for the executor.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use tracing::warn;

use super::{
    executor::{Policy, Slot, Stack},
    slots::Slots,
};
use crate::{
    cluster::ids::GroupId,
    config::{ADDRESSES, Config, Group, HAPROXY, OnFailed},
    kernel::{Device, VipRow},
    resources::{
        Common, Notifier,
        build::build,
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

/// The resources of the groups that may run on this machine. What they report by themselves goes to `notifier`.
pub(super) fn stacks(
    config: &Config,
    gated: Option<&[Device]>,
    notifier: &Notifier,
) -> anyhow::Result<BTreeMap<GroupId, Stack>> {
    let mine = config.shared.groups.values().filter(|g| g.nodes.contains(&config.this.id));
    mine.map(|group| Ok((group.id.clone(), stack(config, group, gated, notifier)?))).collect()
}

/// Resources and HAProxys first, then the addresses, then what requires them.
fn stack(config: &Config, group: &Group, gated: Option<&[Device]>, notifier: &Notifier) -> anyhow::Result<Stack> {
    let mut slots: Vec<Slot> = group
        .resources
        .iter()
        .map(|resource| Slot {
            policy: policy(resource.on_failure),
            ..Slot::plain(
                &resource.name,
                resource.kind.word(),
                build(Common::of(config, group, resource), &resource.kind, notifier),
            )
        })
        .collect();
    let haproxies = Setup::of(config, group).into_iter();
    slots.extend(haproxies.map(|setup| Slot::plain(HAPROXY, HAPROXY, Box::new(Haproxy::new(setup, notifier.clone())))));
    let knowledge = !group.haproxies.is_empty();
    let (vip, addresses) = addresses(config, group, gated)?;
    slots.push(Slot::plain(ADDRESSES, ADDRESSES, Box::new(vip)));
    let names: Vec<(String, Vec<String>)> = slots
        .iter()
        .map(|slot| {
            let resource = group.resources.iter().find(|r| r.name == slot.name);
            (slot.name.clone(), resource.map(|r| r.requires.clone()).unwrap_or_default())
        })
        .collect();
    for (slot, requires) in slots.iter_mut().zip(order(&names)) {
        slot.requires = requires;
    }
    Ok(Stack {
        slots,
        addresses,
        knowledge,
        stops_first: group.stop_limit().is_some(),
        threshold: group.migration_threshold,
        failure_timeout: group.failure_timeout_ns,
    })
}

fn policy(on_failure: OnFailed) -> Policy {
    match on_failure {
        OnFailed::Restart => Policy::Restart,
        OnFailed::Move => Policy::Move,
        OnFailed::Ignore => Policy::Ignore,
    }
}

/// What each slot requires, by number. The addresses, the last slot, require all that does not require them.
fn order(slots: &[(String, Vec<String>)]) -> Vec<Vec<usize>> {
    let named = |name: &str| {
        slots.iter().enumerate().filter(move |(_, (n, _))| n == name).map(|(at, _)| at).collect::<Vec<_>>()
    };
    let mut requires: Vec<Vec<usize>> =
        slots.iter().map(|(_, names)| names.iter().flat_map(|n| named(n)).collect()).collect();
    let Some(addresses) = slots.len().checked_sub(1) else { return requires };
    let mut after = BTreeSet::from([addresses]);
    while let Some(more) =
        (0..addresses).find(|at| !after.contains(at) && requires[*at].iter().any(|r| after.contains(r)))
    {
        after.insert(more);
    }
    requires[addresses] = (0..addresses).filter(|at| !after.contains(at)).collect();
    requires
}

/// The resource that carries the group's addresses here, and how many they are.
fn addresses(config: &Config, group: &Group, gated: Option<&[Device]>) -> anyhow::Result<(Vip, usize)> {
    let me = config.this.id;
    let specs: Vec<VipSpec> = group
        .vips
        .iter()
        .filter_map(|vip| {
            let device = vip.device.get(&me)?;
            Some(VipSpec { prefix: vip.prefix, ..VipSpec::host(vip.address, device) })
        })
        .collect();
    let count = specs.len();
    let mut vip = Vip::new(&format!("{}/vip", group.id), specs)
        .with_context(|| format!("the addresses of group {} cannot be prepared", group.id))?;
    if let Some(gated) = gated {
        vip.confine(&gated.iter().map(|device| device.ifindex).collect());
    }
    for device in vip.missing() {
        warn!(group = %group.id, device, "the device does not exist yet; its addresses wait for it");
    }
    Ok((vip, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order_of(slots: &[(&str, &[&str])]) -> Vec<Vec<usize>> {
        let owned = |(name, requires): &(&str, &[&str])| {
            ((*name).to_owned(), requires.iter().map(|r| (*r).to_owned()).collect())
        };
        order(&slots.iter().map(owned).collect::<Vec<_>>())
    }

    #[test]
    fn addresses_come_after_all_that_does_not_require_them() {
        let stack = [
            ("data", &[][..]),
            ("db", &["data"]),
            ("tell", &["vip"]),
            ("more", &["tell"]),
            ("haproxy", &[]),
            ("vip", &[]),
        ];
        assert_eq!(order_of(&stack), [vec![], vec![0], vec![5], vec![2], vec![], vec![0, 1, 4]]);
    }

    #[test]
    fn a_group_may_be_addresses_alone() {
        assert_eq!(order_of(&[("vip", &[])]), [Vec::<usize>::new()]);
    }
}
