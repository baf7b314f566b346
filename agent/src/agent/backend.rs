//! The agent as the control socket and HTTP see it: requests go to the driver, and its answers come back.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::inputs::{Input, Request};
use crate::{
    api::{Backend, OrderError, protocol::ErrorKind, status::StatusReport},
    cluster::{core::OrderRefused, message::Order},
    config::{Config, Shared},
    telemetry::{history::History, metrics::Snapshot},
};

/// How long the driver may take to answer an order.
const ANSWER_TIME: Duration = Duration::from_secs(3);

/// The handle of the servers.
pub struct Handle {
    pub(super) config: Arc<Config>,
    pub(super) history: History,
    pub(super) driver: mpsc::UnboundedSender<Input>,
}

impl Handle {
    /// Asks the driver; waits for ever if it has ended, since the process is about to.
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> T {
        let (reply, answer) = oneshot::channel();
        if self.driver.send(Input::Request(request(reply))).is_ok()
            && let Ok(answer) = answer.await
        {
            return answer;
        }
        std::future::pending().await
    }
}

impl Backend for Handle {
    fn shared(&self) -> &Shared {
        &self.config.shared
    }

    fn history(&self) -> &History {
        &self.history
    }

    async fn status(&self) -> StatusReport {
        self.ask(Request::Status).await
    }

    async fn metrics(&self) -> Snapshot {
        self.ask(Request::Metrics).await
    }

    async fn order(&self, order: Order) -> Result<String, OrderError> {
        let text = match &order {
            Order::Move { group, to, .. } => format!("moving {group} to {}", self.config.shared.name_of(*to)),
            Order::Standby { node, on: true } => {
                format!("moving everything off {}", self.config.shared.name_of(*node))
            }
            Order::Standby { node, on: false } => {
                format!("{} may own groups again", self.config.shared.name_of(*node))
            }
        };
        let answer = timeout(ANSWER_TIME, self.ask(|reply| Request::Order(order, reply))).await;
        match answer {
            Ok(Ok(())) => Ok(text),
            Ok(Err(refused)) => Err(OrderError {
                kind: if refused == OrderRefused::NoLeader { ErrorKind::NoQuorum } else { ErrorKind::Refused },
                message: refused.to_string(),
            }),
            Err(_late) => Err(OrderError {
                kind: ErrorKind::Timeout,
                message: "the agent's core gave no answer in 3 s: it is still looking for the other voters, or stuck; \
                          see its log"
                    .to_owned(),
            }),
        }
    }
}
