//! The bounds of each configuration of the model. Within them it is explored to the end.

/// How finely a voter's kernel side and the network are taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// Beats and acknowledgements are messages; floor check, exchange of R and answer are steps of their own.
    Fine,
    /// A beat is sent, acknowledged and heard in one step, or not at all.
    Whole,
}

/// How many of the things that may happen may happen.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Printed with the results.
    pub name: &'static str,
    /// How finely acknowledging is taken apart.
    pub grain: Grain,
    /// The lease, in ticks of the holder's clock.
    pub lease: u8,
    /// The hold, in ticks of the voter's clock.
    pub hold: u8,
    /// A node's clock may miss one tick in so many; 0 for none.
    pub drift: u8,
    /// Entries of the log.
    pub entries: u8,
    /// Conclusions that a node lost.
    pub lost: u8,
    /// Conclusions that a node is alive.
    pub alive: u8,
    /// Restarts, of any machine: of the agent alone, or of the host with its maps.
    pub restarts: u8,
    /// Releases proposed (each may arrive any number of times).
    pub releases: u8,
    /// Moves begun.
    pub moves: u8,
}

/// Rounds, floors, messages, drift, and the race between program and agent: rules 1 to 4.
pub const ROUNDS: Bounds = Bounds {
    name: "rounds",
    grain: Grain::Fine,
    lease: 2,
    hold: 3,
    drift: 3,
    entries: 2,
    lost: 1,
    alive: 1,
    restarts: 0,
    releases: 0,
    moves: 0,
};

/// What the others have in common: time in units of the lease.
const COARSE: Bounds = Bounds {
    name: "",
    grain: Grain::Whole,
    lease: 1,
    hold: 1,
    drift: 0,
    entries: 0,
    lost: 0,
    alive: 0,
    restarts: 0,
    releases: 0,
    moves: 0,
};

/// Restarts around a round, with drift: rules 2, 4 and 5.
pub const RESTARTS: Bounds =
    Bounds { name: "restarts", lease: 2, hold: 3, drift: 3, entries: 3, lost: 1, restarts: 2, ..COARSE };

/// Releases, with a round and a restart around them: rules 4, 5, 6 and 8.
pub const RELEASES: Bounds = Bounds { name: "releases", entries: 4, lost: 1, restarts: 1, releases: 1, ..COARSE };

/// A planned move, with a round around it: rules 4 and 7.
pub const MOVES: Bounds = Bounds { name: "moves", entries: 5, lost: 1, moves: 1, ..COARSE };

/// A planned move, with a restart around it: rules 4, 5 and 7.
pub const MOVES_AND_RESTARTS: Bounds =
    Bounds { name: "moves and restarts", entries: 4, restarts: 1, moves: 1, ..COARSE };
