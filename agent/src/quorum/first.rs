//! The first start of a voter: its log is empty, so it asks the others whether they know it.
//!
//! A voter that lost its disk has forgotten what it acknowledged, and must not vote again under its number. It was known
//! to a majority once (its barrier was committed), so it asks until its answers meet every such majority.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use openraft::{EntryPayload, Membership};
use tokio::time::{Instant, sleep};

use super::{
    QuorumError,
    types::{LogEntry, LogId, node_id},
    wire::{self, WhoAmI, YouAre, method},
};
use crate::{
    backplane::channel::{Channel, RpcError},
    cluster::{ids::VoterId, timing::majority},
};

/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(50);
/// How long one voter may take to answer.
const DEADLINE: Duration = Duration::from_millis(500);
/// Between two log lines about whom the start waits for.
const REMIND: Duration = Duration::from_secs(5);

/// How many of the other voters must answer, so that at least one is in any majority that knew this voter.
const fn answers_needed(voters: usize) -> usize {
    // A majority may have counted this voter: of the others it then has one less than a majority.
    let others = voters - 1;
    let needed = others - (majority(voters) - 1) + 1;
    if needed > others { others } else { needed }
}

/// Asks the others until enough have answered, for as long as that takes; refuses when one of them knows this voter.
pub(super) async fn ask(channel: &Arc<Channel>, me: VoterId, voters: &[VoterId]) -> Result<(), QuorumError> {
    let needed = answers_needed(voters.len());
    let question =
        wire::encode(&WhoAmI { voters: voters.to_vec() }).map_err(|source| QuorumError::Encoding { source })?;
    let mut silent: BTreeSet<VoterId> = voters.iter().copied().filter(|voter| *voter != me).collect();
    let others = silent.len();
    let mut reminded = Instant::now();
    loop {
        for peer in silent.clone() {
            match channel.call(peer, method::WHO_AM_I, question.clone(), DEADLINE).await {
                Ok(answer) => {
                    let answer: YouAre = wire::decode(&answer).map_err(|source| QuorumError::Encoding { source })?;
                    if answer.incarnation > 0 {
                        return Err(QuorumError::Forgotten { me, peer, incarnation: answer.incarnation });
                    }
                    if answer.voters != voters {
                        return Err(QuorumError::OtherVoters { peer, theirs: answer.voters, mine: voters.to_vec() });
                    }
                    silent.remove(&peer);
                }
                Err(RpcError::Unknown(_)) => return Err(QuorumError::NoAddress { peer }),
                Err(error) => tracing::debug!(%peer, %error, "no answer yet"),
            }
        }
        if others - silent.len() >= needed {
            return Ok(());
        }
        if reminded.elapsed() >= REMIND {
            reminded = Instant::now();
            tracing::info!(?silent, needed, "first start with an empty log: waiting for the other voters to answer");
        }
        sleep(PAUSE).await;
    }
}

/// The entry that every new log begins with: the same at all voters, so that it needs no agreement.
pub(super) fn membership(voters: &[VoterId]) -> LogEntry {
    let ids: BTreeSet<u64> = voters.iter().copied().map(node_id).collect();
    LogEntry { log_id: LogId::default(), payload: EntryPayload::Membership(Membership::new(vec![ids.clone()], ids)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_meet_every_majority_that_counted_this_voter() {
        assert_eq!([1, 2, 3, 4, 5, 7].map(answers_needed), [0, 1, 2, 2, 3, 4]);
        for voters in 2..=8 {
            assert!(answers_needed(voters) + majority(voters) - 1 > voters - 1, "{voters}");
        }
    }
}
