//! HAProxy's peers: whether stick tables follow by its own protocol, and whether the other node has got what this one knows.

use std::collections::BTreeMap;

use super::answer::value;

/// Of a section's `flags`: learning from the old process, and from the other nodes, is over (both set once it is).
const LEARNT: u64 = 0x3;

/// `show peers`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// The sections.
    pub sections: Vec<Section>,
}

/// One section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Its flags, if they were told.
    pub flags: Option<u64>,
    /// The other nodes.
    pub remotes: Vec<Remote>,
}

/// Another node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remote {
    /// Its name.
    pub name: String,
    /// "ESTA" when there is a session.
    pub status: String,
    /// The tables: how far each is on the other node, and here.
    pub tables: Vec<Table>,
}

/// A stick table that is shared with another node; the numbers count this node's updates and wrap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// The last update that the other node has confirmed.
    pub confirmed: u32,
    /// The last update here.
    pub here: u32,
}

/// How far each table had got: what the other nodes must confirm to be in step.
pub type Marks = BTreeMap<(String, String), u32>;

impl Peers {
    /// Reads the answer.
    pub fn parse(text: &str) -> Self {
        let mut peers = Self::default();
        let mut local = false;
        let mut confirmed = 0;
        for line in text.lines() {
            if !line.starts_with(' ') {
                if let Some(name) = value(line, "id") {
                    let flags = value(line, "flags").and_then(|f| u64::from_str_radix(f.strip_prefix("0x")?, 16).ok());
                    peers.sections.push(Section { name: name.to_owned(), flags, remotes: Vec::new() });
                    // What follows without a peer belongs to none.
                    local = true;
                }
                continue;
            }
            let Some(section) = peers.sections.last_mut() else { continue };
            let peer =
                value(line, "id").and_then(|id| id.split_once('(')).filter(|_| value(line, "last_status").is_some());
            if let Some((name, role)) = peer {
                local = !role.starts_with("remote");
                if !local {
                    let status = value(line, "last_status").unwrap_or("").to_owned();
                    section.remotes.push(Remote { name: name.to_owned(), status, tables: Vec::new() });
                }
            }
            let Some(remote) = section.remotes.last_mut().filter(|_| !local) else { continue };
            if value(line, "last_acked").is_some() {
                confirmed = number(line, "update");
            } else if let Some(name) = value(line, "id").filter(|_| value(line, "localupdate").is_some()) {
                remote.tables.push(Table { name: name.to_owned(), confirmed, here: number(line, "localupdate") });
            }
        }
        peers
    }

    /// The sections that count: the one that is named, or all.
    fn counting(&self, only: Option<&str>) -> Result<impl Iterator<Item = &Section>, String> {
        if let Some(name) = only.filter(|name| !self.sections.iter().any(|s| s.name == *name)) {
            return Err(format!("HAProxy has no section \"peers {name}\""));
        }
        Ok(self.sections.iter().filter(move |s| only.is_none_or(|name| s.name == name)))
    }

    /// Whether this node has learnt the tables: each section has a session, and the first transfer is over.
    ///
    /// # Errors
    /// What is missing, in words.
    pub fn learnt(&self, only: Option<&str>) -> Result<(), String> {
        for section in self.counting(only)? {
            section.connected().map(drop)?;
            if section.flags.is_some_and(|f| f & LEARNT != LEARNT) {
                return Err(format!("peers {}: the stick tables are still being learnt", section.name));
            }
        }
        Ok(())
    }

    /// How far the tables have got here, now.
    pub fn marks(&self) -> Marks {
        let all = self.sections.iter().flat_map(|s| s.remotes.iter().map(move |r| (s, r)));
        all.flat_map(|(s, r)| r.tables.iter().map(move |t| ((s.name.clone(), t.name.clone()), t.here))).collect()
    }

