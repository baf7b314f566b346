//! A planned move between two guests that answer with SYN cookies, each by a secret of its own.
//!
//! Namespaces of one machine share the secret of the cookies, so only guests can show that a cookie is told by the node
//! that gave it. Client and guests are joined by taps with checksum and segmentation offload, as hardware would be.
//!
//! ```text
//!              front 10.9.0.0/24                       back 10.9.1.0/24
//! client .250 ──────┬─────────────┐              ┌──────────────┐
//!                 A .1          B .2            A .1           B .2          VIP 10.9.0.100
//! ```

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{
    guest::{Guest, Spec},
    image::Image,
    kernel::Kernel,
    network::Network,
};
use crate::{home::Home, netns::NetNs, topology::Mac, wait};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 100);
const PORT: u16 = 9000;
const MODULES: [&str; 2] = ["sch_ingress", "cls_bpf"];
/// For a program that starts, or the gate that attaches, under emulation.
const START_LIMIT: Duration = Duration::from_secs(240);
/// For an answer of a client's peer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// What a connection carries once it stands: enough for large segments both ways.
const BULK: usize = 2 << 20;
/// What comes before it.
const FIRST: u8 = 0xba;
/// The client's kernel opens a connection, but its part of the handshake is held: only SYNs get out.
const HOLD: &str = "table ip hold { chain out { type filter hook output priority 0;
    tcp dport 9000 tcp flags & (syn | ack) != syn counter drop; }; }";

/// A guest with the gate.
struct Node {
    guest: Guest,
    name: char,
    front_mac: Mac,
    gate: usize,
    orders: usize,
}

/// What a gate counted: sent to the peer, of that sent back as final, taken from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    steered: u64,
    bounced: u64,
    taken: u64,
}

impl Node {
    /// Sets the guest's network up, and starts server and gate.
    fn start(mut guest: Guest, name: char, host: u8, front_mac: Mac, peer_mac: Mac) -> Result<Self> {
        guest.shell(&format!(
            "sysctl -q -w net.ipv4.tcp_syncookies=2 net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
             ip link set lo up
             for device in eth0 eth1; do ip link set $device up; done
             ip addr add 10.9.0.{host}/24 dev eth0
             ip addr add 10.9.1.{host}/24 dev eth1
             mkfifo /tmp/orders"
        ))?;
        let server = guest.start(&["baton-gate", "serve", &name.to_string(), &PORT.to_string()])?;
        let line = format!("exec baton-gate gate {host} eth0 eth1 {} {VIP} <>/tmp/orders", shown(peer_mac));
        let gate = guest.start(&["sh", "-c", &line])?;
        let mut node = Self { guest, name, front_mac, gate, orders: 0 };
        node.await_line(server, "listening")?;
        node.await_line(gate, "0 ")?;
        Ok(node)
    }

    /// Gives the gate an order, and hands back the answer.
    fn order(&mut self, order: &str) -> Result<String> {
        self.orders += 1;
        self.guest.shell(&format!("echo {order} >/tmp/orders"))?;
        let answer = self.await_line(self.gate, &format!("{} ", self.orders))?;
        ensure!(!answer.starts_with("error"), "{} does not obey `{order}`: {answer}", self.name);
        Ok(answer)
    }

    fn counted(&mut self) -> Result<Counted> {
        let answer = self.order("counters")?;
        let numbers: Vec<u64> = answer.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [steered, bounced, taken] = numbers[..] else { bail!("odd counters: {answer}") };
        Ok(Counted { steered, bounced, taken })
    }

    /// Adds the VIP to a device, or takes it away: `add`, `del`.
    fn vip(&mut self, verb: &str, device: &str) -> Result<()> {
        self.guest.must(&["ip", "addr", verb, &format!("{VIP}/32"), "dev", device]).map(drop)
    }

    /// How many SYNs it has answered with a cookie.
    fn cookies(&mut self) -> Result<u64> {
        let text = self.guest.shell("cat /proc/net/netstat")?;
        counter(&text, "TcpExt:", "SyncookiesSent").with_context(|| format!("no counter of cookies in {}", self.name))
    }

