//! The executor on a resource that resists.

use std::{
    sync::{
        atomic::{AtomicU32, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{inbox::EVENTS_MAX, *};
use crate::{
    cluster::ids::VoterId,
    netlink::{link::Link, watch::Event},
    resources::{Context, Health, Operation, Resource, ResourceError, Timeouts, Work},
    telemetry::{
        history::History,
        run::{GroupRun, RunState},
    },
};

const LIMIT: Duration = Duration::from_secs(30);

/// A resource whose first stops fail, and that counts how often it is told to look at everything.
struct Stubborn {
    /// Every start fails.
    broken: bool,
    stops_to_fail: u32,
    /// Holds the executor's thread in a start until the sender is gone.
    hold: Option<mpsc::Receiver<()>>,
    looks: Arc<AtomicU32>,
}

impl Resource for Stubborn {
    fn name(&self) -> &str {
        "stubborn"
    }

    fn timeouts(&self) -> Timeouts {
        Timeouts { probe: LIMIT, start: LIMIT, stop: LIMIT, monitor: LIMIT }
    }

    fn probe(&mut self) -> Work<'_, Health> {
        Work::ok(Health::Stopped)
    }

    fn start(&mut self, _context: &Context) -> Work<'_, ()> {
        if let Some(hold) = self.hold.take() {
            assert!(hold.recv().is_err());
        }
        if self.broken { Work::Done(Err(refusal(Operation::Start))) } else { Work::ok(()) }
    }

    fn stop(&mut self, _context: &Context) -> Work<'_, ()> {
        if self.stops_to_fail == 0 {
            return Work::ok(());
        }
        self.stops_to_fail -= 1;
        Work::Done(Err(refusal(Operation::Stop)))
    }

    fn monitor(&mut self) -> Work<'_, Health> {
        Work::ok(Health::Running)
    }

    fn on_network(&mut self, event: &Event) -> Work<'_, ()> {
        if matches!(event, Event::Resynced) {
            self.looks.fetch_add(1, SeqCst);
        }
        Work::ok(())
    }
}

fn refusal(operation: Operation) -> ResourceError {
    ResourceError::Failed {
        resource: "stubborn".to_owned(),
        operation,
        object: "itself".to_owned(),
        cause: "it will not".to_owned(),
        errno: None,
        remedy: "wait".to_owned(),
    }
}

pub(super) fn group() -> GroupId {
    GroupId::new("web")
}

fn executor(resource: Stubborn) -> (Executor, UnboundedReceiver<Input>) {
    start(Stack { slots: vec![Slot::plain("stubborn", "test", Box::new(resource))], ..Stack::default() })
}

/// An executor of one group.
pub(super) fn start(stack: Stack) -> (Executor, UnboundedReceiver<Input>) {
    let recorder = Recorder::start(VoterId(1), BTreeMap::new(), History::in_memory()).unwrap();
    let (reports, told) = unbounded_channel();
    let surroundings = Surroundings {
        reports,
        recorder,
        board: Arc::default(),
        flows: Box::new(|_| Ok(Vec::new())),
        adopted: BTreeSet::new(),
        starts_at_once: 4,
        realtime: false,
    };
    (Executor::start(BTreeMap::from([(group(), stack)]), surroundings).unwrap(), told)
}

/// The next report, whatever it is.
fn report(told: &mut UnboundedReceiver<Input>) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let input = runtime.block_on(async { tokio::time::timeout(LIMIT, told.recv()).await });
    match input.expect("a report within the limit") {
        Some(Input::Executor(report)) => report,
        other => panic!("{other:?}"),
    }
}

/// The next report but for those of how resources run.
pub(super) fn next(told: &mut UnboundedReceiver<Input>) -> Report {
    loop {
        match report(told) {
            Report::Run(..) => {}
            other => return other,
        }
    }
}

/// Waits until the group is blocked, and says why.
fn blocked(told: &mut UnboundedReceiver<Input>) -> String {
    loop {
        match report(told) {
            Report::Run(id, GroupRun { blocked: Some(why), resources }) => {
                assert_eq!((id, resources[0].state), (group(), RunState::Blocked));
                return why;
            }
            Report::Run(..) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_stop_that_fails_is_tried_until_it_can_be_reported() {
    let (executor, mut told) =
        executor(Stubborn { broken: false, stops_to_fail: 2, hold: None, looks: Arc::default() });
    executor.send(Job::Stop(group(), 4));
    assert!(blocked(&mut told).contains("it will not"));
    assert!(matches!(next(&mut told), Report::Stopped(id, 4) if id == group()));
    executor.send(Job::Start { group: group(), epoch: 5, after_flows: false });
    assert!(matches!(next(&mut told), Report::Started(_, 5)));
}

#[test]
fn a_flood_of_network_events_costs_no_order_and_ends_in_a_look_at_everything() {
    let (release, hold) = mpsc::channel();
    let looks = Arc::new(AtomicU32::new(0));
    let (executor, mut told) =
        executor(Stubborn { broken: false, stops_to_fail: 0, hold: Some(hold), looks: Arc::clone(&looks) });
    executor.send(Job::Start { group: group(), epoch: 1, after_flows: false });
    let front = Link {
        index: 1,
        name: "front".to_owned(),
        mac: None,
        mtu: 1500,
        up: true,
        carrier: true,
        running: true,
        controller: None,
    };
    for _ in 0..2 * EVENTS_MAX {
        executor.send(Job::Network(Event::LinkGone(front.clone())));
    }
    executor.send(Job::Stop(group(), 1));
    drop(release);
    assert!(matches!(next(&mut told), Report::Started(_, 1)));
    assert!(matches!(next(&mut told), Report::Stopped(_, 1)));
    assert_eq!(looks.load(SeqCst), 1);
    assert_eq!(executor.groups[&group()].waiting(), 0);
}

#[test]
fn a_failure_that_is_ignored_holds_nothing_back() {
    let resource = |broken| {
        Box::new(Stubborn { broken, stops_to_fail: 0, hold: None, looks: Arc::default() }) as Box<dyn Resource>
    };
    let ignored = Slot { policy: Policy::Ignore, ..Slot::plain("extra", "test", resource(true)) };
    let above = Slot { requires: vec![0], ..Slot::plain("vip", "test", resource(false)) };
    let (executor, mut told) = start(Stack { slots: vec![ignored, above], ..Stack::default() });
    executor.send(Job::Start { group: group(), epoch: 1, after_flows: false });
    let mut states = Vec::new();
    loop {
        match report(&mut told) {
            Report::Run(_, run) => states = run.resources.iter().map(|r| r.state).collect(),
            Report::Started(_, 1) => break,
            other => panic!("{other:?}"),
        }
    }
    executor.send(Job::Look);
    while states != [RunState::Failed, RunState::Running] {
        match report(&mut told) {
            Report::Run(_, run) => states = run.resources.iter().map(|r| r.state).collect(),
            other => panic!("{other:?} with {states:?}"),
        }
    }
}
