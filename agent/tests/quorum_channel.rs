//! The RPC channel between voters, over two loopback links.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use baton::{
    backplane::channel::{Channel, ChannelConfig, Incoming, MESSAGE_BYTES_MAX, RpcError},
    cluster::ids::VoterId,
};
use bytes::Bytes;
use tokio::sync::Semaphore;

const LONG: Duration = Duration::from_secs(30);
const ONE: VoterId = VoterId(1);
const TWO: VoterId = VoterId(2);

static PAIRS: AtomicU16 = AtomicU16::new(0);

/// The addresses of two voters that no other test uses.
#[derive(Clone, Copy)]
struct Pair {
    net: (u8, u8),
    port: u16,
}

impl Pair {
    fn new() -> Self {
        let pid = std::process::id();
        let number = PAIRS.fetch_add(1, Relaxed);
        Self { net: ((pid % 200) as u8 + 20, 100 + number as u8), port: 26_000 + (pid / 200 % 5_000) as u16 }
    }

    fn links(&self, id: VoterId) -> Vec<IpAddr> {
        let ip = |link: u8| IpAddr::V4(Ipv4Addr::new(127, self.net.0, self.net.1, link * 10 + id.0));
        vec![ip(1), ip(2)]
    }

    fn start(&self, me: VoterId, incarnation: u64, key: &str, cluster: &str) -> (Arc<Channel>, Incoming) {
        Channel::start(ChannelConfig {
            me,
            cluster: cluster.to_owned(),
            key: key.as_bytes().to_vec(),
            incarnation,
            links: self.links(me),
            port: self.port,
            peers: [ONE, TWO].map(|id| (id, self.links(id))).to_vec(),
        })
        .expect("started")
    }

    async fn connected(&self) -> ((Arc<Channel>, Incoming), (Arc<Channel>, Incoming)) {
        let one = self.start(ONE, 1, "key", "cluster");
        let two = self.start(TWO, 1, "key", "cluster");
        both_links(&one.0, TWO).await;
        both_links(&two.0, ONE).await;
        (one, two)
    }
}

async fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn both_links(channel: &Channel, peer: VoterId) {
    wait("both links connect", || channel.connected(peer) == [true, true]).await;
}

fn counted(channel: &Channel, name: &str) -> u64 {
    channel.counters().all().iter().find(|(of, _)| *of == name).expect("a counter").1
}

/// Answers with the request, counts, and waits for the gate if there is one.
fn echo(channel: &Channel, gate: Option<Arc<Semaphore>>) -> Arc<AtomicU64> {
    let calls = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&calls);
    channel.serve(Arc::new(move |_peer, method, body| {
        count.fetch_add(1, Relaxed);
        let gate = gate.clone();
        Box::pin(async move {
            if let Some(gate) = gate {
                gate.acquire().await.map_err(|error| error.to_string())?.forget();
            }
            if method == 9 { Err("no".to_owned()) } else { Ok(body) }
        })
    }));
    calls
}

#[tokio::test]
async fn each_request_is_carried_out_once_though_it_goes_over_both_links() {
    let ((one, _), (two, _)) = Pair::new().connected().await;
    let calls = echo(&two, None);
    for n in 0..500u64 {
        let body = Bytes::from(n.to_string());
        assert_eq!(one.call(TWO, 1, body.clone(), LONG).await, Ok(body));
    }
    wait("the copies are counted", || counted(&two, "duplicates") == 500).await;
    assert_eq!(calls.load(Relaxed), 500);
    let refused = one.call(TWO, 9, Bytes::new(), LONG).await;
    assert_eq!(refused, Err(RpcError::Failed { peer: TWO, reason: "no".to_owned() }));
}

#[tokio::test]
async fn a_large_message_goes_in_many_frames() {
    let ((one, _), (two, _)) = Pair::new().connected().await;
    echo(&two, None);
    let body: Bytes = (0..3_000_000u32).map(|n| (n / 7) as u8).collect();
    assert_eq!(one.call(TWO, 1, body.clone(), LONG).await, Ok(body));
    let oversized = Bytes::from(vec![0; MESSAGE_BYTES_MAX]);
    assert_eq!(one.call(TWO, 1, oversized, LONG).await, Err(RpcError::TooLarge(MESSAGE_BYTES_MAX)));
}

