//! Three quorums in one process, over two loopback links with the real channel and the real log.

mod quorum_support;

use std::time::Duration;

use baton::{
    cluster::{
        entry::Entry,
        ids::{GroupId, VoterId},
    },
    quorum::{ProposeError, QuorumError, machine::AppliedEvent},
};
use quorum_support::{Cluster, barrier, wait};

#[tokio::test]
async fn a_leader_is_elected_and_every_voter_applies_what_a_follower_proposed() {
    let mut cluster = Cluster::start(3).await;
    cluster.elect(1).await;
    let applied = cluster.voter(3).quorum.propose(barrier(3, 1)).await.expect("applied");
    assert_eq!(applied.outcome, Ok(()));
    let refused = cluster.voter(2).quorum.propose(barrier(3, 1)).await.expect("a refusal is an outcome");
    assert!(refused.outcome.is_err());
    assert!(refused.index > applied.index);
    for id in 1..=3 {
        cluster.applied(id, refused.index).await;
        assert_eq!(cluster.voter(id).quorum.state().0.incarnations, [(VoterId(3), 1)].into());
        let mut entries = Vec::new();
        while let Some(event) = cluster.voter_mut(id).events.try_recv() {
            if let AppliedEvent::Entry { index, entry: Some(entry), outcome } = event {
                entries.push((index, entry, outcome.is_ok()));
            }
        }
        let expected = [(applied.index, barrier(3, 1), true), (refused.index, barrier(3, 1), false)];
        assert_eq!(entries, expected, "voter {id}");
        assert_eq!(cluster.voter(id).events.depth(), 0);
    }
}

#[tokio::test]
async fn another_voter_is_elected_when_the_leader_is_gone_and_the_old_one_follows_when_it_is_back() {
    let mut cluster = Cluster::start(3).await;
    cluster.elect(1).await;
    let first = cluster.voter(1).quorum.propose(barrier(1, 1)).await.expect("applied");
    cluster.stop(1).await;
    cluster.elect(2).await;
    let second = cluster.voter(3).quorum.propose(barrier(2, 1)).await.expect("applied");
    assert!(second.index > first.index);
    cluster.restart(1).await;
    wait("the old leader follows", || cluster.voter(1).quorum.view().leader == Some(VoterId(2))).await;
    cluster.applied(1, second.index).await;
    assert_eq!(cluster.voter(1).quorum.state().0, cluster.voter(2).quorum.state().0);
}

#[tokio::test]
async fn a_link_that_dies_under_appends_costs_nobody_an_error_and_nothing_is_committed_twice() {
    let mut cluster = Cluster::start(3).await;
    cluster.elect(1).await;
    let whole =
        |cluster: &Cluster| [2, 3].iter().all(|id| cluster.voter(1).channel.connected(VoterId(*id)) == [true, true]);
    wait("all links are up", || whole(&cluster)).await;
    let mut last = 0;
    for n in 1..=60 {
        let proposal = cluster.voter(2).quorum.propose(barrier(2, n));
        let cut = async {
            tokio::task::yield_now().await;
            // Now one link, now the other, of the proposer and of the leader, while the entry is on its way.
            cluster.voter(1).channel.cut(VoterId(2), (n % 2) as usize);
            cluster.voter(1).channel.cut(VoterId(3), (n % 2) as usize);
        };
        let (applied, ()) = tokio::join!(proposal, cut);
        let applied = applied.expect("the caller sees no error");
        assert_eq!(applied.outcome, Ok(()), "a second copy would have been refused");
        assert!(applied.index > last);
        last = applied.index;
        wait("links come back", || whole(&cluster)).await;
    }
    for id in 1..=3 {
        cluster.applied(id, last).await;
        let mut barriers = 0;
        while let Some(event) = cluster.voter_mut(id).events.try_recv() {
            barriers += usize::from(matches!(event, AppliedEvent::Entry { entry: Some(Entry::Barrier { .. }), .. }));
        }
        assert_eq!(barriers, 60);
    }
}

