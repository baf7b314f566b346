//! `kind = "script"`: a program that is called with `start`, `stop` or `monitor` as its last argument.

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::{
    Common, Context, Health, Operation, Resource, ResourceError, Timeouts, Work,
    call::{Answer, Caller},
};
use crate::{cluster::ids::Epoch, config::kinds::Script as Spec, process::Ended};

/// What a monitor answers where nothing runs, as OCF agents do (OCF_NOT_RUNNING).
const STOPPED: i32 = 7;

/// A script.
#[derive(Debug)]
pub struct Script {
    common: Common,
    label: String,
    spec: Spec,
    caller: Caller,
    epoch: Epoch,
}

impl Script {
    /// Nothing is called yet.
    pub fn new(common: &Common, spec: Spec) -> Self {
        let caller = Caller::new(common.file("log"), common.file("action"));
        Self { label: common.name(), common: common.clone(), spec, caller, epoch: 0 }
    }

    async fn call(&self, operation: Operation, action: &str) -> Result<Answer, ResourceError> {
        let mut words = self.spec.command.clone();
        words.push(action.to_owned());
        let mut environment: Vec<(String, String)> =
            self.spec.environment.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        environment.extend(
            [
                ("BATON_GROUP", self.common.group.to_string()),
                ("BATON_RESOURCE", self.common.name.clone()),
                ("BATON_NODE", self.common.node.clone()),
                ("BATON_EPOCH", self.epoch.to_string()),
                ("BATON_ACTION", action.to_owned()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        self.caller.call(words, environment).await.map_err(|e| {
            let remedy = "see that the program is there and may be executed, and that the run directory can be written";
            self.common.refused(operation, self.program(), &format!("it cannot be called with {action}"), &e, remedy)
        })
    }

    /// An action that is well only with exit status 0.
    async fn act(&self, operation: Operation, action: &str) -> Result<(), ResourceError> {
        let answer = self.call(operation, action).await?;
        if answer.ended == Ended::Code(0) { Ok(()) } else { Err(self.failed(operation, action, &answer)) }
    }

    async fn look(&self, operation: Operation) -> Result<Health, ResourceError> {
        let answer = self.call(operation, "monitor").await?;
        Ok(match answer.ended {
            Ended::Code(0) => Health::Running,
            Ended::Code(STOPPED) => Health::Stopped,
            _ => Health::Failed(format!("{} monitor {}", self.program(), answer.words())),
        })
    }

    fn failed(&self, operation: Operation, action: &str, answer: &Answer) -> ResourceError {
        let remedy = format!("all that it said is in {}", self.caller.output().display());
        self.common.failed(operation, format!("{} {action}", self.program()), answer.words(), remedy)
    }

    fn program(&self) -> &str {
        self.spec.command.first().map_or("", String::as_str)
    }
}

impl Resource for Script {
    fn name(&self) -> &str {
        &self.label
    }

    fn timeouts(&self) -> Timeouts {
        self.common.timeouts
    }

    fn probe(&mut self) -> Work<'_, Health> {
        Work::pending(async { self.look(Operation::Probe).await })
    }

    fn start(&mut self, context: &Context) -> Work<'_, ()> {
        self.epoch = context.epoch;
        Work::pending(async { self.act(Operation::Start, "start").await })
    }

    fn stop(&mut self, context: &Context) -> Work<'_, ()> {
        self.epoch = context.epoch;
        Work::pending(async {
            self.act(Operation::Stop, "stop").await?;
            // A script whose stop does nothing must not lead to a second one elsewhere.
            match self.look(Operation::Stop).await? {
                Health::Running => Err(self.common.failed(
                    Operation::Stop,
                    format!("{} stop", self.program()),
                    "it exited with 0, and its monitor says that the service runs still",
                    "make `stop` return only when the service has ended, and `monitor` exit with 7 then",
                )),
                Health::Stopped | Health::Failed(_) => Ok(()),
            }
        })
    }

    fn monitor(&mut self) -> Work<'_, Health> {
        Work::pending(async { self.look(Operation::Monitor).await })
    }

    fn monitor_interval(&self) -> Option<Duration> {
        self.common.monitor_interval
    }
}