#[tokio::test]
async fn a_call_survives_the_loss_of_every_connection_and_is_carried_out_once() {
    let ((one, _), (two, _)) = Pair::new().connected().await;
    let gate = Arc::new(Semaphore::new(0));
    let calls = echo(&two, Some(Arc::clone(&gate)));
    // The connections are lost while the request is worked on; the reply is made before, or after, they are back.
    for (n, reply_first) in [(1, false), (2, true), (3, false), (4, true)] {
        let body = Bytes::from(n.to_string());
        let call = one.call(TWO, 1, body.clone(), LONG);
        let faults = async {
            wait("the request arrives", || calls.load(Relaxed) == n).await;
            for link in 0..2 {
                one.cut(TWO, link);
                two.cut(ONE, link);
            }
            if reply_first {
                gate.add_permits(1);
            }
            wait("both ends notice", || counted(&two, "disconnections") >= 2 * n).await;
            both_links(&two, ONE).await;
            if !reply_first {
                gate.add_permits(1);
            }
        };
        let (reply, ()) = tokio::join!(call, faults);
        assert_eq!(reply, Ok(body));
        assert_eq!(calls.load(Relaxed), n);
        both_links(&one, TWO).await;
    }
}

#[tokio::test]
async fn a_peer_that_is_away_costs_no_time_and_one_that_is_silent_the_deadline() {
    let pair = Pair::new();
    let (one, _incoming) = pair.start(ONE, 1, "key", "cluster");
    assert_eq!(one.call(TWO, 1, Bytes::new(), LONG).await, Err(RpcError::NotConnected(TWO)));
    assert_eq!(one.call(ONE, 1, Bytes::new(), LONG).await, Err(RpcError::Unknown(ONE)));
    let (two, _incoming) = pair.start(TWO, 1, "key", "cluster");
    both_links(&one, TWO).await;
    let unready = one.call(TWO, 1, Bytes::new(), LONG).await;
    assert!(matches!(unready, Err(RpcError::Failed { .. })), "{unready:?}");
    echo(&two, Some(Arc::new(Semaphore::new(0))));
    let late = one.call(TWO, 1, Bytes::new(), Duration::from_millis(30)).await;
    assert_eq!(late, Err(RpcError::Deadline(TWO)));
}

#[tokio::test]
async fn another_key_or_cluster_never_connects() {
    let pair = Pair::new();
    let (one, _incoming) = pair.start(ONE, 1, "key", "cluster");
    for (key, cluster) in [("other key", "cluster"), ("key", "other cluster")] {
        let before = counted(&one, "bad_handshakes");
        let (two, _incoming) = pair.start(TWO, 1, key, cluster);
        wait("both refuse", || counted(&two, "bad_handshakes") > 3 && counted(&one, "bad_handshakes") > before + 3)
            .await;
        assert_eq!((one.connected(TWO), two.connected(ONE)), (vec![false, false], vec![false, false]));
        assert_eq!(counted(&one, "connections") + counted(&two, "connections"), 0);
    }
}

#[tokio::test]
async fn a_restarted_peer_is_told_apart_and_its_former_self_is_refused() {
    let pair = Pair::new();
    let ((one, _in_one), (two, in_two)) = pair.connected().await;
    echo(&two, Some(Arc::new(Semaphore::new(0))));
    let call = one.call(TWO, 1, Bytes::new(), LONG);
    let restart = async {
        tokio::task::yield_now().await;
        drop((two, in_two));
        wait("the loss is noticed", || one.connected(TWO) == [false, false]).await;
        pair.start(TWO, 7, "key", "cluster")
    };
    let (reply, (two, in_two)) = tokio::join!(call, restart);
    assert_eq!(reply, Err(RpcError::Restarted(TWO)));
    assert_eq!(one.incarnation(TWO), 7);
    both_links(&one, TWO).await;
    // Message ids begin anew: nothing of the new incarnation may be taken for a copy.
    let calls = echo(&two, None);
    assert_eq!(one.call(TWO, 1, Bytes::from("x"), LONG).await, Ok(Bytes::from("x")));
    assert_eq!(calls.load(Relaxed), 1);
    drop((two, in_two));
    wait("the loss is noticed", || one.connected(TWO) == [false, false]).await;
    let (_former, _incoming) = pair.start(TWO, 3, "key", "cluster");
    let before = counted(&one, "bad_handshakes");
    wait("the former self is refused", || counted(&one, "bad_handshakes") > before + 3).await;
    assert_eq!(one.connected(TWO), [false, false]);
}

