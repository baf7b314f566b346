//! Checks `[[group]]` and `[[group.vip]]`: who may run a group, and addresses that overlap nothing.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    ops::Range,
};

use super::{
    cluster::{check_duration, check_name},
    constraints,
    diagnostic::{Mistakes, did_you_mean},
    fence, haproxy,
    model::{DRAIN_TIMEOUT, FAILURE_TIMEOUT, Group, MIGRATION_THRESHOLD, Vip, Voter},
    raw::{RawByNode, RawGroup, RawVip, SCORE_MAX},
    reader::At,
    resources,
    voters::{check_device, unusable},
};
use crate::cluster::ids::{GroupId, MILLISECOND, Nanos, Role, VoterId};

/// As many groups as the gate has slots for.
pub const GROUPS_MAX: usize = 256;
/// As many VIPs, over all groups, as the gate's map holds.
pub const VIPS_MAX: usize = 4096;
/// How long a drain may last: below a second the neighbours may not have learned of the new owner.
const DRAIN: (Nanos, Nanos) = (1_000 * MILLISECOND, 24 * 3_600_000 * MILLISECOND);
/// How long a failure may be remembered.
const FAILURE: (Nanos, Nanos) = (1_000 * MILLISECOND, 30 * 24 * 3_600_000 * MILLISECOND);
/// The score of staying, unless the group says otherwise: as high as scores that people choose without thinking.
const STICKINESS: i32 = 100;

/// Who holds an address already, for messages.
type Taken = HashMap<IpAddr, String>;

/// Checks all groups against the voters.
pub(super) fn check_groups(
    raw: &[RawGroup],
    voters: &BTreeMap<VoterId, Voter>,
    m: &mut Mistakes<'_>,
) -> BTreeMap<GroupId, Group> {
    if raw.is_empty() {
        m.warning_nowhere(
            "the file has no [[group]], so there is nothing to keep alive",
            "add a [[group]] with a [[group.vip]]",
        );
    }
    if let Some(surplus) = raw.get(GROUPS_MAX) {
        m.error(&surplus.span, format!("there are {} groups", raw.len()), format!("at most {GROUPS_MAX} are possible"));
    }
    let vips: usize = raw.iter().map(|g| g.vips.len()).sum();
    if vips > VIPS_MAX {
        m.error_nowhere(format!("there are {vips} VIPs"), format!("at most {VIPS_MAX} are possible in a cluster"));
    }
    let mut taken: Taken = voters
        .values()
        .flat_map(|v| v.links.iter().map(|l| (l.address, format!("the backplane of \"{}\"", v.name))))
        .collect();
    let mut run = haproxy::Run::default();
    let mut groups = BTreeMap::new();
    for r in raw {
        let group = check_group(r, voters, &mut taken, &mut run, m);
        let Some(name) = &r.name else { continue };
        check_name(name, "the group's name", m);
        if groups.insert(group.id.clone(), group).is_some() {
            m.error(
                &name.span,
                format!("two groups are called \"{}\"", name.value),
                "give each group a name of its own",
            );
        }
    }
    constraints::check(raw, &groups, voters, m);
    groups
}