#[tokio::test]
async fn the_state_is_back_after_a_restart_of_all_voters_also_from_a_snapshot() {
    let mut cluster = Cluster::start(3).await;
    cluster.elect(1).await;
    let (mut last, mut n) = (0, 0);
    while cluster.voter(1).quorum.metrics().purged.is_none() {
        n += 1;
        assert!(n < 20_000, "the log is never shortened");
        last = cluster.voter(1).quorum.propose(barrier(7, n)).await.expect("applied").index;
    }
    for id in 1..=3 {
        cluster.applied(id, last).await;
    }
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    for id in 1..=3 {
        cluster.restart(id).await;
    }
    assert!(matches!(cluster.voter_mut(1).events.try_recv(), Some(AppliedEvent::Restored { .. })));
    cluster.elect(2).await;
    let applied = cluster.voter(2).quorum.propose(barrier(7, n + 1)).await.expect("applied");
    assert_eq!(applied.outcome, Ok(()));
    assert!(applied.index > last);
    for id in 1..=3 {
        cluster.applied(id, applied.index).await;
        assert_eq!(cluster.voter(id).quorum.state().0.incarnations, [(VoterId(7), n + 1)].into());
    }
}

#[tokio::test]
async fn a_voter_that_was_away_for_long_is_brought_back_by_a_snapshot() {
    let mut cluster = Cluster::start(3).await;
    cluster.elect(1).await;
    cluster.stop(3).await;
    let (mut last, mut n) = (0, 0);
    // A snapshot is written beside the proposals, and purges what stood before it.
    while cluster.voter(1).quorum.metrics().purged.is_none_or(|id| id.index <= 50) {
        n += 1;
        assert!(n < 20_000, "the log is never shortened");
        last = cluster.voter(2).quorum.propose(barrier(1, n)).await.expect("applied").index;
    }
    cluster.restart(3).await;
    cluster.applied(3, last).await;
    assert_eq!(cluster.voter(3).quorum.state().0, cluster.voter(1).quorum.state().0);
    let mut restored = false;
    while let Some(event) = cluster.voter_mut(3).events.try_recv() {
        restored |= matches!(event, AppliedEvent::Restored { .. });
    }
    assert!(restored);
}

#[tokio::test]
async fn a_voter_that_missed_large_entries_gets_them_in_pieces() {
    let mut cluster = Cluster::start(3).await;
    cluster.elect(1).await;
    cluster.stop(3).await;
    let large =
        |bytes| Entry::Configure { voters: Vec::new(), groups: vec![GroupId::new(&"g".repeat(bytes))], lease_ns: 1 };
    let mut last = 0;
    for _ in 0..30 {
        last = cluster.voter(2).quorum.propose(large(200_000)).await.expect("applied").index;
    }
    let refused = cluster.voter(2).quorum.propose(large(300_000)).await;
    assert!(matches!(refused, Err(ProposeError::TooLarge(_))), "{refused:?}");
    cluster.restart(3).await;
    cluster.applied(3, last).await;
    let mut entries = 0;
    while let Some(event) = cluster.voter_mut(3).events.try_recv() {
        entries += usize::from(matches!(event, AppliedEvent::Entry { entry: Some(_), .. }));
    }
    assert_eq!(entries, 30);
}

#[tokio::test]
async fn an_incarnation_that_went_back_is_refused() {
    let mut cluster = Cluster::start(3).await;
    cluster.elect(1).await;
    let applied = cluster.voter(1).quorum.propose(barrier(3, 5)).await.expect("applied");
    cluster.applied(3, applied.index).await;
    cluster.stop(3).await;
    wait("the log is closed", || cluster.is_closed(3)).await;
    let refused = cluster.try_start(3).await.expect_err("refused");
    assert!(matches!(refused, QuorumError::OldIncarnation { recorded: 5, own: 2 }), "{refused}");
}

