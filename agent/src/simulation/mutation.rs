//! The rules that a simulation can leave out, to show that it would notice.

use crate::cluster::mutations::Mutations;

/// One rule left out, in the real core or in the modelled kernel side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A switch of the real core, by its name in [`Mutations::NAMES`].
    Core(&'static str),
    /// Kernel: the program does not look at the floor again after it exchanged R (rule 3).
    SkipSecondFloorCheck,
    /// Kernel: of two programs on two links the later one may set R back.
    PlainExchange,
    /// Pulse: beats claim the newest applied entry instead of the one whose effect is in the gate (rule 1).
    BeatClaimsApplied,
    /// Keeper: its beats claim the newest entry there is instead of the one whose effect is in the gate (rule 10).
    KeeperClaimsNewest,
    /// Agent: when the keeper ends before the own barrier, the gates stay as they were (rule 10).
    OrphanKeepsGates,
}

impl Mutation {
    /// The mutations outside the core, by name.
    pub const KERNEL: [(&'static str, Self); 5] = [
        ("skip_second_floor_check", Self::SkipSecondFloorCheck),
        ("plain_exchange", Self::PlainExchange),
        ("beat_claims_applied", Self::BeatClaimsApplied),
        ("keeper_claims_newest", Self::KeeperClaimsNewest),
        ("orphan_keeps_gates", Self::OrphanKeepsGates),
    ];

    /// A mutation by its name, of the core or of the kernel side.
    pub fn named(name: &str) -> Option<Self> {
        let core = Mutations::NAMES.iter().find(|known| **known == name).map(|known| Self::Core(known));
        core.or_else(|| Self::KERNEL.iter().find(|(known, _)| *known == name).map(|(_, mutation)| *mutation))
    }

    /// The core's switches for it.
    pub fn switches(self) -> Mutations {
        match self {
            Self::Core(name) => Mutations::for_simulation(name).unwrap_or_default(),
            _ => Mutations::default(),
        }
    }
}