fn check_group(
    r: &RawGroup,
    voters: &BTreeMap<VoterId, Voter>,
    taken: &mut Taken,
    run: &mut haproxy::Run,
    m: &mut Mistakes<'_>,
) -> Group {
    let name = r.name.as_ref().map_or("?", |n| &n.value);
    let nodes = check_nodes(r, voters, m);
    let mut prefer = BTreeMap::new();
    for (node, score) in &r.prefer {
        let Some(voter) = node_named(node, voters, m) else {
            continue;
        };
        if nodes.contains(&voter.id) {
            prefer.insert(voter.id, i32::try_from(score.value).unwrap_or(0));
        } else {
            m.error(
                &node.span,
                format!("\"{}\" is preferred, but not among the `nodes` of this group", node.value),
                "add it to `nodes`, or remove its score",
            );
        }
    }
    if r.vips.is_empty() && r.resources.is_empty() {
        let help = "add a [[group.vip]] with an `address`, or a [[group.resource]]";
        m.error(&r.span, format!("the group \"{name}\" has no VIP and no resource"), help);
    }
    let vips = r.vips.iter().filter_map(|v| check_vip(v, name, &nodes, voters, taken, m)).collect();
    let haproxies = r.haproxies.iter().map(|h| haproxy::check(h, name, &nodes, voters, run, m)).collect();
    let resources = resources::check(&r.resources, m);
    let fence = fence::check(r.fence.as_ref(), &r.resources, name, m);
    let stickiness = r.stickiness.as_ref().and_then(|s| i32::try_from(s.value).ok()).unwrap_or(STICKINESS);
    debug_assert!(i64::from(stickiness) <= SCORE_MAX);
    Group {
        id: GroupId::new(name),
        nodes,
        prefer,
        stickiness,
        failback: r.failback.as_ref().is_some_and(|f| f.value),
        drain_timeout_ns: r
            .drain_timeout
            .as_ref()
            .and_then(|d| check_duration(d, "drain_timeout", DRAIN, m))
            .unwrap_or(DRAIN_TIMEOUT),
        vips,
        haproxies,
        resources,
        fence,
        migration_threshold: r
            .migration_threshold
            .as_ref()
            .and_then(|t| u32::try_from(t.value).ok())
            .unwrap_or(MIGRATION_THRESHOLD),
        failure_timeout_ns: r
            .failure_timeout
            .as_ref()
            .and_then(|d| check_duration(d, "failure_timeout", FAILURE, m))
            .unwrap_or(FAILURE_TIMEOUT),
        constraints: r.constraints.values(),
    }
}

/// The nodes that may run the group: those named, else all.
fn check_nodes(r: &RawGroup, voters: &BTreeMap<VoterId, Voter>, m: &mut Mistakes<'_>) -> Vec<VoterId> {
    let Some(given) = &r.nodes else {
        return voters.values().filter(|v| v.role == Role::Node).map(|v| v.id).collect();
    };
    if given.value.is_empty() {
        m.error(
            &given.span,
            "`nodes` is empty, so nobody may run this group",
            "name the nodes that may, or leave `nodes` out for all",
        );
    }
    let mut nodes = Vec::new();
    for node in &given.value {
        let Some(voter) = node_named(node, voters, m) else {
            continue;
        };
        if nodes.contains(&voter.id) {
            m.error(&node.span, format!("\"{}\" is named twice", node.value), "name it once");
        } else {
            nodes.push(voter.id);
        }
    }
    nodes.sort_unstable();
    nodes
}

/// The voter with this name, if it is a node; a mistake otherwise.
pub(super) fn node_named<'v>(
    name: &At<String>,
    voters: &'v BTreeMap<VoterId, Voter>,
    m: &mut Mistakes<'_>,
) -> Option<&'v Voter> {
    let nodes = || voters.values().filter(|v| v.role == Role::Node).map(|v| &*v.name);
    let help = || format!("the nodes are: {}", nodes().collect::<Vec<_>>().join(", "));
    match voters.values().find(|v| *v.name == *name.value) {
        Some(v) if v.role == Role::Node => Some(v),
        Some(_) => {
            m.error(&name.span, format!("\"{}\" is an arbiter and runs no group", name.value), help());
            None
        }
        None => {
            m.error(
                &name.span,
                format!("no node is called \"{}\"{}", name.value, did_you_mean(&name.value, nodes())),
                help(),
            );
            None
        }
    }
}

fn check_vip(
    r: &RawVip,
    group: &str,
    nodes: &[VoterId],
    voters: &BTreeMap<VoterId, Voter>,
    taken: &mut Taken,
    m: &mut Mistakes<'_>,
) -> Option<Vip> {
    let device = check_devices(r, nodes, voters, m);
    let (address, prefix) = check_address(r.address.as_ref()?, group, taken, m)?;
    Some(Vip { address, prefix, device })
}