#[tokio::test]
async fn a_leader_that_steps_aside_hands_over_and_leads_with_heartbeats_again_later() {
    let cluster = Cluster::start(3).await;
    cluster.elect(1).await;
    cluster.voter(1).quorum.propose(barrier(1, 1)).await.expect("applied");
    for next in [2, 1, 3, 1] {
        let leader = cluster.leader().expect("there is one");
        cluster.voter(leader).quorum.step_aside();
        cluster.elect(next).await;
    }
    // Voter 1 stepped aside twice and leads again: heartbeats come back without anybody proposing something.
    let applied = cluster.voter(1).quorum.propose(barrier(1, 2)).await.expect("applied");
    cluster.applied(2, applied.index).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        wait("the followers acknowledge heartbeats", || {
            cluster.voter(1).quorum.metrics().millis_since_quorum_ack.is_some_and(|ms| ms < 800)
        })
        .await;
    }
}

#[tokio::test]
async fn a_voter_that_nobody_answers_spends_no_term() {
    let mut cluster = Cluster::start(3).await;
    cluster.elect(1).await;
    cluster.stop(1).await;
    cluster.stop(2).await;
    let before = cluster.voter(3).quorum.view().term;
    assert!(cluster.voter(3).quorum.elect().await.is_err());
    assert_eq!(cluster.voter(3).quorum.view().term, before);
}

#[tokio::test]
async fn a_voter_whose_disk_was_wiped_is_refused() {
    let mut cluster = Cluster::start(3).await;
    cluster.elect(1).await;
    cluster.voter(1).quorum.propose(barrier(3, 1)).await.expect("applied");
    cluster.stop(3).await;
    cluster.wipe(3);
    let refused = cluster.try_start(3).await.expect_err("refused");
    assert!(matches!(refused, QuorumError::Forgotten { me: VoterId(3), incarnation: 1, .. }), "{refused}");
}

#[tokio::test]
async fn another_list_of_voters_is_refused() {
    let mut cluster = Cluster::start(3).await;
    cluster.elect(1).await;
    cluster.stop(3).await;
    cluster.voters = [1, 3, 4].map(VoterId).to_vec();
    wait("the log is closed", || cluster.is_closed(3)).await;
    let refused = cluster.try_start(3).await.expect_err("refused");
    assert!(matches!(refused, QuorumError::VotersChanged { .. }), "{refused}");
}

#[tokio::test]
async fn random_bytes_on_the_rpc_port_are_counted_and_harm_nobody() {
    use tokio::io::AsyncWriteExt;
    let cluster = Cluster::start(3).await;
    cluster.elect(1).await;
    let target = cluster.address(2, 1);
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    for n in 0..200u64 {
        // From a peer's address, so that the bytes come as far as the handshake; and from a stranger's.
        let from = if n % 4 == 0 { "127.0.0.1:0".parse().expect("address") } else { cluster.source(1, 1) };
        let socket = tokio::net::TcpSocket::new_v4().expect("socket");
        socket.bind(from).expect("bound");
        let mut stream = socket.connect(target).await.expect("connected");
        let mut bytes = Vec::new();
        for _ in 0..n * 7 % 300 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            bytes.push(random as u8);
        }
        if n % 3 == 0 && bytes.len() > 1 {
            // The right length of a handshake, and garbage in it.
            bytes[..2].copy_from_slice(&69u16.to_be_bytes());
        }
        // The other side may have closed already.
        drop(stream.write_all(&bytes).await);
    }
    let counted = |names: &[&str]| {
        let counters = cluster.voter(2).channel.counters().all();
        counters.iter().filter(|(name, _)| names.contains(name)).map(|(_, count)| count).sum::<u64>()
    };
    wait("strangers are counted", || counted(&["strangers"]) >= 50).await;
    wait("the rest are counted", || counted(&["bad_handshakes", "slow_handshakes", "crowded"]) >= 150).await;
    let applied = cluster.voter(2).quorum.propose(barrier(2, 1)).await.expect("applied");
    assert_eq!(applied.outcome, Ok(()));
}
