//! Reads the state that goes over on a move out of a running HAProxy.

use std::net::IpAddr;

use super::{
    answer::{Row, Rows, parse_entries, parse_lists},
    runtime::{Client, RuntimeError},
    state::{Admin, List, Server, State, is_entry, is_file, is_map_entry},
};

/// Bits of `srv_admin_state`: maintenance and drain that an operator set (others come from the configuration, from a tracked
/// server, or from a name that does not resolve).
const FORCED_MAINT: u32 = 0x01;
const FORCED_DRAIN: u32 = 0x08;
/// Bits of `srv_check_state` and `srv_agent_state`.
const CHECK_CONFIGURED: u32 = 0x02;
const CHECK_ENABLED: u32 = 0x04;

/// What a server has in `srv_fqdn` when its address was given as one.
const NO_NAME: &str = "-";

/// Everything that goes over. Entries that could not go over as they are come second, for the log.
///
/// # Errors
/// The runtime API's.
pub fn gather(client: &Client) -> Result<(State, Vec<String>), RuntimeError> {
    let mut left_out = Vec::new();
    let servers = servers(client)?;
    let maps = lists(client, "map", is_map_entry, &mut left_out)?;
    let acls = lists(client, "acl", is_entry, &mut left_out)?;
    Ok((State::new(servers, maps, acls), left_out))
}

/// All servers.
///
/// # Errors
/// The runtime API's.
pub fn servers(client: &Client) -> Result<Vec<Server>, RuntimeError> {
    let table = Rows::parse_blanks(&client.ask("show servers state")?);
    Ok(table.iter().filter_map(|row| server(&row)).collect())
}

fn server(row: &Row<'_>) -> Option<Server> {
    let admin = row.number("srv_admin_state")?;
    let running = |column| {
        let bits = row.number(column).unwrap_or(0);
        (bits & CHECK_CONFIGURED != 0).then_some(bits & CHECK_ENABLED != 0)
    };
    let named = !matches!(row.get("srv_fqdn"), "" | NO_NAME);
    let address = row.get("srv_addr").parse::<IpAddr>().ok().filter(|_| !named);
    Some(Server {
        backend: row.get("be_name").to_owned(),
        name: row.get("srv_name").to_owned(),
        weight: row.number("srv_uweight")?,
        admin: match admin {
            a if a & FORCED_MAINT != 0 => Admin::Maint,
            a if a & FORCED_DRAIN != 0 => Admin::Drain,
            _ => Admin::Ready,
        },
        address: address.zip(row.get("srv_port").parse().ok()),
        checks: running("srv_check_state"),
        agent: running("srv_agent_state"),
        up: row.number("srv_op_state")? != 0,
    })
}

/// All maps, or all ACLs.
fn lists(
    client: &Client,
    kind: &str,
    good: fn(&str) -> bool,
    left_out: &mut Vec<String>,
) -> Result<Vec<List>, RuntimeError> {
    let mut lists = Vec::new();
    for listed in parse_lists(&client.ask(&format!("show {kind}"))?) {
        if !is_file(&listed.file) {
            left_out.push(format!("the {kind} {} has a name that no command can hold", listed.file));
            continue;
        }
        let mut entries = parse_entries(&client.ask(&format!("show {kind} {}", listed.reference))?);
        let all = entries.len();
        entries.retain(|e| good(e));
        if entries.len() < all {
            left_out.push(format!("{} entries of {kind} {} cannot go over", all - entries.len(), listed.file));
        }
        lists.push(List { file: listed.file, entries });
    }
    Ok(lists)
}
