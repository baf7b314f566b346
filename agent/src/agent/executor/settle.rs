//! Waiting for what resources do, each within its own limit.

use tokio::runtime::Runtime;

use crate::resources::{Operation, Resource, ResourceError, Work};

/// Does the same with each resource, whatever becomes of the others. Returns what failed.
pub(super) fn each<'r>(
    runtime: &Runtime,
    resources: impl Iterator<Item = &'r mut dyn Resource>,
    operation: Operation,
    work: impl for<'a> Fn(&'a mut dyn Resource) -> Work<'a, ()>,
) -> Vec<ResourceError> {
    resources.filter_map(|resource| settle(runtime, resource, operation, &work).err()).collect()
}

/// Takes the result of an operation, waiting for it within the resource's limit if it is not there at once.
pub(super) fn settle<T>(
    runtime: &Runtime,
    resource: &mut dyn Resource,
    operation: Operation,
    work: impl for<'a> FnOnce(&'a mut dyn Resource) -> Work<'a, T>,
) -> Result<T, ResourceError> {
    let name = resource.name().to_owned();
    let limit = resource.timeouts().of(operation);
    match work(resource) {
        Work::Done(result) => result,
        pending => runtime.block_on(pending.within(limit, &name, operation)),
    }
}
