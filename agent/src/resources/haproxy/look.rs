//! Whether a HAProxy is fit to serve: asks the runtime API, and puts what is missing into words.

use std::collections::BTreeMap;

use super::{
    answer::{Info, Rows},
    runtime::{Client, RuntimeError},
};

/// The oldest release that has what is needed: transactions of maps, and `idle-close-on-response`.
pub const RELEASE_MIN: (u32, u32) = (2, 4);
/// More backends than this are not named one by one.
const NAMED_MAX: usize = 3;

/// Frontends (1), backends (2) and servers (4) of all proxies.
const STAT: &str = "show stat -1 7 -1";

/// Who answers, and what stands in the way of serving, in words; empty when nothing does.
///
/// # Errors
/// The runtime API's.
pub fn look(client: &Client, backends_min: u32) -> Result<(Info, Vec<String>), RuntimeError> {
    let info = Info::parse(&client.ask("show info")?);
    let mut missing = info_troubles(&info);
    if missing.is_empty() {
        missing.extend(proxy_troubles(&client.ask(STAT)?, backends_min));
    }
    Ok((info, missing))
}

fn info_troubles(info: &Info) -> Vec<String> {
    let mut missing = Vec::new();
    let (major, minor) = RELEASE_MIN;
    match info.release() {
        Some(release) if release >= RELEASE_MIN => {}
        Some(_) => missing.push(format!("HAProxy is {}; {major}.{minor} or later is needed", info.version)),
        None => missing.push("what answers on the stats socket does not say which HAProxy it is".to_owned()),
    }
    if info.stopping {
        missing.push(format!("HAProxy's worker {} is stopping", info.pid));
    }
    missing
}

fn proxy_troubles(stat: &str, backends_min: u32) -> Vec<String> {
    let table = Rows::parse_csv(stat);
    let mut missing = Vec::new();
    let mut frontends = 0_usize;
    // Of each backend: servers that shall serve, and servers that can.
    let mut backends: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for row in table.iter() {
        let status = row.get("status");
        match row.get("type") {
            "0" => {
                frontends += 1;
                // A full one is bound, and queues.
                if !matches!(status, "OPEN" | "FULL") {
                    missing.push(format!("frontend {} is {status}, and accepts nothing", row.get("pxname")));
                }
            }
            "2" => {
                let (wanted, up) = backends.entry(row.get("pxname")).or_default();
                // Maintenance is the operator's will, on the other node too; without an address a server is plainly down.
                let out = status == "DRAIN" || (status.starts_with("MAINT") && !status.contains("resolution"));
                *wanted += u32::from(!out);
                // A server whose check has not run yet counts as up for HAProxy, but nobody has seen it.
                let checked = row.get("check_status").trim_start_matches("* ") != "INI";
                *up += u32::from(checked && (status.starts_with("UP") || status == "no check"));
            }
            _ => {}
        }
    }
    if frontends == 0 {
        missing.push("HAProxy has no frontend".to_owned());
    }
    let short: Vec<String> = backends
        .iter()
        .filter(|(_, (wanted, up))| *up < backends_min.min(*wanted))
        .map(|(name, (wanted, up))| format!("backend {name} has {up} of {wanted} servers up"))
        .collect();
    let more = short.len().saturating_sub(NAMED_MAX);
    missing.extend(short.into_iter().take(NAMED_MAX));
    if more > 0 {
        missing.push(format!("and {more} more backends lack servers"));
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "# pxname,svname,status,weight,type,check_status\n";

    #[test]
    fn servers_in_maintenance_are_not_asked_for() {
        let stat = format!(
            "{HEAD}f,FRONTEND,OPEN,,0,\nb,s1,UP,1,2,L4OK\nb,s2,MAINT,1,2,\nc,s1,MAINT (via b/s2),1,2,\nc,s2,DRAIN,1,2,L4OK\n"
        );
        assert_eq!(proxy_troubles(&stat, 2), Vec::<String>::new());
    }

    #[test]
    fn what_is_missing_is_named() {
        let stat = format!(
            "{HEAD}f,FRONTEND,STOP,,0,\nb,s1,DOWN 1/2,1,2,L4CON\nb,s2,UP,1,2,* INI\nc,s1,MAINT (resolution),1,2,\nd,s1,no check,1,2,\n"
        );
        let expected = [
            "frontend f is STOP, and accepts nothing",
            "backend b has 0 of 2 servers up",
            "backend c has 0 of 1 servers up",
        ];
        assert_eq!(proxy_troubles(&stat, 1), expected);
        assert_eq!(proxy_troubles(&stat, 0).len(), 1);
        assert_eq!(proxy_troubles("", 1), ["HAProxy has no frontend"]);
    }

    #[test]
    fn an_old_or_a_stopping_one_is_not_fit() {
        let info = |text| info_troubles(&Info::parse(text));
        assert_eq!(info("Version: 2.4.0\nPid: 1\n"), Vec::<String>::new());
        assert_eq!(info("Version: 2.2.9\n"), ["HAProxy is 2.2.9; 2.4 or later is needed"]);
        assert_eq!(info("Version: 3.0.1\nPid: 7\nStopping: 1\n"), ["HAProxy's worker 7 is stopping"]);
        assert_eq!(info("").len(), 1);
    }
}
