//! The main thread's work while the core runs: control socket, HTTP, signals, and what comes after the end.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use super::{
    backend::Handle,
    driver::Ended,
    inputs::{Input, Request},
    restart::{self, Restarter, Wanted},
};
use crate::{
    api::{control::Control, http::Http},
    cluster::ids::Nanos,
    config::{Config, Group},
    telemetry::history::History,
};

/// How long an orderly stop may take, the stops of resources apart: releases are two commits each.
const STOP_WITHIN: Duration = Duration::from_secs(3);
/// How long the core thread may take to end after that.
const END_WITHIN: Duration = Duration::from_secs(2);

/// What comes after the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: the process ends.
    End,
    /// The program is executed again.
    Restart,
}

/// Serves until the core ends, or a signal or an order ends it.
pub(super) fn serve(
    config: &Arc<Config>,
    history: History,
    driver: mpsc::UnboundedSender<Input>,
    follower: impl Future<Output = ()> + Send + 'static,
    mut end: oneshot::Receiver<anyhow::Result<Ended>>,
    restarter: &Restarter,
) -> anyhow::Result<Next> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let (restarts, mut wanted) = mpsc::unbounded_channel();
        let handle = Arc::new(Handle { config: Arc::clone(config), history, driver: driver.clone(), restarts });
        tokio::spawn(follower);
        let control = Control::bind(&config.socket())?;
        tokio::spawn(control.serve(Arc::clone(&handle)));
        if let Some(address) = config.this.metrics {
            let http = Http::bind(address).await.with_context(|| format!("cannot listen on {address} for metrics"))?;
            tokio::spawn(async move {
                if let Err(error) = http.serve(handle).await {
                    error!(%error, "the HTTP port failed");
                }
            });
        }
        use tokio::signal::unix::{SignalKind, signal};
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut hang_up = signal(SignalKind::hangup())?;
        loop {
            let restart = tokio::select! {
                ended = &mut end => return outcome(ended, Next::End),
                _ = term.recv() => break,
                _ = int.recv() => break,
                Some(wanted) = wanted.recv() => wanted,
                _ = hang_up.recv() => Wanted { within: restart::WITHIN, exit: false, reply: None },
            };
            let next = if restart.exit { Next::End } else { Next::Restart };
            if let Some(left) = restarter.prepare(restart, &driver).await
                && driver.send(Input::Request(Request::Restart(left))).is_ok()
            {
                return match tokio::time::timeout(STOP_WITHIN + END_WITHIN, &mut end).await {
                    Ok(ended) => outcome(ended, next),
                    Err(_late) => {
                        bail!("the core thread did not end in time for a restart; the leases run out by themselves")
                    }
                };
            }
        }
        let (done, is_done) = oneshot::channel();
        let limit = STOP_WITHIN + stacks_stop_within(config);
        let within = u64::try_from(limit.as_nanos()).unwrap_or(Nanos::MAX);
        if driver.send(Input::Request(Request::Stop { done, within })).is_ok() {
            // An error means that the driver has ended: then its end says how.
            drop(tokio::time::timeout(limit + END_WITHIN, is_done).await);
        }
        match tokio::time::timeout(END_WITHIN, &mut end).await {
            Ok(ended) => outcome(ended, Next::End),
            Err(_late) => bail!("the core thread did not end in time; the leases run out by themselves"),
        }
    });
    runtime.shutdown_background();
    outcome
}

/// How long the resources of the groups that may run here take to stop at worst: the groups stop side by side. An agent that ends
/// before them would leave running what its next owner starts.
fn stacks_stop_within(config: &Config) -> Duration {
    let mine = config.shared.groups.values().filter(|group| group.nodes.contains(&config.this.id));
    Duration::from_nanos(mine.filter_map(Group::stop_limit).max().unwrap_or(0))
}

/// How the process ends; `restart`: what comes after a restart's end.
fn outcome(ended: Result<anyhow::Result<Ended>, oneshot::error::RecvError>, restart: Next) -> anyhow::Result<Next> {
    match ended {
        Ok(Ok(Ended::Stopped)) => Ok(Next::End),
        Ok(Ok(Ended::Restarting)) => Ok(restart),
        Ok(Ok(Ended::Halted(reason))) => bail!(reason),
        Ok(Err(error)) => Err(error),
        Err(_gone) => bail!("the core thread ended without a word; the lines above say more"),
    }
}
