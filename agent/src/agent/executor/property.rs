//! The executor on random stacks whose resources fail, hang and take their time, against what must hold whatever happens.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

use super::{tests::*, *};
use crate::{
    cluster::ids::Epoch,
    resources::{Context, Health, Operation, Resource, ResourceError, Timeouts, Work},
};

const SEEDS: u64 = 200;
/// Far above what an operation here takes, unless it hangs.
const LIMIT: Duration = Duration::from_millis(60);
const RESOURCES_MAX: usize = 7;

/// What a resource of the model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down,
    Starting,
    Up,
    Stopping,
    /// A start or a stop failed or was dropped: something of it may be there.
    Unsure,
}

/// The model of one stack, and what was done against its rules.
struct World {
    states: Vec<State>,
    requires: Vec<Vec<usize>>,
    violations: Vec<String>,
    random: SmallRng,
    /// Nothing fails any more: everything must come to an end.
    calm: bool,
}

impl World {
    fn begin(&mut self, at: usize, operation: Operation) {
        let busy = matches!(self.states[at], State::Starting | State::Stopping);
        let (bad, state) = match operation {
            Operation::Start => {
                (self.requires[at].iter().find(|r| self.states[**r] != State::Up).copied(), State::Starting)
            }
            _ => {
                let on_it = (0..self.states.len()).filter(|other| self.requires[*other].contains(&at));
                (on_it.clone().find(|other| self.states[*other] != State::Down), State::Stopping)
            }
        };
        if busy || bad.is_some() {
            self.violations.push(format!("{operation} of {at} in {:?}; {bad:?} is against it", self.states));
        }
        self.states[at] = state;
    }

    /// How long an operation takes, and whether it goes well.
    fn fate(&mut self) -> (Duration, bool) {
        let hangs = !self.calm && self.random.random_ratio(1, 40);
        let took =
            if hangs { Duration::from_secs(60) } else { Duration::from_micros(self.random.random_range(0..2_000)) };
        (took, self.calm || !self.random.random_ratio(1, 10))
    }
}

type Shared = Arc<Mutex<World>>;

fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap()
}

struct Modelled {
    at: usize,
    name: String,
    world: Shared,
}

/// An operation under way: what it leaves when it is dropped before its end.
struct UnderWay(usize, Shared);

impl UnderWay {
    fn ends(self, state: State) {
        lock(&self.1).states[self.0] = state;
        std::mem::forget(self);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        lock(&self.1).states[self.0] = State::Unsure;
    }
}

impl Modelled {
    fn change(&mut self, operation: Operation, to: State) -> Work<'_, ()> {
        let (at, world) = (self.at, Arc::clone(&self.world));
        Work::pending(async move {
            let (took, well) = {
                let mut world = lock(&world);
                world.begin(at, operation);
                world.fate()
            };
            let under_way = UnderWay(at, world);
            tokio::time::sleep(took).await;
            if well {
                under_way.ends(to);
                return Ok(());
            }
            drop(under_way);
            Err(refusal(&self.name, operation))
        })
    }
}

fn refusal(name: &str, operation: Operation) -> ResourceError {
    ResourceError::Failed {
        resource: name.to_owned(),
        operation,
        object: "itself".to_owned(),
        cause: "the dice".to_owned(),
        errno: None,
        remedy: "throw again".to_owned(),
    }
}

impl Resource for Modelled {
    fn name(&self) -> &str {
        &self.name
    }

    fn timeouts(&self) -> Timeouts {
        Timeouts { probe: LIMIT, start: LIMIT, stop: LIMIT, monitor: LIMIT }
    }

    fn probe(&mut self) -> Work<'_, Health> {
        Work::ok(Health::Stopped)
    }

    fn start(&mut self, _context: &Context) -> Work<'_, ()> {
        self.change(Operation::Start, State::Up)
    }

    fn stop(&mut self, _context: &Context) -> Work<'_, ()> {
        self.change(Operation::Stop, State::Down)
    }

    fn monitor(&mut self) -> Work<'_, Health> {
        let (took, well) = lock(&self.world).fate();
        Work::pending(async move {
            tokio::time::sleep(took).await;
            Ok(if well { Health::Running } else { Health::Failed("the dice".to_owned()) })
        })
    }

    fn monitor_interval(&self) -> Option<Duration> {
        Some(Duration::from_millis(5))
    }
}

fn stack(random: &mut SmallRng) -> (Stack, Shared) {
    let count = random.random_range(1..=RESOURCES_MAX);
    let requires: Vec<Vec<usize>> =
        (0..count).map(|at| (0..at).filter(|_| random.random_ratio(1, 2)).collect()).collect();
    let world = World {
        states: vec![State::Down; count],
        requires: requires.clone(),
        violations: Vec::new(),
        random: SmallRng::seed_from_u64(random.random()),
        calm: false,
    };
    let world = Arc::new(Mutex::new(world));
    let slots = requires.into_iter().enumerate().map(|(at, requires)| {
        let resource = Modelled { at, name: format!("r{at}"), world: Arc::clone(&world) };
        let policy = if random.random_ratio(1, 4) { Policy::Move } else { Policy::Restart };
        Slot { requires, policy, ..Slot::plain(&format!("r{at}"), "test", Box::new(resource)) }
    });
    let slots = slots.collect();
    let (threshold, failure_timeout) = (random.random_range(1..=2), 600_000_000_000);
    (Stack { slots, stops_first: true, threshold, failure_timeout, ..Stack::default() }, world)
}

/// Plays the core: starts, stops at random moments, and stops what has failed.
fn run(seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let (stack, world) = stack(&mut random);
    let (executor, mut told) = start(stack);
    let check = |at: &str| {
        let world = lock(&world);
        assert!(world.violations.is_empty(), "seed {seed}, {at}: {:#?}", world.violations);
    };
    let stop = |told: &mut _, epoch: Epoch| {
        executor.send(Job::Stop(group(), epoch));
        loop {
            match next(told) {
                Report::Stopped(_, e) if e == epoch => break,
                // Of a start that was under way.
                Report::Started(..) | Report::StartFailed(..) | Report::Failed(..) => {}
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        let states = lock(&world).states.clone();
        assert!(states.iter().all(|s| *s == State::Down), "seed {seed}: stopped with {states:?}");
    };
    for epoch in 1..=random.random_range(1..=3) {
        executor.send(Job::Start { group: group(), epoch, after_flows: false });
        if random.random_ratio(1, 2) {
            std::thread::sleep(Duration::from_micros(random.random_range(0..20_000)));
        } else if let Report::Started(_, e) = next(&mut told) {
            assert_eq!(e, epoch);
        }
        check("before the stop");
        stop(&mut told, epoch);
        check("after the stop");
    }
    lock(&world).calm = true;
    executor.send(Job::Start { group: group(), epoch: 9, after_flows: false });
    let report = next(&mut told);
    assert!(matches!(report, Report::Started(_, 9)), "seed {seed}: nothing fails any more, but {report:?}");
    let states = lock(&world).states.clone();
    assert!(states.iter().all(|s| *s == State::Up), "seed {seed}: started with {states:?}");
    stop(&mut told, 9);
    check("at the end");
}

#[test]
fn order_holds_whatever_fails() {
    let next = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    if seed >= SEEDS {
                        return;
                    }
                    run(seed);
                }
            });
        }
    });
}
