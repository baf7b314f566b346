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
    /// Restarts of agents; the maps in the kernel stay.
    pub agent_restarts: u8,
    /// Restarts of hosts; the maps are gone.
    pub host_restarts: u8,
    /// Releases proposed (each may arrive any number of times).
    pub releases: u8,
    /// Moves begun.
    pub moves: u8,
}

/// Rounds, floors, messages and the race between program and agent: rules 1 to 4.
pub const ROUNDS: Bounds = Bounds {
    name: "rounds",
    grain: Grain::Fine,
    lease: 2,
    hold: 3,
    drift: 3,
    entries: 2,
    lost: 1,
    alive: 1,
    agent_restarts: 0,
    host_restarts: 0,
    releases: 0,
    moves: 0,
};

/// Restarts of agents and hosts, and releases: rules 4, 5, 6 and 8.
pub const RESTARTS: Bounds = Bounds {
    name: "restarts",
    grain: Grain::Whole,
    lease: 1,
    hold: 1,
    drift: 0,
    entries: 4,
    lost: 1,
    alive: 0,
    agent_restarts: 1,
    host_restarts: 1,
    releases: 1,
    moves: 0,
};

/// Planned moves, with conclusions and a restart between their steps: rules 4 and 7.
pub const MOVES: Bounds = Bounds {
    name: "moves",
    grain: Grain::Whole,
    lease: 1,
    hold: 1,
    drift: 0,
    entries: 5,
    lost: 1,
    alive: 0,
    agent_restarts: 0,
    host_restarts: 1,
    releases: 0,
    moves: 1,
};
