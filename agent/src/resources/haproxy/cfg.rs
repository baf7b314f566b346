//! What Baton must know of HAProxy's own configuration: its stats socket, its peers, and settings that a drain depends on.
//!
//! HAProxy alone says whether the file is right ([`super::check`]); this reads only what is there, and never fails.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

/// A file that is longer is not read to its end.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// The words that begin a section (HAProxy's configuration manual, "Proxies" and what stands beside them).
const SECTIONS: [&str; 19] = [
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "peers",
    "resolvers",
    "mailers",
    "userlist",
    "cache",
    "program",
    "http-errors",
    "ring",
    "log-forward",
    "fcgi-app",
    "crt-store",
    "traces",
    "acme",
    "log-profile",
];

/// What is in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cfg {
    /// The stats sockets of `global`, in order.
    pub sockets: Vec<StatsSocket>,
    /// `localpeer` of `global`.
    pub local_peer: Option<String>,
    /// Sections `peers`, with the names of the peers.
    pub peers: BTreeMap<String, Vec<String>>,
    /// `hard-stop-after` of `global`.
    pub hard_stop_after: Option<String>,
    /// Whether `option idle-close-on-response` stands anywhere.
    pub idle_close_on_response: bool,
}

/// One `stats socket`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsSocket {
    /// As written.
    pub address: String,
    /// `level admin`.
    pub admin: bool,
    /// `expose-fd listeners`.
    pub exposes_listeners: bool,
}

impl StatsSocket {
    /// Its path, if it is a plain one.
    pub fn path(&self) -> Option<PathBuf> {
        let path = Path::new(self.address.strip_prefix("unix@").unwrap_or(&self.address));
        let plain = path.is_absolute() && !self.address.contains('$');
        plain.then(|| path.to_owned())
    }
}

impl Cfg {
    /// Reads a file.
    ///
    /// # Errors
    /// The kernel's, when it cannot be read.
    pub fn read(file: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        fs::File::open(file)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(Self::parse(&String::from_utf8_lossy(&bytes)))
    }

    /// Reads a text.
    pub fn parse(text: &str) -> Self {
        let mut cfg = Self::default();
        let mut section = (String::new(), String::new());
        for line in text.lines() {
            let words = words(line);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            match words.as_slice() {
                [] => {}
                [kind, rest @ ..] if SECTIONS.contains(kind) => {
                    section = ((*kind).to_owned(), rest.first().map_or(String::new(), |n| (*n).to_owned()));
                    if *kind == "peers" {
                        cfg.peers.entry(section.1.clone()).or_default();
                    }
                }
                words => cfg.line(&section.0, &section.1, words),
            }
        }
        cfg
    }

    fn line(&mut self, section: &str, name: &str, words: &[&str]) {
        let pair = |a: &str, b: &str| words.windows(2).any(|w| w == [a, b]);
        match (section, words) {
            ("global", ["stats", "socket", address, ..]) => self.sockets.push(StatsSocket {
                address: (*address).to_owned(),
                admin: pair("level", "admin"),
                exposes_listeners: pair("expose-fd", "listeners"),
            }),
            ("global", ["localpeer", peer, ..]) => self.local_peer = Some((*peer).to_owned()),
            ("global", ["hard-stop-after", time, ..]) => self.hard_stop_after = Some((*time).to_owned()),
            ("peers", ["peer" | "server", peer, ..]) => {
                self.peers.entry(name.to_owned()).or_default().push((*peer).to_owned());
            }
            (_, ["option", "idle-close-on-response", ..]) => self.idle_close_on_response = true,
            _ => {}
        }
    }

    /// The first stats socket that is a path, admin ones before others.
    pub fn socket(&self) -> Option<PathBuf> {
        let of = |admin| self.sockets.iter().filter(move |s| s.admin == admin).find_map(StatsSocket::path);
        of(true).or_else(|| of(false))
    }

    /// Whether a section `peers` has a peer of this name.
    pub fn names_peer(&self, peer: &str) -> bool {
        self.peers.values().flatten().any(|p| p == peer)
    }
}

/// The words of a line: quotes and backslashes as HAProxy has them, comments left out.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(letters.next()),
            (q, Some(open)) if q == open => quote = None,
            (q @ ('"' | '\''), None) => {
                quote = Some(q);
                word.get_or_insert_default();
            }
            ('#', None) => break,
            (blank, None) if blank.is_whitespace() => words.extend(word.take()),
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_found_and_the_rest_is_passed_over() {
        let cfg = Cfg::parse(
            "global # stats socket /no\n stats socket ipv4@127.0.0.1:9999 level admin\n stats socket /run/user.sock\n \
             stats socket unix@/run/\"my haproxy\"/admin.sock mode 600 level admin expose-fd listeners\n localpeer lb\\ 1\n \
             hard-stop-after 30s\ndefaults\n option idle-close-on-response\npeers mesh\n peer lb1 10.0.0.1:1024\n \
             server lb2 10.0.0.2:1024\npeers other\nfrontend x\n stats socket /no.sock\n peer lb9 1.2.3.4:1\n",
        );
        assert_eq!(cfg.sockets.len(), 3);
        assert_eq!(cfg.socket().unwrap(), Path::new("/run/my haproxy/admin.sock"));
        assert_eq!(cfg.sockets.iter().filter(|s| s.exposes_listeners).count(), 1);
        assert_eq!(cfg.local_peer.as_deref(), Some("lb 1"));
        assert_eq!(cfg.hard_stop_after.as_deref(), Some("30s"));
        assert!(cfg.idle_close_on_response && cfg.names_peer("lb2") && !cfg.names_peer("lb9"));
        assert_eq!(cfg.peers.keys().collect::<Vec<_>>(), ["mesh", "other"]);
        assert_eq!(Cfg::parse("global\n stats socket $DIR/a.sock\n stats socket rel.sock").socket(), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(global|stats|socket|peers|\"|'|\\\\|#|[ \\n]|\\PC){0,60}") {
            Cfg::parse(&text);
        }
    }
}
