//! What one HAProxy hands over to the other: the form of it on the wire, its bounds, and what is refused.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The version of the form; another one is refused, not guessed at.
const VERSION: u32 = 1;
/// A state beyond this is neither sent nor taken.
pub const STATE_BYTES_MAX: usize = 4 << 20;
/// HAProxy's own bound of a weight.
const WEIGHT_MAX: u32 = 256;
/// Names, files and entries beyond this are refused: HAProxy's buffer for a command is 16 KiB unless set otherwise.
const TEXT_BYTES_MAX: usize = 4 << 10;

/// The state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// [`VERSION`].
    version: u32,
    /// Each server of each backend.
    pub servers: Vec<Server>,
    /// Maps from files, in the order of their entries.
    pub maps: Vec<List>,
    /// ACLs from files.
    pub acls: Vec<List>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// The backend's name.
    pub backend: String,
    /// The server's name.
    pub name: String,
    /// Its weight as it stands, 0 to 256.
    pub weight: u32,
    /// What the operator wants of it.
    pub admin: Admin,
    /// Where it is; `None` for a UNIX socket, and for one whose name is resolved, which each node does by itself.
    pub address: Option<(IpAddr, u16)>,
    /// Whether it has health checks that run; `None` without any.
    pub checks: Option<bool>,
    /// Whether it has agent checks that run; `None` without any.
    pub agent: Option<bool>,
    /// Whether it is up. Without checks this is what an operator set; with checks each node sees for itself.
    pub up: bool,
}

/// What the operator wants of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Admin {
    /// Serve.
    Ready,
    /// Take no new sessions.
    Drain,
    /// Be out of service.
    Maint,
}

impl Admin {
    /// HAProxy's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

/// A map or an ACL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// The file that it was loaded from, which names it.
    pub file: String,
    /// A map's "key value", an ACL's patterns.
    pub entries: Vec<String>,
}

/// Only the version, whatever else there is.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl State {
    /// A state of this version.
    pub fn new(servers: Vec<Server>, maps: Vec<List>, acls: Vec<List>) -> Self {
        Self { version: VERSION, servers, maps, acls }
    }

    /// For the wire.
    ///
    /// # Errors
    /// When it is too large, in words.
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        let bytes = serde_json::to_vec(self).map_err(|e| format!("it cannot be written: {e}"))?;
        if bytes.len() > STATE_BYTES_MAX {
            return Err(format!(
                "servers and map entries take {} bytes; at most {STATE_BYTES_MAX} go over",
                bytes.len()
            ));
        }
        Ok(bytes)
    }

    /// From the wire.
    ///
    /// # Errors
    /// What is wrong with it, in words. Nothing that could be read as another command passes.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > STATE_BYTES_MAX {
            return Err(format!("it has {} bytes; at most {STATE_BYTES_MAX} are taken", bytes.len()));
        }
        let garbage = |e: serde_json::Error| format!("it is no state of a HAProxy: {e}");
        let Versioned { version } = serde_json::from_slice(bytes).map_err(garbage)?;
        if version != VERSION {
            return Err(format!("it has version {version}; this Baton takes version {VERSION}"));
        }
        let state: Self = serde_json::from_slice(bytes).map_err(garbage)?;
        for server in &state.servers {
            for name in [&server.backend, &server.name] {
                if !is_name(name) {
                    return Err(format!("{name:?} is no name of a backend or server"));
                }
            }
            if server.weight > WEIGHT_MAX {
                return Err(format!("the weight of {}/{} is {}", server.backend, server.name, server.weight));
            }
        }
        for list in state.maps.iter().chain(&state.acls) {
            if !is_file(&list.file) {
                return Err(format!("{:?} is no file of a map or ACL", list.file));
            }
        }
        let maps = state.maps.iter().flat_map(|l| l.entries.iter().map(move |e| (l, e, is_map_entry(e))));
        let acls = state.acls.iter().flat_map(|l| l.entries.iter().map(move |e| (l, e, is_entry(e))));
        if let Some((list, entry, _)) = maps.chain(acls).find(|(_, _, good)| !good) {
            return Err(format!("{entry:?} is no entry of {}", list.file));
        }
        Ok(state)
    }
}

/// What HAProxy takes as a name (its manual: letters, digits, `-`, `_`, `.`, `:`).
fn is_name(text: &str) -> bool {
    (1..=TEXT_BYTES_MAX).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c))
}

/// A file that can be named in a command without an escape; `#` and `@` would be numbers and versions.
pub fn is_file(text: &str) -> bool {
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && !";\\\"'<".contains(c);
    is_entry(text) && text.chars().all(plain) && !text.starts_with(['#', '@'])
}

/// A line that is one line.
pub fn is_entry(text: &str) -> bool {
    (1..=TEXT_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control) && text.trim() == text
}

/// A key and a value.
pub fn is_map_entry(text: &str) -> bool {
    is_entry(text) && text.contains(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let server = Server {
            backend: "web".into(),
            name: "s1".into(),
            weight: 7,
            admin: Admin::Drain,
            address: Some(("10.0.0.1".parse().unwrap(), 80)),
            checks: Some(true),
            agent: None,
            up: true,
        };
        let list = List { file: "/etc/haproxy/hosts.map".into(), entries: vec!["a.example web two".into()] };
        State::new(vec![server], vec![list], vec![List { file: "/x".into(), entries: vec!["10.0.0.0/8".into()] }])
    }

    #[test]
    fn a_state_goes_over_as_it_is() {
        assert_eq!(State::decode(&state().encode().unwrap()), Ok(state()));
    }

    #[test]
    fn nonsense_is_refused_with_what_is_wrong() {
        let refuse = |change: fn(&mut State)| {
            let mut bad = state();
            change(&mut bad);
            State::decode(&bad.encode().unwrap()).unwrap_err()
        };
        assert!(refuse(|s| s.version = 2).contains("version 2"));
        assert!(refuse(|s| s.servers[0].name = "s1;disable frontend f".into()).contains("no name"));
        assert!(refuse(|s| s.servers[0].backend = "a/b".into()).contains("no name"));
        assert!(refuse(|s| s.servers[0].weight = 257).contains("weight"));
        assert!(refuse(|s| s.maps[0].file = "/x;show info".into()).contains("no file"));
        assert!(refuse(|s| s.maps[0].entries[0] = "k v\nshow info".into()).contains("no entry"));
        assert!(refuse(|s| s.maps[0].entries[0] = "key".into()).contains("no entry"));
        assert!(refuse(|s| s.acls[0].entries[0] = String::new()).contains("no entry"));
        assert!(State::decode(b"\xff\x00").unwrap_err().contains("no state"));
        assert!(State::decode(b"{\"version\":1,\"more\":2}").unwrap_err().contains("no state"));
        assert!(State::decode(&vec![b' '; STATE_BYTES_MAX + 1]).unwrap_err().contains("at most"));
        let huge = State::new(vec![], vec![List { file: "/x".into(), entries: vec!["k v".into(); 1 << 20] }], vec![]);
        assert!(huge.encode().unwrap_err().contains("at most"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            drop(State::decode(&bytes));
        }
    }
}
