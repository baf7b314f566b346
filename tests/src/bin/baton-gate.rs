//! The gate and a server in a guest of `cargo xtask vm steer`, without an agent.

use std::net::Ipv4Addr;

use anyhow::Result;
use baton::cluster::ids::VoterId;
use baton_lab::vm::driver::{Place, gate, parse_mac, serve};
use clap::Parser;

#[derive(Parser)]
enum Arguments {
    /// Attach the gate, and take its roles from standard input.
    Gate {
        /// This voter, 1 or 2.
        me: u8,
        /// The front device.
        front: String,
        /// The backplane device.
        link: String,
        /// The peer's hardware address on the backplane.
        peer_mac: String,
        /// The VIP.
        vip: Ipv4Addr,
    },
    /// Greet every TCP connection with a letter, then echo.
    Serve {
        /// The letter.
        greeting: char,
        /// The port.
        port: u16,
    },
}

fn main() -> Result<()> {
    match Arguments::parse() {
        Arguments::Gate { me, front, link, peer_mac, vip } => {
            gate(&Place { me: VoterId(me), front, link, peer_mac: parse_mac(&peer_mac)?, vip })
        }
        Arguments::Serve { greeting, port } => serve(u8::try_from(greeting)?, port),
    }
}
