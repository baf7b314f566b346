//! Which systems meet which faults.

use std::{fmt, str::FromStr};

use anyhow::{Error, Result, anyhow};
use baton_lab::{
    baton::{Baton, Profile},
    gates,
    keepalived::Keepalived,
    system::System,
    topology::Spec,
    trial::Fault,
};

/// A system with a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    /// Baton, 10 ms beats and a lease of 50 ms.
    BatonDefault,
    /// Baton, 4 and 16 ms.
    BatonQuick,
    /// Baton, 1 and 4 ms.
    BatonFast,
    /// keepalived, advertisements every 10 ms, realtime priority.
    KeepalivedFloor,
    /// keepalived, advertisements every 10 ms, ordinary priority.
    KeepalivedFloorNormal,
    /// keepalived, advertisements every second.
    KeepalivedDefault,
}

const CONTENDERS: [(Contender, &str); 6] = [
    (Contender::BatonDefault, "baton-default"),
    (Contender::BatonQuick, "baton-quick"),
    (Contender::BatonFast, "baton-fast"),
    (Contender::KeepalivedFloor, "keepalived-floor"),
    (Contender::KeepalivedFloorNormal, "keepalived-floor-normal"),
    (Contender::KeepalivedDefault, "keepalived-default"),
];

impl Contender {
    /// All of them.
    pub fn all() -> Vec<Self> {
        CONTENDERS.map(|(contender, _)| contender).to_vec()
    }

    /// A fresh system.
    pub fn system(self) -> Result<Box<dyn System>> {
        let baton =
            |name| -> Result<Box<dyn System>> { Ok(Box::new(Baton::new(Profile::named(name)?, gates::INSPECT))) };
        match self {
            Self::BatonDefault => baton("default"),
            Self::BatonQuick => baton("quick"),
            Self::BatonFast => baton("fast"),
            Self::KeepalivedFloor => Ok(Box::new(Keepalived::floor_realtime())),
            Self::KeepalivedFloorNormal => Ok(Box::new(Keepalived::floor())),
            Self::KeepalivedDefault => Ok(Box::new(Keepalived::default_setting())),
        }
    }

    /// Its cluster: keepalived has no use for an arbiter.
    pub fn spec(self) -> Spec {
        Spec { arbiter: self.is_baton(), ..Spec::usual("bench") }
    }

    fn is_baton(self) -> bool {
        matches!(self, Self::BatonDefault | Self::BatonQuick | Self::BatonFast)
    }

    /// Whether the bench asks for this pair unless told otherwise: the settings that the numbers speak of.
    pub fn usually_meets(self, row: Row) -> bool {
        match (self, row) {
            (Self::KeepalivedFloorNormal, row) => row == Row::Load,
            (Self::BatonFast, row) => row == Row::Fault(Fault::CutOff),
            (Self::BatonDefault, row) => matches!(row, Row::Fault(Fault::CutOff) | Row::Load),
            (Self::KeepalivedDefault, row) => matches!(row, Row::Fault(_)),
            (Self::BatonQuick | Self::KeepalivedFloor, _) => true,
        }
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(CONTENDERS.iter().find(|(c, _)| c == self).map_or("?", |(_, name)| name))
    }
}

impl FromStr for Contender {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = CONTENDERS.iter().find(|(_, name)| *name == text);
        let names = || CONTENDERS.map(|(_, name)| name).join(", ");
        found.map(|(c, _)| *c).ok_or_else(|| anyhow!("no system is named `{text}`; there are {}", names()))
    }
}

/// What happens in a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    /// A fault on an idle machine.
    Fault(Fault),
    /// A fault while busy loops compete for the CPUs.
    Loaded(Fault),
    /// Busy loops alone: nothing fails.
    Load,
}

impl Row {
    /// The rows of the usual bench.
    pub fn usual() -> Vec<Self> {
        let faults = [Fault::CutOff, Fault::Kill, Fault::Stop, Fault::Backplane, Fault::FrontDown, Fault::Move];
        faults.map(Self::Fault).into_iter().chain([Self::Loaded(Fault::CutOff), Self::Load]).collect()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => f.write_str(fault.name()),
            Self::Loaded(fault) => write!(f, "{}+load", fault.name()),
            Self::Load => f.write_str("load"),
        }
    }
}

impl FromStr for Row {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "load" {
            return Ok(Self::Load);
        }
        match text.strip_suffix("+load") {
            Some(fault) => Ok(Self::Loaded(fault.parse()?)),
            None => Ok(Self::Fault(text.parse()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for row in Row::usual() {
            assert_eq!(row.to_string().parse::<Row>().unwrap(), row);
        }
        for contender in Contender::all() {
            assert_eq!(contender.to_string().parse::<Contender>().unwrap(), contender);
        }
        assert!("keepalived".parse::<Contender>().is_err() && "nonsense+load".parse::<Row>().is_err());
    }
}