#[tokio::test]
async fn one_way_messages_arrive_once_and_in_order_and_a_full_queue_drops() {
    let ((one, _in_one), (two, mut in_two)) = Pair::new().connected().await;
    for n in 0..200u64 {
        one.send(TWO, n.to_string().as_bytes()).expect("sent");
    }
    for n in 0..200u64 {
        assert_eq!(in_two.recv().await, Some((ONE, Bytes::from(n.to_string()))));
    }
    for n in 0..3000u64 {
        one.send(TWO, n.to_string().as_bytes()).expect("sent");
        if n % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    wait("too many are dropped", || counted(&two, "one_way_dropped") + in_two.len() as u64 == 3000).await;
    assert!(counted(&two, "one_way_dropped") > 0);
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_dropped_and_comes_back() {
    let pair = Pair::new();
    let (one, _incoming) = pair.start(ONE, 1, "key", "cluster");
    let (release, wall) = std::sync::mpsc::channel::<()>();
    let (go, stop) = (Arc::new(Semaphore::new(0)), tokio::sync::oneshot::channel::<()>());
    let (block, may_stop) = (Arc::clone(&go), stop.1);
    let peer = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let (_two, _incoming) = pair.start(TWO, 1, "key", "cluster");
            drop(block.acquire().await);
            // The whole runtime stands still, as in a stopped process.
            assert!(wall.recv().is_err());
            drop(may_stop.await);
        });
    });
    both_links(&one, TWO).await;
    go.add_permits(1);
    let start = Instant::now();
    while counted(&one, "stuck") < 2 {
        assert!(start.elapsed() < LONG, "never dropped");
        // Refused once both are dropped; what counts is that it never waits.
        drop(one.send(TWO, &[0; 60_000]));
        tokio::task::yield_now().await;
    }
    wait("both are gone", || one.connected(TWO) == [false, false]).await;
    drop(release);
    both_links(&one, TWO).await;
    drop(stop.0);
    peer.join().expect("ended");
}

#[tokio::test]
async fn a_link_follows_its_heartbeats_and_calls_in_flight_are_answered() {
    let ((one, _in_one), (two, _in_two)) = Pair::new().connected().await;
    let gate = Arc::new(Semaphore::new(0));
    let calls = echo(&two, Some(Arc::clone(&gate)));
    for round in 1..=3 {
        let body = Bytes::from(round.to_string());
        let call = one.call(TWO, 1, body.clone(), LONG);
        let faults = async {
            wait("the request arrives", || calls.load(Relaxed) == round).await;
            let (made, lost) = (counted(&one, "connections"), counted(&one, "disconnections"));
            for link in 0..2 {
                one.heartbeats(TWO, link, false);
            }
            wait("both connections are closed", || counted(&one, "disconnections") >= lost + 2).await;
            for link in 0..2 {
                one.heartbeats(TWO, link, true);
            }
            wait("both links are connected anew", || counted(&one, "connections") >= made + 2).await;
            both_links(&two, ONE).await;
            gate.add_permits(1);
        };
        let (reply, ()) = tokio::join!(call, faults);
        assert_eq!(reply, Ok(body));
        assert_eq!(calls.load(Relaxed), round, "carried out once");
        both_links(&one, TWO).await;
    }
    // Of links and voters that there are not, nothing is known.
    one.heartbeats(TWO, 7, false);
    one.heartbeats(TWO, 7, true);
    one.heartbeats(VoterId(8), 0, true);
    assert_eq!(one.connected(TWO), [true, true]);
}

#[tokio::test]
async fn an_attempt_that_began_on_a_dead_link_is_given_up_when_the_heartbeats_are_back() {
    let pair = Pair::new();
    // Something accepts in the peer's place and says nothing, as a dead link does: each attempt lasts until its time is over.
    let silent = tokio::net::TcpListener::bind((pair.links(TWO)[0], pair.port)).await.expect("bound");
    let (one, _incoming) = pair.start(ONE, 1, "key", "cluster");
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < LONG, "every attempt lasted to its end");
        let attempt = silent.accept().await.expect("an attempt");
        let slow = counted(&one, "slow_handshakes");
        one.heartbeats(TWO, 0, true);
        let again = silent.accept().await.expect("another attempt");
        // No attempt ran out of time between the two; on a stalled machine one may, and then it is tried again.
        if counted(&one, "slow_handshakes") == slow {
            drop((attempt, again));
            break;
        }
    }
}
