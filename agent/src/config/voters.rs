//! Checks `[[voter]]`: numbers, names, roles, backplane links and fronts; and which of them this machine is.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use super::{
    cluster::check_name,
    diagnostic::{Mistakes, did_you_mean},
    model::{Hook, Link, Voter},
    raw::{RawThis, RawVoter},
    reader::At,
};
use crate::cluster::ids::{Role, VoterId};

/// The lease needs a majority that survives one death.
const VOTERS_MIN: usize = 3;
/// At most this many backplane links.
pub(super) const LINKS_MAX: usize = 4;
/// IFNAMSIZ of linux/if.h without the final zero.
const DEVICE_MAX: usize = 15;

/// Checks all voters. Those with a usable number, name and role are returned, also when other things are wrong with them.
pub(super) fn check_voters(raw: &[RawVoter], m: &mut Mistakes<'_>) -> BTreeMap<VoterId, Voter> {
    check_count(raw, m);
    check_links(raw, m);
    let mut voters = BTreeMap::new();
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut addresses: HashMap<IpAddr, String> = HashMap::new();
    for (position, r) in raw.iter().enumerate() {
        if let Some(name) = &r.name {
            check_name(name, "the voter's name", m);
            if names.insert(name.value.clone(), position).is_some() {
                m.error(
                    &name.span,
                    format!("two voters are called \"{}\"", name.value),
                    "give each machine a name of its own",
                );
            }
        }
        let role = r.role.as_ref().and_then(|role| check_role(role, m));
        let front = check_front(r, role, m);
        let links = check_addresses(r, &mut addresses, m);
        let (Some(id), Some(name)) = (&r.id, &r.name) else {
            continue;
        };
        let number = VoterId(u8::try_from(id.value).unwrap_or(0));
        // A role that cannot be read is guessed by the front, so that it is not the cause of further mistakes.
        let guess = if front.is_empty() { Role::Arbiter } else { Role::Node };
        let capacity = r.capacity.as_ref().map(|c| c.check(role, m));
        let voter = Voter {
            id: number,
            name: Arc::from(name.value.as_str()),
            role: role.unwrap_or(guess),
            links,
            front,
            capacity,
        };
        if let Some(first) = voters.get(&number).map(|v: &Voter| v.name.clone()) {
            let free = (1..=VoterId::MAX)
                .find(|n| !raw.iter().any(|o| o.id.as_ref().is_some_and(|o| o.value == i64::from(*n))));
            let help = free.map_or_else(|| "there are only 8 numbers".into(), |n| format!("{n} is free"));
            m.error(&id.span, format!("voter id {number} is taken by \"{first}\" already"), help);
        } else {
            voters.insert(number, voter);
        }
    }
    voters
}

fn check_count(raw: &[RawVoter], m: &mut Mistakes<'_>) {
    let count = raw.len();
    let Some(last) = raw.last() else {
        m.error_nowhere("the file has no [[voter]]", "name at least three machines: two nodes and an arbiter");
        return;
    };
    if count < VOTERS_MIN {
        let help = "add an arbiter on a third machine (it needs no VIP and hardly any power): with two, the death of one would stop the other";
        m.error(
            &last.span,
            format!("there are {count} voters, and a majority that survives one death needs {VOTERS_MIN}"),
            help,
        );
    } else if count > usize::from(VoterId::MAX) {
        m.error(&last.span, format!("there are {count} voters"), format!("at most {} are possible", VoterId::MAX));
    } else if count.is_multiple_of(2) {
        let message = format!("an even number of voters ({count}) survives no more deaths than {}", count - 1);
        m.warning(&last.span, message, "add or remove an arbiter");
    }
    let nodes = raw.iter().filter(|v| v.role.as_ref().is_some_and(|r| r.value == "node")).count();
    match nodes {
        0 => m.error(
            &last.span,
            "no voter is a node, so nobody can own a VIP",
            "give at least two voters `role = \"node\"`",
        ),
        1 => m.warning(
            &last.span,
            "only one voter is a node, so nothing can fail over",
            "give a second voter `role = \"node\"`",
        ),
        _ => (),
    }
}