    /// The rest of the first line of a program's output that begins so.
    fn await_line(&mut self, job: usize, begin: &str) -> Result<String> {
        wait::until_some(START_LIMIT, &format!("`{begin}` in {}", self.name), || {
            let look = self.guest.look(job)?;
            // A line that is not whole yet has no end.
            let whole = look.output.rsplit_once('\n').map_or("", |(lines, _)| lines);
            let found = whole.lines().find_map(|line| line.strip_prefix(begin)).map(str::to_owned);
            if found.is_none() && !look.running {
                bail!("a program in {} ended: {}", self.name, look.output);
            }
            Ok(found)
        })
    }
}

/// A client whose frames to the VIP go to the front of the node that it is told.
struct Client(NetNs);

impl Client {
    fn new(home: &Home, network: &Network) -> Result<Self> {
        let ns = NetNs::new(home.path().join("client.net"))?;
        ns.ip(&format!("link add client type veth peer name wire netns {}", network.ns.path().display()))?;
        network.ns.ip("link set wire master front up")?;
        ns.ip("addr add 10.9.0.250/24 dev client\nlink set client up")?;
        Ok(Self(ns))
    }

    fn turn_to(&self, node: &Node) -> Result<()> {
        self.0.ip(&format!("neigh replace {VIP} lladdr {} dev client nud permanent", shown(node.front_mac)))
    }

    /// Opens a connection, whose greeting is not awaited.
    fn connect(&self) -> Result<TcpStream> {
        let to = SocketAddr::from((VIP, PORT));
        let stream = self.0.run(move || TcpStream::connect_timeout(&to, ANSWER_LIMIT))?.context("cannot connect")?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        Ok(stream)
    }

    /// Opens connections of which the client's kernel has got the answer to its SYN, while the server waits for its own.
    fn half_open(&self, number: usize) -> Result<Vec<TcpStream>> {
        self.0.feed("nft", &["-f", "-"], HOLD)?;
        let opened = (0..number).map(|_| self.connect()).collect();
        self.0.feed("nft", &["-f", "-"], "delete table ip hold")?;
        opened
    }
}

/// Ends the handshake by a single segment, for a cookie is told by the first one alone; tells who greeted.
fn greeted(stream: &mut TcpStream) -> Result<char> {
    stream.write_all(&[FIRST])?;
    let mut greeting = [0];
    stream.read_exact(&mut greeting).context("nobody greets")?;
    Ok(char::from(greeting[0]))
}

/// Sends, and gets back, enough for large segments.
fn exercise(stream: &mut TcpStream) -> Result<()> {
    let sent: Vec<u8> = (0..BULK).map(|n| (n % 251) as u8).collect();
    let mut writer = stream.try_clone()?;
    let copy = sent.clone();
    let writing = std::thread::spawn(move || writer.write_all(&copy));
    let mut back = vec![0; 1 + BULK];
    stream.read_exact(&mut back).context("no answer")?;
    writing.join().map_err(|_panic| anyhow!("the writer panicked"))??;
    ensure!(back[0] == FIRST && back[1..] == sent, "what came back is not what was sent");
    Ok(())
}

fn expect(what: &str, mut stream: TcpStream, node: char) -> Result<()> {
    let who = greeted(&mut stream).with_context(|| what.to_owned())?;
    ensure!(who == node, "{what}: answered by {who}, not {node}");
    exercise(&mut stream).with_context(|| format!("{what}: by {who}"))?;
    println!("  {node}: {what}");
    Ok(())
}

