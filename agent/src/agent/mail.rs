//! What the agents tell one another over the channel: the messages of their cores, and what a planned move hands over.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::{
    api::mend::Mend,
    cluster::{
        ids::{Epoch, GroupId, Index},
        message::Message,
    },
    kernel::Flow,
};

/// Flows in one letter: some 100 bytes each, far below the channel's limit.
pub const FLOWS_MAX: usize = 2048;
/// Things that wait on the board; older ones go.
const BOARD_MAX: usize = 512;

/// One letter.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mail {
    /// Of core to core.
    Core(Message),
    /// Flows without connections (UDP) that the old owner of a group goes on serving, for the new one to steer back.
    Flows {
        /// The group.
        group: GroupId,
        /// The epoch that the old owner gave up.
        epoch: Epoch,
        /// Some of them.
        flows: Vec<Flow>,
        /// Whether these are the last.
        last: bool,
    },
    /// What the resources of the owner know, for the target's.
    Knowledge {
        /// The group.
        group: GroupId,
        /// The planned move.
        movement: Index,
        /// Each resource by its name; what it is, the resource itself says.
        resources: BTreeMap<String, String>,
    },
    /// An operator on the sender's machine asks something of this node.
    Mend {
        /// The sender's number of it.
        number: u64,
        /// What.
        mend: Mend,
    },
    /// The answer to that.
    Mended {
        /// The number of the request.
        number: u64,
        /// What is done, or why not.
        answer: Result<String, String>,
    },
}

/// What arrived and somebody waits for: the executor's thread, for the driver's.
#[derive(Debug, Default)]
pub struct Board {
    pinned: Mutex<Pinned>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Pinned {
    /// Groups whose flows of an epoch have all come.
    flows: Vec<(GroupId, Epoch)>,
    knowledge: Vec<(GroupId, Index, BTreeMap<String, String>)>,
}

impl Board {
    /// All flows of a group have come.
    pub fn flows_have_come(&self, group: GroupId, epoch: Epoch) {
        let mut pinned = self.lock();
        pinned.flows.retain(|(known, _)| *known != group);
        pinned.flows.push((group, epoch));
        let surplus = pinned.flows.len().saturating_sub(BOARD_MAX);
        pinned.flows.drain(..surplus);
        self.news.notify_waiters();
    }

    /// Waits until all flows of a group have come, at most for a while. Returns whether they have.
    pub async fn wait_for_flows(&self, group: &GroupId, epoch: Epoch, within: Duration) -> bool {
        self.wait(within, |pinned| pinned.flows.iter().any(|(known, at)| known == group && *at == epoch).then_some(()))
            .await
            .is_some()
    }

    /// What the owner's resources know has come.
    pub fn knowledge_has_come(&self, group: GroupId, movement: Index, resources: BTreeMap<String, String>) {
        let mut pinned = self.lock();
        pinned.knowledge.retain(|(known, ..)| *known != group);
        pinned.knowledge.push((group, movement, resources));
        let surplus = pinned.knowledge.len().saturating_sub(BOARD_MAX);
        pinned.knowledge.drain(..surplus);
        self.news.notify_waiters();
    }

    /// Waits for it, and takes it.
    pub async fn take_knowledge(
        &self,
        group: &GroupId,
        movement: Index,
        within: Duration,
    ) -> Option<BTreeMap<String, String>> {
        self.wait(within, |pinned| {
            let found = pinned.knowledge.iter().position(|(known, of, _)| known == group && *of == movement)?;
            Some(pinned.knowledge.swap_remove(found).2)
        })
        .await
    }

    async fn wait<T>(&self, within: Duration, mut take: impl FnMut(&mut Pinned) -> Option<T>) -> Option<T> {
        let come = async {
            loop {
                // Registered before the look: what comes in between is not missed.
                let mut news = pin!(self.news.notified());
                news.as_mut().enable();
                if let Some(found) = take(&mut self.lock()) {
                    return found;
                }
                news.await;
            }
        };
        tokio::time::timeout(within, come).await.ok()
    }

    /// Lists hold no invariant that a panic elsewhere could break.
    fn lock(&self) -> MutexGuard<'_, Pinned> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn what_comes_is_waited_for_and_only_what_was_asked() {
        let board = Arc::new(Board::default());
        let web = || GroupId::new("web");
        let waiter = tokio::spawn({
            let board = Arc::clone(&board);
            async move { (board.wait_for_flows(&web(), 7, LONG).await, board.take_knowledge(&web(), 3, LONG).await) }
        });
        tokio::task::yield_now().await;
        board.flows_have_come(web(), 6);
        board.flows_have_come(web(), 7);
        let knows = BTreeMap::from([("haproxy".to_owned(), "all".to_owned())]);
        board.knowledge_has_come(web(), 3, knows.clone());
        assert_eq!(waiter.await.unwrap(), (true, Some(knows)));
        assert!(!board.wait_for_flows(&web(), 8, Duration::ZERO).await);
        assert_eq!(board.take_knowledge(&web(), 3, Duration::ZERO).await, None, "it was taken");
    }

    #[test]
    fn the_board_is_bounded() {
        let board = Board::default();
        for number in 0..2 * BOARD_MAX {
            board.flows_have_come(GroupId::new(&number.to_string()), 1);
            board.knowledge_has_come(GroupId::new(&number.to_string()), 1, BTreeMap::new());
        }
        let pinned = board.lock();
        assert_eq!((pinned.flows.len(), pinned.knowledge.len()), (BOARD_MAX, BOARD_MAX));
    }
}
