//! The driver's part of `baton resource restart` and `baton group cleanup`: to the nodes concerned, and their answers back.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;
use tracing::info;

use super::Driver;
use crate::{
    agent::{executor::Job, mail::Mail},
    api::mend::Mend,
    cluster::ids::{GroupId, MILLISECOND, Nanos, VoterId},
};

/// How long the other nodes may take to answer.
const PATIENCE: Nanos = 2_000 * MILLISECOND;
/// How many requests may wait for answers.
const OPEN_MAX: usize = 16;

/// What a node answers: what it does, or why not.
pub type Answer = Result<String, String>;

/// The requests of this machine's operators that wait for other nodes.
#[derive(Debug, Default)]
pub struct Mendings {
    open: BTreeMap<u64, Mending>,
    /// The number of the last one.
    last: u64,
}

#[derive(Debug)]
struct Mending {
    reply: oneshot::Sender<Answer>,
    waiting: BTreeSet<VoterId>,
    answers: BTreeMap<VoterId, Answer>,
    until: Nanos,
}

impl Mendings {
    /// When the next one is answered with what there is.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        self.open.values().map(|m| m.until).min()
    }
}

impl Driver {
    /// Somebody asks this machine's agent for it.
    pub(super) fn begin_mending(&mut self, now: Nanos, mend: &Mend, reply: oneshot::Sender<Answer>) {
        let concerned = match self.concerned(mend) {
            Ok(concerned) if self.mendings.open.len() < OPEN_MAX => concerned,
            Ok(_) => return drop(reply.send(Err(format!("{OPEN_MAX} requests wait already; try again")))),
            Err(why) => return drop(reply.send(Err(why))),
        };
        self.mendings.last += 1;
        let number = self.mendings.last;
        let mut mending = Mending { reply, waiting: BTreeSet::new(), answers: BTreeMap::new(), until: now + PATIENCE };
        let silent = self.core.silent();
        for node in concerned {
            if node == self.me {
                mending.answers.insert(node, self.mend(now, mend));
            } else if silent & node.bit() != 0 {
                mending.answers.insert(node, Err("it is silent".to_owned()));
            } else {
                self.send(node, &Mail::Mend { number, mend: mend.clone() });
                mending.waiting.insert(node);
            }
        }
        self.mendings.open.insert(number, mending);
        self.end_mendings(now);
    }

    /// Another node has answered.
    pub(super) fn mended(&mut self, now: Nanos, from: VoterId, number: u64, answer: Answer) {
        if let Some(mending) = self.mendings.open.get_mut(&number)
            && mending.waiting.remove(&from)
        {
            mending.answers.insert(from, answer);
            self.end_mendings(now);
        }
    }

    /// Answers what is complete, or has waited for long enough.
    pub(super) fn end_mendings(&mut self, now: Nanos) {
        let over = |m: &Mending| m.waiting.is_empty() || m.until <= now;
        let done: Vec<u64> = self.mendings.open.iter().filter(|(_, m)| over(m)).map(|(number, _)| *number).collect();
        for number in done {
            let Some(mut mending) = self.mendings.open.remove(&number) else { continue };
            for node in mending.waiting {
                mending.answers.insert(node, Err("it gave no answer in time, and may still do it".to_owned()));
            }
            let said = mending.answers.iter().map(|(node, answer)| {
                let (Ok(text) | Err(text)) = answer;
                format!("{}: {text}", self.facts.config.shared.name_of(*node))
            });
            let text = said.collect::<Vec<_>>().join("; ");
            let any = mending.answers.values().any(Result::is_ok);
            // Whoever asked may have given up.
            drop(mending.reply.send(if any { Ok(text) } else { Err(text) }));
        }
    }

    /// Whose matter it is.
    fn concerned(&self, mend: &Mend) -> Result<Vec<VoterId>, String> {
        let group = mend.group();
        let (Some(state), Some(configured)) =
            (self.core.state().groups.get(group), self.facts.config.shared.groups.get(group))
        else {
            return Err(format!("the log does not know the group {group} yet; `baton status` says more"));
        };
        match mend {
            Mend::Restart { .. } => match state.owner {
                Some(owner) => Ok(vec![owner]),
                None => Err(format!("group {group} has no owner now, so nothing of it runs; `baton status` says why")),
            },
            Mend::Cleanup { .. } => Ok(configured.nodes.clone()),
        }
    }

    /// Does here what this node can do.
    pub(super) fn mend(&mut self, now: Nanos, mend: &Mend) -> Answer {
        info!(?mend, "an operator asks");
        match mend {
            Mend::Restart { group, resource } => self.restart_resource(group, resource),
            Mend::Cleanup { group, resource } => Ok(self.clean_up(now, group, resource.as_deref())),
        }
    }

    fn restart_resource(&self, group: &GroupId, resource: &str) -> Answer {
        let state = self.core.state();
        if state.groups.get(group).and_then(|g| g.owner) != Some(self.me) {
            return Err(format!("it does not own {group} any more; give the order again"));
        }
        if !self.core.runs(group) {
            return Err(format!("{group} is being started or stopped here; try again when that is over"));
        }
        if state.unmanaged(group).contains(resource) {
            return Err(format!("{resource} is unmanaged; `baton resource manage {group} {resource}` ends that"));
        }
        self.executor.send(Job::Restart(group.clone(), resource.to_owned()));
        Ok(format!("restarting {resource}"))
    }

    fn clean_up(&mut self, now: Nanos, group: &GroupId, resource: Option<&str>) -> String {
        let run = self.runs.get(group);
        let blocked = run.is_some_and(|run| run.blocked.is_some());
        let concerns = |name: &str| resource.is_none_or(|wanted| wanted == name);
        let states = run.into_iter().flat_map(|run| &run.resources).filter(|r| concerns(&r.name));
        let failures: u32 = states.map(|r| r.failures).sum();
        self.executor.send(Job::Cleanup(group.clone(), resource.map(str::to_owned)));
        let mut done = Vec::new();
        if failures > 0 {
            done.push(format!("{failures} failures are forgotten"));
        }
        if self.core.cleanup(now, group) {
            done.push("it refuses the group no longer".to_owned());
        }
        if blocked {
            done.push("the stop that failed is tried again".to_owned());
        }
        if done.is_empty() { "nothing stood against it".to_owned() } else { done.join(", ") }
    }
}
