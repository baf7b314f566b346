//! Faults of the networks: cut cables and switches, one-way loss, partitions, links that go down.
//!
//! Loss is a rule of nftables on the bridges, by the direction in which a frame crosses them; all rules of a lab change
//! in one transaction. The machines' own links stay up, unless the fault says otherwise.

use std::{
    collections::BTreeSet,
    fmt::Write,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::Result;

use crate::{netns::NetNs, topology::wire_end};

/// Frames that a network loses: from one machine, to one machine, or between two. At least one end is named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Loss {
    network: String,
    from: Option<String>,
    to: Option<String>,
}

/// The faults in force on a lab's networks.
#[derive(Debug)]
pub struct Wires {
    ns: NetNs,
    faults: Mutex<Faults>,
}

#[derive(Debug, Default)]
struct Faults {
    losses: BTreeSet<Loss>,
    down: BTreeSet<String>,
}

impl Wires {
    pub(crate) fn new(ns: NetNs) -> Self {
        Self { ns, faults: Mutex::default() }
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts a machine off the networks, both ways. Its links stay up: the switch behind them is dead.
    pub fn cut_off(&self, machine: &str, networks: &[impl AsRef<str>]) -> Result<()> {
        self.lose(networks.iter().flat_map(|n| [loss(n, Some(machine), None), loss(n, None, Some(machine))]))
    }

    /// Cuts two machines off each other, both ways; each still reaches all others.
    pub fn cut_between(&self, one: &str, other: &str, networks: &[impl AsRef<str>]) -> Result<()> {
        self.lose(networks.iter().flat_map(|n| [loss(n, Some(one), Some(other)), loss(n, Some(other), Some(one))]))
    }

    /// Loses what a machine sends: nobody hears it, but it hears everybody.
    pub fn mute(&self, machine: &str, networks: &[impl AsRef<str>]) -> Result<()> {
        self.lose(networks.iter().map(|n| loss(n, Some(machine), None)))
    }

    /// Loses what a machine should receive: it hears nobody, but everybody hears it.
    pub fn deafen(&self, machine: &str, networks: &[impl AsRef<str>]) -> Result<()> {
        self.lose(networks.iter().map(|n| loss(n, None, Some(machine))))
    }

    /// Takes a machine's link down: its device loses the carrier.
    pub fn link_down(&self, machine: &str, network: &str) -> Result<()> {
        let mut faults = self.faults();
        let end = wire_end(machine, network);
        self.ns.ip(&format!("link set {end} down"))?;
        faults.down.insert(end);
        Ok(())
    }

    /// Ends all faults of the networks.
    pub fn heal(&self) -> Result<()> {
        let mut faults = self.faults();
        let ups: String = faults.down.iter().map(|end| format!("link set {end} up\n")).collect();
        if !ups.is_empty() {
            self.ns.ip(&ups)?;
            faults.down.clear();
        }
        if !faults.losses.is_empty() {
            faults.losses.clear();
            self.apply(&faults.losses)?;
        }
        Ok(())
    }

    fn lose(&self, losses: impl Iterator<Item = Loss>) -> Result<()> {
        let mut faults = self.faults();
        faults.losses.extend(losses);
        self.apply(&faults.losses)
    }

    fn apply(&self, losses: &BTreeSet<Loss>) -> Result<()> {
        self.ns.feed("nft", &["-f", "-"], &rules(losses))
    }
}

fn loss(network: &impl AsRef<str>, from: Option<&str>, to: Option<&str>) -> Loss {
    let network = network.as_ref().to_owned();
    Loss { network, from: from.map(str::to_owned), to: to.map(str::to_owned) }
}

/// The whole rule set; naming the table before deleting it makes the first use and every later one alike.
fn rules(losses: &BTreeSet<Loss>) -> String {
    let mut text = String::from(
        "table bridge lab\ndelete table bridge lab\ntable bridge lab {\n chain forward {\n  \
         type filter hook forward priority 0; policy accept;\n",
    );
    for Loss { network, from, to } in losses {
        text.push_str("  ");
        for (word, machine) in [("iifname", from), ("oifname", to)] {
            if let Some(machine) = machine {
                // Writing to a string cannot fail.
                write!(text, "{word} \"{}\" ", wire_end(machine, network)).unwrap_or_default();
            }
        }
        text.push_str("drop\n");
    }
    text.push_str(" }\n}\n");
    text
}
