//! Groups of resources in order: the order itself, failures, and what cannot be stopped. The resources are scripts that write down
//! what is asked of them, in one file for all nodes, and fail on demand.

use std::{fs, path::PathBuf, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use baton_lab::{
    baton::{Baton, GROUP},
    lock::Exclusive,
    scene::Scene,
    topology::Spec,
    trial::Fault,
    wait,
};
use serde_json::Value;

use super::{LIMIT, MILLISECOND, SERVED, fail_over, no_overlap, usual};

/// Whoever wanted to do something would have done so many times over.
const STAYS: Duration = Duration::from_secs(3);
/// `$D/run-NODE-RESOURCE` is there while it runs; `$D/ill-…` makes its monitor fail, `$D/stuck-…` its stop, `$D/broken-…` its start; with `$D/slow-…` its stop
/// takes longer than an agent of addresses alone waits at its end.
const SCRIPT: &str = r#"#!/bin/sh
D=$(dirname "$0")
me=$BATON_NODE-$BATON_RESOURCE
case $1 in
monitor) [ ! -e "$D/ill-$me" ] || exit 1; [ -e "$D/run-$me" ] || exit 7;;
start) echo "start $BATON_RESOURCE $BATON_NODE" >>"$D/log"; [ ! -e "$D/broken-$me" ] || exit 1; : >"$D/run-$me";;
stop) [ ! -e "$D/stuck-$me" ] || { echo "still in use" >&2; exit 1; }
    [ ! -e "$D/slow-$me" ] || sleep 6
    [ ! -e "$D/run-$me" ] || echo "stop $BATON_RESOURCE $BATON_NODE" >>"$D/log"; rm -f "$D/run-$me" "$D/ill-$me";;
esac
"#;

/// Three resources: `data`, and on it `left` and `right`, which do not wait for one another.
const STACK: &str = r#"
[[group.resource]]
name = "data"
kind = "script"
command = "{lab}/service"
monitor_interval = "100ms"
[[group.resource]]
name = "left"
kind = "script"
command = "{lab}/service"
monitor_interval = "100ms"
[[group.resource]]
name = "right"
kind = "script"
command = "{lab}/service"
requires = ["data"]
monitor_interval = "100ms"
"#;

/// A cluster whose group is a stack of such scripts.
struct Stack {
    scene: Scene,
    folder: PathBuf,
}

impl Stack {
    fn new(name: &str) -> Result<Self> {
        let agents =
            usual().placed_by("migration_threshold = 2\n").with_resources(STACK).with_program("service", SCRIPT);
        let scene = Scene::new(Spec::usual(name), Box::new(agents), MILLISECOND)?;
        let folder = scene.lab.home().path().to_owned();
        Ok(Self { scene, folder })
    }

    fn node(&self, node: usize) -> String {
        self.scene.lab.nodes[node].name.clone()
    }

    /// What was asked since the last time.
    fn log(&self) -> Result<Vec<String>> {
        let path = self.folder.join("log");
        let text = fs::read_to_string(&path).context("nothing was asked of the resources")?;
        fs::write(&path, "")?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    fn mark(&self, what: &str, node: usize, resource: &str) -> PathBuf {
        self.folder.join(format!("{what}-{}-{resource}", self.node(node)))
    }

    fn set(&self, what: &str, node: usize, resource: &str) -> Result<()> {
        Ok(fs::write(self.mark(what, node, resource), "")?)
    }

    /// The resources of the group as the agent on a node tells them.
    fn told(&self, node: usize, resource: &str) -> Result<Value> {
        let status =
            Baton::status(&self.scene.lab, &self.scene.lab.nodes[node])?.context("the agent gives no answer")?;
        let groups = status["groups"].as_array().context("the status has groups")?;
        let group = groups.iter().find(|g| g["name"] == GROUP).context("the status has the group")?;
        let runs = group["runs"].as_array().context("the group has runs")?;
        let name = self.node(node);
        let run = runs.iter().find(|r| r["node"] == name.as_str()).unwrap_or(&Value::Null);
        if resource.is_empty() {
            return Ok(run.clone());
        }
        let Some(resources) = run["resources"].as_array() else { return Ok(Value::Null) };
        resources.iter().find(|r| r["name"] == resource).cloned().context("the node has the resource")
    }

    fn serves(&self, node: usize) -> Result<()> {
        wait::until(LIMIT, "the node to serve", || {
            Ok(self.scene.probe.steady_owner(SERVED).map(usize::from) == Some(node))
        })
    }
}

/// What a stack on a node asks for, with `left` and `right` in either order.
fn is_whole(log: &[String], action: &str, node: &str) -> bool {
    let line = |resource: &str| format!("{action} {resource} {node}");
    let (first, last) = if action == "start" { (0, 1) } else { (2, 0) };
    let mut both = log.get(last..last + 2).unwrap_or_default().to_vec();
    both.sort();
    log.len() == 3 && log[first] == line("data") && both == [line("left"), line("right")]
}

#[test]
fn a_stack_moves_in_order_and_never_runs_twice() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut stack = Stack::new("stack-moves")?;
    let mut owner = stack.scene.steady(LIMIT)?;
    ensure!(is_whole(&stack.log()?, "start", &stack.node(owner)));
    for _ in 0..3 {
        let (from, to) = (stack.node(owner), stack.node(1 - owner));
        Baton::command(&stack.scene.lab, &stack.scene.lab.nodes[owner], &["move", GROUP, &to])?;
        owner = 1 - owner;
        stack.serves(owner)?;
        let log = stack.log()?;
        ensure!(log.len() == 6 && is_whole(&log[..3], "stop", &from) && is_whole(&log[3..], "start", &to), "{log:?}");
    }
    no_overlap(&mut stack.scene)
}

