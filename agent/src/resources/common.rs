//! What all kinds of `[[group.resource]]` know of themselves, and how their errors are made.

use std::{io, path::PathBuf, time::Duration};

use super::{Operation, ResourceError, ResourceEvent, Timeouts, What};
use crate::{
    cluster::ids::GroupId,
    config::{self, Config, Group},
};

/// What a resource knows of itself, whatever its kind.
#[derive(Clone, Debug)]
pub struct Common {
    /// The group.
    pub group: GroupId,
    /// The resource's name within its group.
    pub name: String,
    /// This machine's name.
    pub node: String,
    /// The time limits of its operations.
    pub timeouts: Timeouts,
    /// How often it is looked at; none: it reports by itself.
    pub monitor_interval: Option<Duration>,
    /// Where what must outlive the agent is kept.
    pub run_dir: PathBuf,
    /// Whether what watches it has realtime priority.
    pub realtime: bool,
}

impl Common {
    /// That of a resource of a group, on this machine.
    pub fn of(config: &Config, group: &Group, resource: &config::Resource) -> Self {
        let time = Duration::from_nanos;
        Self {
            group: group.id.clone(),
            name: resource.name.clone(),
            node: config.this.name.to_string(),
            timeouts: Timeouts {
                probe: time(resource.monitor_timeout_ns),
                start: time(resource.start_timeout_ns),
                stop: time(resource.stop_timeout_ns),
                monitor: time(resource.monitor_timeout_ns),
            },
            monitor_interval: (resource.monitor_interval_ns > 0).then(|| time(resource.monitor_interval_ns)),
            run_dir: config.this.run_dir.clone(),
            realtime: config.this.realtime,
        }
    }

    /// Its label in texts: "db/data".
    pub fn name(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }

    /// Its name in names of files and folders: "db@data". Neither name can hold an "@", so no two resources share one.
    pub fn plain_name(&self) -> String {
        format!("{}@{}", self.group, self.name)
    }

    /// A file of its own in the run directory: "db@data.json".
    pub fn file(&self, ending: &str) -> PathBuf {
        self.run_dir.join(format!("{}.{ending}", self.plain_name()))
    }

    /// An operation failed: on which object, why, and what to do.
    pub fn failed(
        &self,
        operation: Operation,
        object: impl Into<String>,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) -> ResourceError {
        self.error(operation, object.into(), cause.into(), None, remedy.into())
    }

    /// An operation failed by an answer of the kernel; `what` could not be done.
    pub fn refused(
        &self,
        operation: Operation,
        object: impl Into<String>,
        what: &str,
        error: &io::Error,
        remedy: impl Into<String>,
    ) -> ResourceError {
        self.error(operation, object.into(), format!("{what}: {error}"), error.raw_os_error(), remedy.into())
    }

    fn error(
        &self,
        operation: Operation,
        object: String,
        cause: String,
        errno: Option<i32>,
        remedy: String,
    ) -> ResourceError {
        ResourceError::Failed { resource: self.name(), operation, object, cause, errno, remedy }
    }

    /// What it reports by itself.
    pub fn event(&self, what: What) -> ResourceEvent {
        ResourceEvent { group: self.group.clone(), resource: self.name(), what }
    }
}

#[cfg(test)]
pub(super) mod tests {
    //! What the tests of all kinds need.

    use std::path::Path;

    use super::*;
    use crate::resources::{Context, Work};

    /// So long may anything take in a test; nothing is expected to.
    pub const PATIENCE: Duration = Duration::from_secs(60);

    /// A resource of group "g" on machine "here".
    pub fn common(run_dir: &Path, name: &str) -> Common {
        Common {
            group: GroupId::new("g"),
            name: name.to_owned(),
            node: "here".to_owned(),
            timeouts: Timeouts { probe: PATIENCE, start: PATIENCE, stop: PATIENCE, monitor: PATIENCE },
            monitor_interval: None,
            run_dir: run_dir.to_owned(),
            realtime: false,
        }
    }

    pub fn context(epoch: u64) -> Context {
        Context { group: GroupId::new("g"), epoch }
    }

    /// The result of an operation.
    pub async fn done<T>(work: Work<'_, T>) -> Result<T, ResourceError> {
        work.within(PATIENCE, "g/unit", Operation::Monitor).await
    }

    /// Runs a test as the executor does: on one thread.
    pub fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(future)
    }

    /// Waits for a condition.
    pub async fn until(mut holds: impl FnMut() -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !holds() {
            assert!(tokio::time::Instant::now() < deadline, "it did not come true");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[test]
    fn names_of_files_are_unique() {
        let dir = Path::new("/run/baton");
        let [a, b] = [("a-b", "c"), ("a", "b-c")].map(|(group, name)| {
            let common = Common { group: GroupId::new(group), ..common(dir, name) };
            common.file("json")
        });
        assert_eq!(a, Path::new("/run/baton/a-b@c.json"));
        assert_ne!(a, b);
    }
}
