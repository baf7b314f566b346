//! What a seed decides before anything happens: the cluster, its clocks, its network, and how rough it will be.

use std::collections::BTreeMap;

use super::{
    Options,
    checker::Checker,
    clock::{Clock, DRIFT_PPM_MAX},
    disk::Disk,
    faults::{Focus, Plan},
    machine::Machine,
    network::{LINKS_MAX, Network, Weather},
    queue::Queue,
    random::Random,
    trace::Trace,
    world::{Event, World},
};
use crate::cluster::{
    core::GroupSettings,
    ids::{GroupId, Role, VoterId},
    placement::Constraints,
    timing::Timing,
};

const MILLION: u64 = 1_000_000;
/// The faults begin within this many holds.
const QUIET_HOLDS: u64 = 12;
/// How many holds the faults last when the options do not say.
const FAULT_HOLDS: u64 = 70;

impl World {
    /// The world of a seed, with every machine about to boot.
    pub fn new(seed: u64, options: &Options, trace: bool) -> Self {
        let mut random = Random::new(seed, 1);
        let timing = match random.below(10) {
            0..=3 => Timing::DEFAULT,
            4..=8 => Timing::QUICK,
            _ => Timing::FAST,
        };
        let voters = roles(options.voters, &mut random);
        let groups = groups(&voters, &mut random);
        let links = 1 + random.index(LINKS_MAX.min(3));
        let mut network = Network::new(links, Random::new(seed, 2));
        network.channel_both_ways = random.per_mille(500);
        let weather = weather(&mut random);
        network.weather = weather;
        let mut plan_random = Random::new(seed, 3);
        let focus = match plan_random.below(10) {
            0..=2 => Focus::Everything,
            3 => Focus::Flapping,
            4..=5 => Focus::Restarts,
            6..=7 => Focus::Orders,
            _ => Focus::Wedges,
        };
        let hold = timing.hold_ns();
        let begin = plan_random.range(hold, QUIET_HOLDS * hold);
        let until = begin + options.faults_ns.unwrap_or(FAULT_HOLDS * hold);
        let preempted = [0, 3, 30][random.index(3)];
        let racy = [0, 0, 5, 40][random.index(4)];
        let plan = Plan {
            racy,
            focus,
            until,
            provoked: [0, 150, 500][plan_random.index(3)],
            weather,
            preempted,
            pause_max: [16, 32, 64][plan_random.index(3)],
            random: plan_random,
        };
        let raft_lease_ns = random.range(2 * timing.interval_ns, hold);
        let log_max = usize::try_from(random.spread(8, 400)).unwrap_or(8);
        let machines = voters.iter().map(|(id, role)| machine(*id, *role, preempted, &mut random)).collect();
        let mut world = Self {
            now: 0,
            queue: Queue::new(),
            machines,
            network,
            timing,
            group_ids: groups.iter().map(|group| group.id.clone()).collect(),
            groups,
            voters,
            random,
            checker: Checker::default(),
            trace: Trace::new(trace),
            plan,
            mutation: options.mutation,
            calm: false,
            raft_lease_ns,
            log_max,
            racy,
            done: false,
            served_since: None,
            well_since: None,
            upgrades: Self::upgrades(seed),
            switches: Self::switches(seed),
        };
        // In one world of four nothing can be steered.
        if !seed.is_multiple_of(4) {
            let nodes = world.voters.iter().filter(|(_, role)| *role == Role::Node);
            let mask = nodes.fold(0, |mask, (voter, _)| mask | voter.bit());
            world.machines.iter_mut().for_each(|machine| machine.steers = mask);
        }
        for position in 0..world.machines.len() {
            let at = world.random.spread(MILLION / 10, hold);
            world.queue.push(at, Event::Boot(position));
        }
        if world.switches.is_some() {
            world.queue.push(begin, Event::Switch);
        }
        world.queue.push(begin, Event::Fault);
        world.queue.push(until, Event::Calm);
        if world.upgrades.is_some() {
            world.queue.push(begin, Event::Upgrade);
        }
        world
    }
}

fn roles(count: u8, random: &mut Random) -> Vec<(VoterId, Role)> {
    let arbiters = if count <= 3 { random.below(2) } else { random.below(3) };
    let first_arbiter = u64::from(count) - arbiters;
    (0..count)
        .map(|n| (VoterId(n + 1), if u64::from(n) < first_arbiter { Role::Node } else { Role::Arbiter }))
        .collect()
}

fn groups(voters: &[(VoterId, Role)], random: &mut Random) -> Vec<GroupSettings> {
    let nodes: Vec<VoterId> = voters.iter().filter(|(_, role)| *role == Role::Node).map(|(voter, _)| *voter).collect();
    (0..random.range(1, 3))
        .map(|number| GroupSettings {
            id: GroupId::new(&format!("g{number}")),
            nodes: Vec::new(),
            prefers: if random.per_mille(500) { vec![(nodes[random.index(nodes.len())], 100)] } else { Vec::new() },
            stickiness: 10,
            failback: random.per_mille(200),
            constraints: Constraints::default(),
            stops_first: (number % 2 == 0).then_some(200 * MILLION),
            ..GroupSettings::anywhere("")
        })
        .collect()
}

fn weather(random: &mut Random) -> Weather {
    let rough = random.per_mille(500);
    Weather {
        delay_min: 20_000,
        delay_max: random.spread(100_000, 1_000_000),
        loss: if rough { random.below(30) } else { 0 },
        duplicate: if rough { random.below(50) } else { 0 },
        straggle: if rough { random.below(20) } else { 0 },
        straggle_max: 100 * MILLION,
    }
}

fn machine(id: VoterId, role: Role, preempted: u64, random: &mut Random) -> Machine {
    let rate_ppm = match random.below(4) {
        0 => MILLION - DRIFT_PPM_MAX,
        1 => MILLION + DRIFT_PPM_MAX,
        2 => MILLION,
        _ => random.range(MILLION - DRIFT_PPM_MAX, MILLION + DRIFT_PPM_MAX),
    };
    Machine {
        id,
        role,
        rate_ppm,
        clock: Clock::new(rate_ppm, 0, 0),
        boot: 0,
        powered: false,
        stalled: false,
        paused: false,
        wedged: false,
        steers: 0,
        front_up: true,
        starts_fail: false,
        preempted,
        promises_late: (0, 0),
        kernel: None,
        disk: Disk::new(),
        agent: None,
        keeper: None,
        left: BTreeMap::new(),
        generation: 0,
        raft_letter: ' ',
        agent_gone: true,
        backlog: Vec::new(),
    }
}