#[test]
fn what_a_dead_node_left_is_stopped_before_it_may_own_the_group_again() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut stack = Stack::new("stack-dies")?;
    let owner = stack.scene.steady(LIMIT)?;
    stack.log()?;
    // The trial's repair starts the agent again.
    fail_over(&mut stack.scene, Fault::Kill)?;
    let (dead, other) = (stack.node(owner), stack.node(1 - owner));
    wait::until(LIMIT, "the rest to be stopped", || Ok(!stack.mark("run", owner, "data").exists()))?;
    let log = stack.log()?;
    ensure!(is_whole(&log[..3], "start", &other) && is_whole(&log[3..], "stop", &dead), "{log:?}");
    Ok(())
}

#[test]
fn a_failure_is_mended_in_place_and_the_next_one_moves_the_group() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut stack = Stack::new("stack-fails")?;
    let owner = stack.scene.steady(LIMIT)?;
    let (here, there) = (stack.node(owner), stack.node(1 - owner));
    let epoch = stack.scene.system.takeovers(&stack.scene.lab)?;
    stack.log()?;
    stack.set("ill", owner, "left")?;
    wait::until(LIMIT, "the failure to be counted", || {
        let left = stack.told(owner, "left")?;
        Ok(left["failures"] == 1 && left["state"] == "running")
    })?;
    let again = [format!("stop left {here}"), format!("start left {here}")];
    let log = stack.log()?;
    ensure!(log == again, "more than what failed was restarted: {log:?}");
    ensure!(stack.scene.system.takeovers(&stack.scene.lab)? == epoch, "it moved for one failure");
    ensure!(stack.told(owner, "left")?["last_error"].as_str().is_some_and(|e| e.contains("left")));

    stack.set("ill", owner, "left")?;
    stack.serves(1 - owner)?;
    let log = stack.log()?;
    ensure!(log.len() == 6 && is_whole(&log[..3], "stop", &here) && is_whole(&log[3..], "start", &there), "{log:?}");
    no_overlap(&mut stack.scene)
}

#[test]
fn a_group_that_cannot_be_stopped_is_blocked_and_started_nowhere_else() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut stack = Stack::new("stack-blocked")?;
    let owner = stack.scene.steady(LIMIT)?;
    let (here, there) = (stack.node(owner), stack.node(1 - owner));
    stack.log()?;
    stack.set("stuck", owner, "data")?;
    let machine = stack.scene.lab.nodes[owner].clone();
    Baton::command(&stack.scene.lab, &machine, &["move", "--no-wait", GROUP, &there])?;
    wait::until(LIMIT, "the group to be blocked", || {
        Ok(stack.told(owner, "")?["blocked"]
            .as_str()
            .is_some_and(|why| why.contains("data") && why.contains("still in use")))
    })?;
    ensure!(stack.told(owner, "data")?["state"] == "blocked");
    thread::sleep(STAYS);
    let log = stack.log()?;
    ensure!(log.iter().all(|line| line.starts_with("stop") && line.ends_with(&here)), "{log:?}");
    ensure!(log.len() == 2, "what stands on it was stopped, once: {log:?}");

    fs::remove_file(stack.mark("stuck", owner, "data"))?;
    // The move may have been given up meanwhile: then it starts here again.
    wait::until(LIMIT, "somebody to serve", || Ok(stack.scene.probe.steady_owner(SERVED).is_some()))?;
    ensure!(stack.told(owner, "")?["blocked"].is_null());
    no_overlap(&mut stack.scene)
}

#[test]
fn an_agent_that_ends_in_order_waits_for_its_stacks() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut stack = Stack::new("stack-ends")?;
    let owner = stack.scene.steady(LIMIT)?;
    let (here, there) = (stack.node(owner), stack.node(1 - owner));
    stack.log()?;
    stack.set("slow", owner, "data")?;
    let agent = stack.scene.system.process(owner).context("the owner's agent runs")?;
    let status = agent.terminate(LIMIT)?;
    ensure!(status.success(), "the agent did not end in order: {status}\n{}", stack.scene.system.logs());
    stack.serves(1 - owner)?;
    let log = stack.log()?;
    ensure!(log.len() == 6 && is_whole(&log[..3], "stop", &here) && is_whole(&log[3..], "start", &there), "{log:?}");
    no_overlap(&mut stack.scene)
}

#[test]
fn a_start_that_fails_goes_elsewhere() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut stack = Stack::new("stack-broken")?;
    let owner = stack.scene.steady(LIMIT)?;
    let (here, there) = (stack.node(owner), stack.node(1 - owner));
    stack.log()?;
    stack.set("broken", 1 - owner, "right")?;
    Baton::command(&stack.scene.lab, &stack.scene.lab.nodes[owner], &["move", "--no-wait", GROUP, &there])?;
    wait::until(LIMIT, "the start to fail there", || Ok(stack.told(1 - owner, "right")?["failures"] == 2))?;
    stack.serves(owner)?;
    let log = stack.log()?;
    ensure!(is_whole(&log[..3], "stop", &here), "{log:?}");
    ensure!(is_whole(&log[log.len() - 3..], "start", &here), "{log:?}");
    let last_there = log.iter().rposition(|line| line.ends_with(&there)).context("nothing was tried there")?;
    ensure!(last_there < log.len() - 3, "it was started here before it was stopped there: {log:?}");
    no_overlap(&mut stack.scene)
}
