//! Looks for the first packet that the gate let through after a takeover, for the flight recorder. Off the critical path: the gate
//! itself has stamped the instant.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tracing::debug;

use crate::{
    cluster::ids::{Epoch, GroupId},
    kernel::Kernel,
    telemetry::{mark::Mark, recorder::Recorder},
};

/// When to look, after the start; a client that comes later than the last one opens no failover's record any more.
const LOOKS: [Duration; 5] = [
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_millis(1_500),
];

/// A group that has just started here.
#[derive(Debug)]
pub struct Started {
    /// The group.
    pub group: GroupId,
    /// Its row in the gate.
    pub slot: u32,
    /// Its epoch.
    pub epoch: Epoch,
}

/// Follows the starts until the sender is gone.
pub async fn follow(kernel: Arc<Kernel>, recorder: Recorder, mut starts: mpsc::UnboundedReceiver<Started>) {
    while let Some(started) = starts.recv().await {
        tokio::spawn(look(Arc::clone(&kernel), recorder.clone(), started));
    }
}

async fn look(kernel: Arc<Kernel>, recorder: Recorder, started: Started) {
    for pause in LOOKS {
        tokio::time::sleep(pause).await;
        let tenures = match kernel.tenures() {
            Ok(tenures) => tenures,
            Err(error) => return debug!(%error, "the gate's record cannot be read"),
        };
        let here = tenures.into_iter().find(|(slot, epoch, _)| (*slot, *epoch) == (started.slot, started.epoch));
        if let Some((_, _, tenure)) = here
            && tenure.first_flow != 0
        {
            let Started { group, epoch, .. } = started;
            return recorder.mark(tenure.first_flow, Mark::FirstPacket { group, epoch });
        }
    }
}
