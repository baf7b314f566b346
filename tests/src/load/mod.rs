//! The load of a service behind a VIP, and its judge: real sockets in the client's namespace, every request accounted for.
//!
//! [`http`] holds long-lived connections that ask again and again, and opens new ones at a steady rate; [`bulk`] moves
//! many bytes and compares them; [`idle`] upgrades connections and leaves them silent; [`udp`] asks over flows of one
//! socket each. [`server`] answers all of them and says which node it stands on; [`proxy`] puts HAProxy in front of it.
//! [`stage`] is a cluster with all of that. What the client saw is a list of [`record::Record`]s, from which [`report::Report`] is computed for any window of time.

pub mod bulk;
pub mod http;
pub mod idle;
pub mod line;
mod message;
pub mod netstat;
pub mod pattern;
pub mod proxy;
pub mod record;
pub mod report;
pub mod server;
pub mod stage;
pub mod udp;

/// Raises this process's limit of open files to what it may have at most: a load holds thousands of sockets.
pub fn raise_file_limit() -> std::io::Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}
