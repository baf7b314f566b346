//! Waiting for what resources do, each within its own limit; and many at once, in the order that they require.

use std::collections::BTreeSet;

use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};

use super::stack::{Condition, Slot, Stack};
use crate::resources::{Context, Operation, Resource, ResourceError, Work};

/// Takes the result of an operation, waiting for it within the resource's limit if it is not there at once.
pub(super) async fn settle<'r, T>(
    resource: &'r mut dyn Resource,
    operation: Operation,
    work: impl FnOnce(&'r mut dyn Resource) -> Work<'r, T>,
) -> Result<T, ResourceError> {
    let name = resource.name().to_owned();
    let limit = resource.timeouts().of(operation);
    match work(resource) {
        Work::Done(result) => result,
        pending => pending.within(limit, &name, operation).await,
    }
}

/// Does the same with each resource in turn, whatever becomes of the others. Returns what failed.
pub(super) async fn each<'r>(
    slots: impl Iterator<Item = &'r mut Slot>,
    operation: Operation,
    work: impl Fn(&'r mut dyn Resource) -> Work<'r, ()>,
) -> Vec<ResourceError> {
    let mut failed = Vec::new();
    for slot in slots {
        failed.extend(settle(slot.resource.as_mut(), operation, &work).await.err());
    }
    failed
}

/// A direction in which a stack is worked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// A slot's turn comes when all that it requires is done.
    Up,
    /// A slot's turn comes when all that require it are done.
    Down,
}

/// Works on `slots` of a stack, as many at once as the order allows; a failure holds back what comes after it, and nothing else.
/// Returns what failed. Dropping the future drops the operations under way.
pub(super) async fn ordered<'s>(
    stack: &'s mut Stack,
    slots: &BTreeSet<usize>,
    direction: Direction,
    mut begin: impl FnMut(&'s mut Slot) -> BoxFuture<'s, Result<(), ResourceError>>,
) -> Vec<(usize, ResourceError)> {
    let waits_for: Vec<BTreeSet<usize>> = (0..stack.slots.len())
        .map(|at| match direction {
            Direction::Up => stack.slots[at].requires.iter().copied().filter(|r| slots.contains(r)).collect(),
            Direction::Down => slots.iter().copied().filter(|s| stack.slots[*s].requires.contains(&at)).collect(),
        })
        .collect();
    let mut waiting: Vec<(usize, Option<&'s mut Slot>)> =
        stack.slots.iter_mut().enumerate().map(|(at, slot)| (at, slots.contains(&at).then_some(slot))).collect();
    let mut well = BTreeSet::new();
    let mut failed = Vec::new();
    let mut running = FuturesUnordered::new();
    loop {
        for (at, slot) in &mut waiting {
            if waits_for[*at].is_subset(&well)
                && let Some(slot) = slot.take()
            {
                let (at, work) = (*at, begin(slot));
                running.push(async move { (at, work.await) });
            }
        }
        match running.next().await {
            Some((at, Ok(()))) => drop(well.insert(at)),
            Some((at, Err(error))) => failed.push((at, error)),
            None => return failed,
        }
    }
}

/// Stops a slot.
pub(super) fn stop<'s>(slot: &'s mut Slot, context: Context) -> BoxFuture<'s, Result<(), ResourceError>> {
    Box::pin(async move {
        slot.condition = Condition::Stopping;
        let Slot { resource, condition, .. } = slot;
        let result = settle(resource.as_mut(), Operation::Stop, |r| r.stop(&context)).await;
        *condition = match &result {
            Ok(()) => Condition::Stopped,
            Err(error) => Condition::Stuck(error.to_string()),
        };
        if let Err(error) = &result {
            slot.last_error = Some(error.to_string());
        }
        result
    })
}