    /// Whether a node with a session has confirmed everything up to the marks, in each section.
    ///
    /// # Errors
    /// What is missing, in words.
    pub fn told(&self, only: Option<&str>, marks: &Marks) -> Result<(), String> {
        for section in self.counting(only)? {
            for remote in section.connected()? {
                for table in &remote.tables {
                    let mark = marks.get(&(section.name.clone(), table.name.clone())).copied().unwrap_or(0);
                    let behind = mark.wrapping_sub(table.confirmed);
                    // Ahead reads as a number in the upper half.
                    if behind != 0 && behind <= u32::MAX / 2 {
                        return Err(format!(
                            "peers {}: {} is {behind} updates of table {} behind",
                            section.name, remote.name, table.name
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

impl Section {
    /// The nodes with a session. A section of this node alone has nobody to be in step with.
    fn connected(&self) -> Result<impl Iterator<Item = &Remote>, String> {
        let with_session = |r: &&Remote| r.status == "ESTA";
        if !self.remotes.is_empty() && !self.remotes.iter().any(|r| with_session(&r)) {
            let states: Vec<_> = self.remotes.iter().map(|r| format!("{} is {}", r.name, r.status)).collect();
            return Err(format!("peers {}: no session with another node ({})", self.name, states.join(", ")));
        }
        Ok(self.remotes.iter().filter(with_session))
    }
}

fn number(line: &str, key: &str) -> u32 {
    value(line, key).and_then(|v| v.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str =
        "0x1: [24/Nov/2026:13:22:39] id=mesh disabled=0 flags=0x6833 resync_timeout=<PAST> task_calls=10
  0x2: id=lb2(remote,active) addr=127.0.0.1:29102 last_status=ESTA last_hdshk=6s
        remote_table:0x3 id=t local_id=1 remote_id=1
        last_local_table:0x3 id=t local_id=1 remote_id=1
        shared tables:
          0x3 local_id=1 remote_id=1 flags=0x0 remote_data=0x210
              last_acked=0 last_pushed=4 last_get=0 teaching_origin=0 update=4
              table:0x4 id=t update=4 localupdate=4 commitupdate=4 refcnt=1
  0x5: id=lb1(local,inactive) addr=127.0.0.1:29101 last_status=NONE last_hdshk=<NEVER>
        shared tables:
          0x6 local_id=1 remote_id=0 flags=0x0 remote_data=0x0
              last_acked=0 last_pushed=0 last_get=0 teaching_origin=0 update=0
              table:0x4 id=t update=4 localupdate=4 commitupdate=4 refcnt=1
";

    #[test]
    fn a_session_in_step_is_told_from_one_behind_and_from_none() {
        let peers = Peers::parse(ANSWER);
        assert_eq!(peers.sections[0].remotes[0].tables, [Table { name: "t".into(), confirmed: 4, here: 4 }]);
        assert_eq!((peers.learnt(None), peers.told(Some("mesh"), &peers.marks())), (Ok(()), Ok(())));
        let behind = Peers::parse(&ANSWER.replace("origin=0 update=4", "origin=0 update=1"));
        let words = behind.told(None, &behind.marks()).unwrap_err();
        assert_eq!(words, "peers mesh: lb2 is 3 updates of table t behind");
        let gone = Peers::parse(&ANSWER.replace("ESTA", "CONN"));
        assert_eq!(gone.learnt(None).unwrap_err(), "peers mesh: no session with another node (lb2 is CONN)");
        let fresh = Peers::parse(&ANSWER.replace("0x6833", "0x6831"));
        assert!(fresh.learnt(None).unwrap_err().contains("still being learnt"));
        assert!(peers.learnt(Some("other")).unwrap_err().contains("no section \"peers other\""));
        assert_eq!(Peers::parse("").learnt(None), Ok(()));
    }

    #[test]
    fn counters_that_wrap_are_compared_as_distances() {
        let table = Table { name: "t".into(), confirmed: 2, here: 3 };
        let remote = Remote { name: "lb2".into(), status: "ESTA".into(), tables: vec![table] };
        let peers = Peers { sections: vec![Section { name: "m".into(), flags: None, remotes: vec![remote] }] };
        let mark = |n| Marks::from([(("m".into(), "t".into()), n)]);
        assert_eq!(peers.told(None, &mark(u32::MAX)), Ok(()));
        assert!(peers.told(None, &mark(3)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(
            text in "(id=|[ab]\\(remote|update=|localupdate=|last_acked=|last_status=|flags=0x|[0-9]{1,12}|[ \\n]|\\PC){0,80}"
        ) {
            let peers = Peers::parse(&text);
            drop(peers.told(None, &peers.marks()).and(peers.learnt(None)));
        }
    }
}