fn check_address(given: &At<String>, group: &str, taken: &mut Taken, m: &mut Mistakes<'_>) -> Option<(IpAddr, u8)> {
    let text = &given.value;
    let (address, prefix) = text.split_once('/').map_or((text.as_str(), None), |(a, p)| (a, Some(p)));
    let Ok(address) = address.parse::<IpAddr>() else {
        m.error(
            &given.span,
            format!("\"{text}\" is no address of a VIP"),
            "write it with its prefix length: \"192.0.2.10/24\" or \"2001:db8::10/64\"",
        );
        return None;
    };
    if let Some(why) = unusable(address) {
        m.error(
            &given.span,
            format!("{address} cannot be a VIP: {why}"),
            "choose a free unicast address of the front network",
        );
    }
    if let Some(owner) = taken.insert(address, format!("group \"{group}\"")) {
        m.error(
            &given.span,
            format!("the VIP {address} is taken by {owner} already"),
            "an address can stand in one place only: choose a free one",
        );
    }
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let Some(prefix) = prefix else {
        m.error(
            &given.span,
            format!("the VIP {address} has no prefix length"),
            format!("write that of its network, such as \"{address}/24\", or \"{address}/{longest}\" for none"),
        );
        return None;
    };
    let digits = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
    let Some(prefix) = prefix.parse::<u8>().ok().filter(|p| digits && (1..=longest).contains(p)) else {
        m.error(
            &given.span,
            format!("\"/{prefix}\" is no prefix length of {address}"),
            format!("write a number from 1 to {longest}"),
        );
        return None;
    };
    if let IpAddr::V4(v4) = address
        && prefix < 31
    {
        let host_bits = u32::from(v4) & (u32::MAX >> prefix);
        if host_bits == 0 || host_bits == u32::MAX >> prefix {
            let which = if host_bits == 0 { "network" } else { "broadcast" };
            m.error(
                &given.span,
                format!("{address} is the {which} address of its own /{prefix}"),
                "choose a host's address, or correct the prefix length",
            );
        }
    }
    Some((address, prefix))
}

/// The device on each node that may own the VIP.
fn check_devices(
    r: &RawVip,
    nodes: &[VoterId],
    voters: &BTreeMap<VoterId, Voter>,
    m: &mut Mistakes<'_>,
) -> BTreeMap<VoterId, String> {
    let nodes = nodes.iter().filter_map(|id| voters.get(id));
    match &r.device {
        None => nodes.filter_map(|node| only_front(node, &r.span, m)).collect(),
        Some(RawByNode::Everywhere(device)) => {
            check_device(device, m);
            nodes.map(|node| on_node(node, device, m)).collect()
        }
        Some(RawByNode::PerNode(span, table)) => {
            for (name, device) in table {
                check_device(device, m);
                node_named(name, voters, m);
            }
            let mut devices = BTreeMap::new();
            for node in nodes {
                match table.iter().find(|(name, _)| *name.value == *node.name) {
                    Some((_, device)) => devices.extend([on_node(node, device, m)]),
                    None => {
                        let help = format!("add `{} = \"…\"`, one of its fronts: {}", node.name, node.front.join(", "));
                        m.error(span, format!("the VIP has no device on node \"{}\"", node.name), help);
                    }
                }
            }
            devices
        }
    }
}

fn only_front(node: &Voter, place: &Range<usize>, m: &mut Mistakes<'_>) -> Option<(VoterId, String)> {
    if let [only] = node.front.as_slice() {
        return Some((node.id, only.clone()));
    }
    // A node without any front is a mistake of its own, said already.
    if !node.front.is_empty() {
        let help = format!("write `device = …`; the fronts of \"{}\" are: {}", node.name, node.front.join(", "));
        m.error(place, format!("the VIP has no `device`, and node \"{}\" has several fronts", node.name), help);
    }
    None
}

fn on_node(node: &Voter, device: &At<String>, m: &mut Mistakes<'_>) -> (VoterId, String) {
    if !node.front.is_empty() && !node.front.contains(&device.value) {
        let hint = did_you_mean(&device.value, node.front.iter().map(String::as_str));
        let message = format!("the device \"{}\" is not a front of node \"{}\"{hint}", device.value, node.name);
        let help = format!("its fronts are: {}; name one of them, or add this one to `front`", node.front.join(", "));
        m.error(&device.span, message, help);
    }
    (node.id, device.value.clone())
}