/// Moves the VIP from A to B and looks at who ends each handshake.
pub fn run(kernel: &Kernel, guest: &Path, gate: &Path) -> Result<()> {
    let home = Home::new("steer")?;
    let mut network = Network::new(&home, &["front", "back"])?;
    let client = Client::new(&home, &network)?;
    let (mut a, mut b) = guests(&home, &mut network, kernel, guest, gate)?;

    // A serves; its gate does not know the VIP yet, so nothing is on record but the cookies.
    a.vip("add", "eth0")?;
    client.turn_to(&a)?;
    let early = client.half_open(2)?;
    let [first, second]: [TcpStream; 2] = early.try_into().map_err(|_| anyhow!("two connections"))?;
    ensure!(a.cookies()? >= 2, "A did not answer with cookies");
    // Now it does, and notes what is opened.
    a.order("vip")?;
    a.order("role 1 owner")?;
    let standing = client.connect()?;
    let late = client.half_open(1)?.pop().context("a connection")?;

    // The move (docs/architecture.md).
    b.vip("add", "lo")?;
    b.order("vip")?;
    b.order("role 1 receive")?;
    b.order("role 2 steer")?;
    a.order("role 1 drain")?;
    a.vip("add", "lo")?;
    a.vip("del", "eth0")?;
    b.vip("add", "eth0")?;

    // The client has not heard of the move: new flows go on to B, what has A's cookie stays.
    expect("cookie given before the move and not on record, brought to A's front", first, 'A')?;
    let counted = a.counted()?;
    ensure!((counted.steered, counted.bounced) == (0, 0), "A sent its own flow on: {counted:?}");
    expect("new, by A's front", client.connect()?, 'B')?;
    ensure!(a.counted()?.steered > 0 && b.counted()?.taken > 0, "the new flow was not steered");
    ensure!(b.cookies()? >= 1, "B did not answer with a cookie");

    // Now it has. B has given cookies, too, so it must tell A's from its own by its secret.
    client.turn_to(&b)?;
    expect("new, by B's front", client.connect()?, 'B')?;
    let before = b.counted()?.steered;
    expect("cookie given before the move and not on record, brought to B's front", second, 'A')?;
    ensure!(b.counted()?.steered > before, "B did not steer A's flow");
    expect("cookie given before the move, brought to B's front", late, 'A')?;
    expect("stood before the move, goes on by B's front", standing, 'A')?;
    let bounced = [a.counted()?.bounced, b.counted()?.bounced];
    ensure!(bounced == [0, 0], "packets were sent back: {bounced:?}");
    Ok(())
}

/// Boots both, one after the other, and starts what runs in them.
fn guests(home: &Home, network: &mut Network, kernel: &Kernel, guest: &Path, gate: &Path) -> Result<(Node, Node)> {
    let mut image = Image::new(kernel, guest)?;
    image.modules(&MODULES).binary("/usr/bin/baton-gate", gate)?.program("ip")?;
    let initramfs = home.path().join("initramfs");
    image.write(&initramfs)?;
    let mut boot = |name: char| {
        let mut spec = Spec::new(&name.to_string(), kernel, initramfs.clone());
        spec.nics = vec![network.nic("front")?, network.nic("back")?];
        eprintln!("vm: {}: {name}", kernel.release);
        let guest = Guest::boot(home, &network.ns, &spec)?;
        Ok::<_, anyhow::Error>((guest, spec.nics[0].mac, spec.nics[1].mac))
    };
    let ((a, a_front, a_back), (b, b_front, b_back)) = (boot('A')?, boot('B')?);
    Ok((Node::start(a, 'A', 1, a_front, b_back)?, Node::start(b, 'B', 2, b_front, a_back)?))
}

fn shown(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A counter of /proc/net/netstat: a line of names, then a line of numbers, both with the same prefix.
fn counter(text: &str, prefix: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(prefix));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|known| known == name)?;
    numbers.split_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let text = "TcpExt: SyncookiesSent SyncookiesRecv\nTcpExt: 3 4\nIpExt: InOctets\nIpExt: 9\n";
        assert_eq!(counter(text, "TcpExt:", "SyncookiesRecv"), Some(4));
        assert_eq!(counter(text, "IpExt:", "SyncookiesRecv"), None);
    }
}
