//! What runs in the guests of [`super::steer`]: the gate on its devices, told its roles line by line, and a TCP server.
//!
//! There is no agent: lease and peer are set to hold for longer than any test lasts.

use std::{
    io::{BufRead, Read, Write},
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream},
    thread,
};

use anyhow::{Context, Result, bail};
use baton::{
    clock,
    cluster::{command::GateRole, ids::VoterId},
    kernel::{self, Chain, Device, Kernel, KernelConfig, LinkConfig, LinkHook, Path, VipRow},
};
use baton_ebpf::steering::mac_number;

use crate::topology::Mac;

/// An hour, ns.
const LONG_NS: u64 = 3_600_000_000_000;
/// The slot of the only group.
const SLOT: u32 = 1;

/// Which node this is, and where the gate stands.
#[derive(Clone, Debug)]
pub struct Place {
    /// This voter, 1 or 2; the other one is the peer.
    pub me: VoterId,
    /// The front device.
    pub front: String,
    /// The backplane device.
    pub link: String,
    /// The peer's hardware address there.
    pub peer_mac: Mac,
    /// The VIP.
    pub vip: Ipv4Addr,
}

/// Attaches the gate, which knows no VIP at first, then does what each line of standard input says, and answers each with
/// a line that begins with its number: `vip` (know the VIP), `role EPOCH owner|steer|drain|receive|closed`, `counters`.
pub fn gate(place: &Place) -> Result<()> {
    let kernel = kernel::attach(&config(place)?)?;
    let tables = kernel.tables();
    let peer = other(place.me);
    tables.control().lease_end.store(clock::now() + LONG_NS);
    let row = tables.peer(peer);
    row.host_seen.store(clock::now());
    row.links[0].mac.store(mac_number(place.peer_mac));
    let ifindex = index(&place.link)?;
    tables.set_path(peer, Some(Path { ifindex, peer_mac: place.peer_mac, own_mac: mac(&place.link)? }));
    println!("0 attached");
    for (number, line) in std::io::stdin().lock().lines().enumerate() {
        let answer = obey(&kernel, place, &line?).unwrap_or_else(|error| format!("error: {error:#}"));
        println!("{} {answer}", number + 1);
    }
    Ok(())
}

fn obey(kernel: &Kernel, place: &Place, line: &str) -> Result<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["vip"] => {
            let row = VipRow { address: IpAddr::V4(place.vip), slot: SLOT, front: index(&place.front)? };
            kernel.set_vips(&[row])?;
        }
        ["role", epoch, role] => {
            let peer = other(place.me);
            let role = match role {
                "owner" => GateRole::Owner { steer: None },
                "steer" => GateRole::Owner { steer: Some(peer) },
                "drain" => GateRole::Drain { to: peer },
                "receive" => GateRole::Receive { from: peer },
                "closed" => GateRole::Closed,
                _ => bail!("{role} is no role"),
            };
            kernel.tables().set_gate(SLOT, epoch.parse()?, role);
        }
        ["counters"] => {
            let counted = kernel.tables().gate_counters(SLOT).context("no such slot")?;
            return Ok(format!("{} {} {}", counted.steered, counted.bounced, counted.taken));
        }
        _ => bail!("{line} is no order"),
    }
    Ok("done".into())
}

/// Serves TCP on all addresses: greets with one byte, then gives back what it gets.
pub fn serve(greeting: u8, port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).context("cannot listen")?;
    println!("listening");
    for stream in listener.incoming() {
        // A client that goes away early is its own affair.
        thread::spawn(move || stream.and_then(|stream| echo(stream, greeting)).ok());
    }
    Ok(())
}

fn echo(mut stream: TcpStream, greeting: u8) -> std::io::Result<()> {
    stream.write_all(&[greeting])?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length])?,
        }
    }
}

fn other(me: VoterId) -> VoterId {
    VoterId(3 - me.0.clamp(1, 2))
}

fn index(device: &str) -> Result<u32> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{device}/ifindex"));
    Ok(text.with_context(|| format!("no device {device}"))?.trim().parse()?)
}

fn mac(device: &str) -> Result<Mac> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{device}/address"));
    parse_mac(text.with_context(|| format!("no device {device}"))?.trim())
}

/// `52:54:00:00:00:01` as bytes.
pub fn parse_mac(text: &str) -> Result<Mac> {
    let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<Vec<_>, _>>()?;
    Mac::try_from(bytes).map_err(|_odd| anyhow::anyhow!("{text} is no hardware address"))
}

fn config(place: &Place) -> Result<KernelConfig> {
    let device = |name: &str| Ok::<_, anyhow::Error>(Device { ifindex: index(name)?, name: name.to_owned() });
    Ok(KernelConfig {
        cluster: "vm".into(),
        cluster_id: 1,
        node: format!("node{}", place.me.0),
        bpffs: "/sys/fs/bpf".into(),
        me: place.me,
        voters: vec![VoterId(1), VoterId(2)],
        key: [1, 2],
        port: 7420,
        incarnation: 1,
        lease_ns: LONG_NS,
        links: vec![LinkConfig { device: device(&place.link)?, hook: LinkHook::Tc }],
        fronts: vec![device(&place.front)?],
        others: Vec::new(),
        vips: Vec::new(),
        chain: Chain::Auto,
        realtime: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_read() {
        assert_eq!(parse_mac("52:54:00:00:0a:ff").unwrap(), [0x52, 0x54, 0, 0, 10, 255]);
        assert!(parse_mac("52:54").is_err() && parse_mac("").is_err());
        assert_eq!((other(VoterId(1)), other(VoterId(2))), (VoterId(2), VoterId(1)));
    }
}
