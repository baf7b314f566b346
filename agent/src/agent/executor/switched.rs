//! What operators ask of single groups and resources: restarts, a fresh start for what failed, and hands off.

use std::collections::BTreeSet;

use tracing::{error, info};

use super::{Loop, settle};
use crate::{
    clock,
    cluster::ids::GroupId,
    resources::{Context, Health, Operation, Resource},
};

/// The name of a resource in its group.
pub(super) fn name_in<'a>(group: &GroupId, resource: &'a dyn Resource) -> &'a str {
    let name = resource.name();
    name.strip_prefix(&*group.0).and_then(|rest| rest.strip_prefix('/')).unwrap_or(name)
}

impl Loop {
    /// From now on these resources are neither started nor stopped.
    pub(super) fn set_mode(&mut self, id: &GroupId, maintenance: bool, unmanaged: BTreeSet<String>) {
        if let Some(group) = self.groups.get_mut(id) {
            group.maintenance = maintenance;
            group.unmanaged = unmanaged;
        }
    }

    /// Tries again at once what could not be stopped.
    pub(super) fn clean_up(&mut self, id: &GroupId, resource: Option<&str>) {
        info!(group = %id, resource, "what failed is forgotten");
        if let Some((_, at)) = self.groups.get_mut(id).and_then(|group| group.stopping.as_mut()) {
            *at = clock::now();
        }
    }

    /// Stops a resource and all that start after it, from the bottom up, and starts them again.
    pub(super) fn restart(&mut self, id: &GroupId, name: &str) {
        let Some(group) = self.groups.get_mut(id) else { return };
        let Some(epoch) = group.running else { return };
        let context = Context { group: id.clone(), epoch };
        let Some(at) = group.stack.resources.iter().position(|r| name_in(id, r.as_ref()) == name) else { return };
        let unmanaged = &group.unmanaged;
        let managed = |r: &dyn Resource| !unmanaged.contains(name_in(id, r));
        let (runtime, resources) = (&self.runtime, &mut group.stack.resources);
        for resource in resources[at..].iter_mut().rev().filter(|r| managed(r.as_ref())) {
            if let Err(error) = settle(runtime, resource.as_mut(), Operation::Stop, |r| r.stop(&context)) {
                error!(group = %id, %error, "a resource could not be stopped for its restart");
                return;
            }
        }
        for resource in resources[at..].iter_mut().filter(|r| managed(r.as_ref())) {
            if let Err(error) = settle(runtime, resource.as_mut(), Operation::Start, |r| r.start(&context)) {
                error!(group = %id, %error, "a resource could not be started again");
                return;
            }
        }
    }

    /// Whether an unmanaged resource runs, which nobody may stop: the group cannot be given up then.
    pub(super) fn runs_unmanaged(&mut self, id: &GroupId) -> bool {
        let Some(group) = self.groups.get_mut(id) else { return false };
        let mut any = false;
        for resource in &mut group.stack.resources {
            if group.unmanaged.contains(name_in(id, resource.as_ref())) {
                let stopped = settle(&self.runtime, resource.as_mut(), Operation::Probe, |r| r.probe());
                if !matches!(stopped, Ok(Health::Stopped)) {
                    error!(group = %id, resource = resource.name(), "it is unmanaged and may run: stop it, or manage it again");
                    any = true;
                }
            }
        }
        any
    }
}
