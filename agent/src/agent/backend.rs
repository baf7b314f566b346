//! The agent as the control socket and HTTP see it: requests go to the driver, and its answers come back.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::{error::Elapsed, timeout},
};

use super::{
    inputs::{Input, Plan, Request},
    restart::Wanted,
};
use crate::{
    api::{Backend, OrderError, mend::Mend, protocol::ErrorKind, status::StatusReport},
    cluster::{
        core::OrderRefused,
        entry::{Scope, Switch},
        ids::Nanos,
        message::Order,
    },
    config::{Config, Shared},
    netlink::sockets::Sockets,
    telemetry::{history::History, metrics::Snapshot},
};

/// How long the driver may take to answer an order.
const ANSWER_TIME: Duration = Duration::from_secs(3);

/// The handle of the servers.
pub struct Handle {
    pub(super) config: Arc<Config>,
    pub(super) history: History,
    pub(super) driver: mpsc::UnboundedSender<Input>,
    pub(super) restarts: mpsc::UnboundedSender<Wanted>,
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

    /// What switching something does, in words.
    fn switching(&self, what: &Switch, on: bool) -> String {
        let of = |scope: &Scope| match scope {
            Scope::Cluster => "the cluster".to_owned(),
            Scope::Node(node) => self.config.shared.name_of(*node).to_string(),
            Scope::Group(group) => group.to_string(),
        };
        match (what, on) {
            (Switch::Maintenance(scope), true) => format!("{} goes into maintenance", of(scope)),
            (Switch::Maintenance(scope), false) => format!("the maintenance of {} ends", of(scope)),
            (Switch::Stopped(group), true) => format!("stopping {group}"),
            (Switch::Stopped(group), false) => format!("{group} may be started"),
            (Switch::Unmanaged(group, resource), true) => format!("{resource} of {group} is left alone"),
            (Switch::Unmanaged(group, resource), false) => format!("{resource} of {group} is managed again"),
        }
    }

    async fn ask_plan(&self, order: Order) -> Result<Plan, OrderError> {
        settled(timeout(ANSWER_TIME, self.ask(|reply| Request::Plan(order, reply))).await)
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
            Order::Switch { what, on } => self.switching(what, *on),
        };
        if let Order::Move { force: false, .. } = &order {
            let plan = self.ask_plan(order.clone()).await?;
            if let Some(why) = &plan.breaks {
                let open = connections(&plan);
                if open != Some(0) {
                    let text = will_break(open, why);
                    let message = format!("{text}; give the order with --force to move it all the same");
                    return Err(OrderError { kind: ErrorKind::Refused, message });
                }
            }
        }
        settled(timeout(ANSWER_TIME, self.ask(|reply| Request::Order(order, reply))).await)?;
        Ok(text)
    }

    async fn mend(&self, mend: Mend) -> Result<String, OrderError> {
        match timeout(ANSWER_TIME, self.ask(|reply| Request::Mend(mend, reply))).await {
            Ok(answer) => answer.map_err(|message| OrderError { kind: ErrorKind::Refused, message }),
            Err(_late) => Err(late()),
        }
    }

    async fn restart(&self, within: Nanos, exit: bool) -> Result<String, OrderError> {
        let (reply, answer) = oneshot::channel();
        if self.restarts.send(Wanted { within, exit, reply: Some(reply) }).is_ok()
            && let Ok(answer) = answer.await
        {
            return answer;
        }
        // The process is about to end.
        std::future::pending().await
    }

    async fn plan(&self, order: Order) -> Result<String, OrderError> {
        let plan = self.ask_plan(order.clone()).await?;
        let Order::Move { group, to, .. } = order else { return Ok("nothing stands against it".to_owned()) };
        let to = self.config.shared.name_of(to);
        let open = connections(&plan);
        let outlook = match &plan.breaks {
            None => format!("{} go on where they are until they end", counted(open)),
            Some(why) => will_break(open, why),
        };
        Ok(format!("{group} would move to {to}; {outlook}"))
    }
}

/// How many connections to the group's VIPs are open, if it is served on this machine and they can be counted.
fn connections(plan: &Plan) -> Option<usize> {
    let vips = plan.here.as_ref()?;
    Sockets::open().and_then(|mut sockets| sockets.alive(vips)).ok()
}

fn counted(open: Option<usize>) -> String {
    open.map_or_else(|| "open connections".to_owned(), |open| format!("{open} open connections"))
}

fn will_break(open: Option<usize>, why: &str) -> String {
    format!("{} would break: {why}", counted(open))
}

/// The driver's answer, as the servers pass it on.
fn settled<T>(answer: Result<Result<T, OrderRefused>, Elapsed>) -> Result<T, OrderError> {
    match answer {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(refused)) => Err(OrderError {
            kind: if refused == OrderRefused::NoLeader { ErrorKind::NoQuorum } else { ErrorKind::Refused },
            message: refused.to_string(),
        }),
        Err(_late) => Err(late()),
    }
}

fn late() -> OrderError {
    OrderError {
        kind: ErrorKind::Timeout,
        message:
            "the agent's core gave no answer in 3 s: it is still looking for the other voters, or stuck; see its log"
                .to_owned(),
    }
}
