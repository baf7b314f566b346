//! How long a proposal takes, and how much an idle quorum costs. It asserts nothing about time; run it by hand:
//! `cargo test --release -p baton --test quorum_pace -- --ignored --nocapture`

mod quorum_support;

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use baton::{backplane::channel::Channel, cluster::ids::VoterId, quorum::Quorum};
use bytes::Bytes;
use quorum_support::{Barriers, Cluster, Launch, Voter, barrier, wait};

const ROUNDS: u64 = 2000;

struct Running {
    me: VoterId,
    quorum: Arc<Quorum<Barriers>>,
    channel: Arc<Channel>,
}

/// One voter with its own runtime thread, as in the agent.
fn run(launch: Launch, ready: &mpsc::Sender<Running>, over: tokio::sync::oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let Voter { me, quorum, mut events, channel, .. } = launch.start().await.expect("started");
        ready.send(Running { me, quorum: Arc::new(quorum), channel }).expect("the test waits");
        let drain = async { while events.recv().await.is_some() {} };
        tokio::select! { () = drain => {}, _ = over => {} }
    });
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_micros();
    println!("{what}: p50 {} µs, p90 {} µs, p99 {} µs, max {} µs", at(50), at(90), at(99), at(100));
}

fn cpu() -> Duration {
    let usage = std::fs::read_to_string("/proc/self/stat").expect("procfs");
    let fields: Vec<&str> = usage.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
    Duration::from_millis(ticks * 10)
}

async fn timed<F: Future>(mut make: impl FnMut(u64) -> F) -> Vec<Duration> {
    let mut times = Vec::new();
    for n in 1..=ROUNDS {
        let start = Instant::now();
        make(n).await;
        times.push(start.elapsed());
    }
    times
}

#[tokio::test]
#[ignore = "a measurement"]
async fn pace() {
    let cluster = Cluster::new(3);
    let (ready, started) = mpsc::channel();
    let mut threads = Vec::new();
    for id in 1..=3 {
        let (mut launch, ready) = (cluster.launcher(id), ready.clone());
        launch.snapshot_entries = None;
        let (over, ended) = tokio::sync::oneshot::channel();
        threads.push((over, std::thread::spawn(move || run(launch, &ready, ended))));
    }
    let mut voters: Vec<Running> = started.iter().take(3).collect();
    voters.sort_by_key(|voter| voter.me);
    let [one, two, _] = voters.as_slice() else { panic!("three voters") };
    while !one.quorum.is_leader() {
        drop(one.quorum.elect().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    wait("the links", || one.channel.connected(VoterId(2)) == [true, true]).await;
    let empty = |channel: &Arc<Channel>| {
        let channel = Arc::clone(channel);
        // No such method: answered without any work.
        async move { drop(channel.call(VoterId(2), 200, Bytes::new(), Duration::from_secs(1)).await) }
    };
    report("rpc over two links", timed(|_| empty(&one.channel)).await);
    report("propose at the leader", timed(|n| one.quorum.propose(barrier(1, n))).await);
    report("propose at a follower", timed(|n| two.quorum.propose(barrier(2, n))).await);
    let (mut calls, mut proposals) = (Vec::new(), Vec::new());
    for n in 1..=200 {
        // As in real life: nothing happened for a while, caches and processors are cold.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let start = Instant::now();
        empty(&one.channel).await;
        calls.push(start.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
        let start = Instant::now();
        let applied = one.quorum.propose(barrier(1, ROUNDS + n)).await;
        assert!(applied.is_ok_and(|applied| applied.outcome.is_ok()));
        proposals.push(start.elapsed());
    }
    report("rpc after a pause", calls);
    report("propose at the leader after a pause", proposals);
    let mut elections = Vec::new();
    for round in 0..200 {
        let (old, new) = if round % 2 == 0 { (one, two) } else { (two, one) };
        old.quorum.step_aside();
        // Longer than raft's leader lease.
        tokio::time::sleep(Duration::from_millis(30)).await;
        let start = Instant::now();
        let mut changes = new.quorum.changes();
        new.quorum.elect().await.expect("a majority would vote");
        while !new.quorum.is_leader() && start.elapsed() < Duration::from_secs(1) {
            drop(tokio::time::timeout(Duration::from_millis(100), changes.changed()).await);
        }
        elections.push(start.elapsed());
    }
    report("an election", elections);
    let before = cpu();
    tokio::time::sleep(Duration::from_secs(10)).await;
    println!("idle: {:.2} % of a core for three voters", (cpu() - before).as_secs_f64() * 10.0);
    for (over, thread) in threads {
        over.send(()).expect("it runs");
        thread.join().expect("ended");
    }
}