fn check_role(role: &At<String>, m: &mut Mistakes<'_>) -> Option<Role> {
    match role.value.as_str() {
        "node" => Some(Role::Node),
        "arbiter" => Some(Role::Arbiter),
        other => {
            let hint = did_you_mean(other, ["node", "arbiter"]);
            m.error(&role.span, format!("there is no role \"{other}\"{hint}"), "write \"node\" or \"arbiter\"");
            None
        }
    }
}

fn check_front(r: &RawVoter, role: Option<Role>, m: &mut Mistakes<'_>) -> Vec<String> {
    let mut front: Vec<String> = Vec::new();
    for device in r.front.iter().flat_map(|f| &f.value) {
        check_device(device, m);
        if front.contains(&device.value) {
            m.error(&device.span, format!("the front device \"{}\" is named twice", device.value), "name it once");
        } else {
            front.push(device.value.clone());
        }
    }
    let name = r.name.as_ref().map_or("?", |n| &n.value);
    match (role, &r.front) {
        (Some(Role::Node), None) if !r.front_given => {
            m.error(
                &r.span,
                format!("the node \"{name}\" has no `front`"),
                "name the device on which clients reach the VIPs: `front = [\"eth0\"]`",
            );
        }
        (Some(Role::Node), Some(list)) if list.value.is_empty() => {
            m.error(
                &list.span,
                format!("the node \"{name}\" has an empty `front`"),
                "name at least one device: `front = [\"eth0\"]`",
            );
        }
        (Some(Role::Arbiter), Some(list)) if !list.value.is_empty() => {
            m.error(
                &list.span,
                format!("the arbiter \"{name}\" has a `front`, but owns no VIP"),
                "remove it, or write `role = \"node\"`",
            );
        }
        _ => (),
    }
    front
}

/// What the kernel takes as a device's name (dev_valid_name in net/core/dev.c).
pub(super) fn check_device(device: &At<String>, m: &mut Mistakes<'_>) {
    let name = &device.value;
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > DEVICE_MAX || name == "." || name == ".." || name.contains(bad) {
        let message = format!("\"{}\" is no name of a network device", name.escape_debug());
        m.error(&device.span, message, format!("`ip link` shows the names; they have 1 to {DEVICE_MAX} characters"));
    }
}

fn check_addresses(r: &RawVoter, taken: &mut HashMap<IpAddr, String>, m: &mut Mistakes<'_>) -> Vec<Link> {
    let name = r.name.as_ref().map_or_else(|| "?".to_owned(), |n| n.value.clone());
    let hooks = check_hooks(r, m);
    let mut links = Vec::new();
    for (position, given) in r.backplane.iter().flat_map(|b| &b.value).enumerate() {
        let Ok(address) = given.value.parse::<IpAddr>() else {
            let help = match given.value.split_once('/') {
                Some((address, _)) => format!("leave the prefix length out: \"{address}\""),
                None => "write an IPv4 or IPv6 address: \"10.0.0.1\"".to_owned(),
            };
            m.error(&given.span, format!("\"{}\" is no backplane address", given.value), help);
            continue;
        };
        if let Some(why) = unusable(address) {
            m.error(
                &given.span,
                format!("{address} cannot be a backplane address: {why}"),
                "name the machine's own address on that link",
            );
        }
        if let Some(other) = taken.insert(address, name.clone()) {
            m.error(
                &given.span,
                format!("the backplane address {address} is taken by \"{other}\" already"),
                "each link of each machine has an address of its own",
            );
        }
        links.push(Link { address, hook: hooks.get(position).copied().unwrap_or_default() });
    }
    links
}

fn check_hooks(r: &RawVoter, m: &mut Mistakes<'_>) -> Vec<Hook> {
    let Some(given) = &r.hook else {
        return Vec::new();
    };
    let mut hooks = Vec::new();
    for hook in &given.value {
        hooks.push(match hook.value.as_str() {
            "auto" => Hook::Auto,
            "tc" => Hook::Tc,
            "xdp" => Hook::Xdp,
            other => {
                let hint = did_you_mean(other, ["auto", "tc", "xdp"]);
                m.error(
                    &hook.span,
                    format!("there is no hook \"{other}\"{hint}"),
                    "write \"auto\", \"tc\" or \"xdp\", one a link",
                );
                Hook::Auto
            }
        });
    }
    if let Some(links) = r.backplane.as_ref().map(|b| b.value.len())
        && links != hooks.len()
    {
        m.error(
            &given.span,
            format!("`hook` names {} links, but `backplane` {links}", hooks.len()),
            "name one hook a link, or leave `hook` out",
        );
    }
    hooks
}

/// Why an address can be nobody's own on a network, if so.
pub(super) fn unusable(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        return Some("it is the unspecified address");
    }
    if address.is_multicast() {
        return Some("it is a multicast address");
    }
    match address {
        IpAddr::V4(a) if a.is_broadcast() => Some("it is the broadcast address"),
        IpAddr::V4(a) if a.octets()[0] == 0 => Some("it is in 0.0.0.0/8, which names no host"),
        IpAddr::V4(a) if a.octets()[0] >= 240 => Some("it is in the reserved 240.0.0.0/4"),
        IpAddr::V4(a) if a.is_loopback() => Some("it is a loopback address"),
        IpAddr::V6(a) if a.is_loopback() => Some("it is the loopback address"),
        IpAddr::V6(a) if a.to_ipv4_mapped().is_some() => {
            Some("it is an IPv4 address in IPv6 clothes: write it as IPv4")
        }
        IpAddr::V6(a) if a.is_unicast_link_local() => Some("it is link-local, which means nothing without a device"),
        _ => None,
    }
}

/// The number of links is the same on all voters, and each link speaks one protocol.
fn check_links(raw: &[RawVoter], m: &mut Mistakes<'_>) {
    let lists: Vec<_> = raw.iter().filter_map(|r| r.backplane.as_ref().map(|b| (r, b))).collect();
    for (r, list) in &lists {
        let name = r.name.as_ref().map_or("?", |n| &n.value);
        match list.value.len() {
            0 => m.error(
                &list.span,
                format!("\"{name}\" has no backplane link"),
                "list at least one address, better two on separate networks",
            ),
            n if n > LINKS_MAX => m.error(
                &list.span,
                format!("\"{name}\" has {n} backplane links"),
                format!("at most {LINKS_MAX} are possible"),
            ),
            _ => (),
        }
    }
    let Some((first, model)) = lists.first() else {
        return;
    };
    let first_name = first.name.as_ref().map_or("?", |n| &n.value);
    for (r, list) in &lists[1..] {
        let name = r.name.as_ref().map_or("?", |n| &n.value);
        if list.value.len() != model.value.len() {
            let message = format!(
                "\"{name}\" has {} backplane links, but \"{first_name}\" has {}",
                list.value.len(),
                model.value.len()
            );
            m.error(&list.span, message, "list one address a link, in the same order on all voters");
        }
        for (link, (here, there)) in list.value.iter().zip(&model.value).enumerate() {
            let (Ok(a), Ok(b)) = (here.value.parse::<IpAddr>(), there.value.parse::<IpAddr>()) else {
                continue;
            };
            if a.is_ipv4() != b.is_ipv4() {
                let message =
                    format!("link {} is {} on \"{name}\", but {} on \"{first_name}\"", link + 1, family(a), family(b));
                m.error(
                    &here.span,
                    message,
                    "a link has one protocol; list the addresses in the same order on all voters",
                );
            }
        }
    }
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Which voter this machine is: `--name`, else `[this] name`, else the host name.
pub(super) fn who_am_i(
    raw: &RawThis,
    given: Option<&str>,
    voters: &BTreeMap<VoterId, Voter>,
    m: &mut Mistakes<'_>,
) -> Option<VoterId> {
    let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let (name, how) = match (given, &raw.name) {
        (Some(name), _) => (name.to_owned(), "as `--name` says"),
        (None, Some(name)) => (name.value.clone(), "as `[this] name` says"),
        (None, None) => (host(), "by its host name"),
    };
    let found = voters.values().find(|v| *v.name == *name).map(|v| v.id);
    // Without any voter there are louder mistakes already.
    if found.is_none() && !voters.is_empty() {
        let names: Vec<&str> = voters.values().map(|v| &*v.name).collect();
        let message = format!(
            "this machine is \"{}\" {how}, but no voter is called that{}",
            name.escape_debug(),
            did_you_mean(&name, names.iter().copied())
        );
        let help = format!("set `name` in [this], or give `--name`, to one of: {}", names.join(", "));
        match (&raw.name, given) {
            (Some(place), None) => m.error(&place.span, message, help),
            _ => m.error_nowhere(message, help),
        }
    }
    found
}
