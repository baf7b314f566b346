//! The faults of a seed: what, to whom, when, for how long.
//!
//! Most hit whoever matters at the moment (an owner, the leader, the target of a move), and some answer to what a core has
//! just done ([`Moment`]), since the races that a missing rule loses are short. The unit of time is the hold.

use super::{
    clock::Instant,
    machine::Item,
    network::Weather,
    random::Random,
    world::{Event, World},
};
use crate::cluster::{
    ids::{Role, VoterId},
    message::Order,
};

/// One way of one pair on one link.
pub type Path = (u8, u8, usize);

/// The end of a fault.
#[derive(Clone, Debug)]
pub enum Ends {
    /// The paths pass again.
    Cut(Vec<Path>),
    /// A flapping path: it is cut again for a while, so many times more.
    Flap(Vec<Path>, u8),
    /// The weather is as it was.
    Weather(Weather),
    /// User space goes on.
    Pause(usize),
    /// The machine goes on.
    Stall(usize),
    /// The async part goes on.
    Wedge(usize),
    /// The disk is fast again.
    Disk(usize),
    /// The front link is up again.
    Front(usize),
    /// Resources start again.
    Starts(usize),
    /// The driver is preempted as seldom as before.
    Preempted(usize, u64),
    /// An orderly stop took too long: the agent is killed.
    Stop(usize, u64),
    /// Something that a moment provoked.
    Strike(usize, Strike),
    /// Programs and pulses are preempted as seldom as before.
    Race(u64),
}

/// What a core has just done, and about whom.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    /// It asked for a promise; the second is who was asked.
    Asking(VoterId, VoterId),
    /// It raised its floor.
    FloorRaised(VoterId),
    /// It promised.
    Promised(VoterId),
    /// It proposed a conclusion.
    Concluding(VoterId),
    /// It proposed to give a group up.
    GivingUp,
    /// It proposed a move to a node.
    Preparing(VoterId),
}

/// Faults that can follow a moment.
#[derive(Clone, Copy, Debug)]
pub enum Strike {
    /// The agent crashes and comes back soon.
    Agent,
    /// The machine crashes and comes back soon.
    Machine,
    /// User space stands still.
    Pause,
    /// The machine is cut off.
    Isolate,
    /// It hears nobody.
    Deaf,
    /// Its disk hangs.
    Disk,
    /// It is heard again by everybody.
    Heard,
    /// Its driver is preempted at nearly every point.
    Lag,
    /// Programs and pulses everywhere are preempted in their middle.
    Race,
    /// What it promises arrives late.
    Withhold,
    /// Its async part stands still for longer than the bound.
    Wedge,
}

/// What a seed leans to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Focus {
    /// Everything alike.
    Everything,
    /// Paths that come and go around the length of a hold.
    Flapping,
    /// Crashes and quick restarts.
    Restarts,
    /// Orders, releases.
    Orders,
    /// Agents that live and do not act.
    Wedges,
}

/// The plan.
pub struct Plan {
    /// Chance for faults alone.
    pub random: Random,
    /// What the seed leans to.
    pub focus: Focus,
    /// When the faults stop.
    pub until: Instant,
    /// In a thousand: how often a moment provokes a strike.
    pub provoked: u64,
    /// The weather between storms.
    pub weather: Weather,
    /// How often the driver is preempted without a fault.
    pub preempted: u64,
    /// How often programs and pulses are preempted without a fault.
    pub racy: u64,
    /// The longest pause between two faults, in eighths of a hold.
    pub pause_max: u64,
}

const EVERYTHING: &[u8] = b"icodpplwPPSWWAAMMDHFFRmmmsstnXzy";
const FLAPPING: &[u8] = b"ffffffiodpcwPDHzz";
const RESTARTS: &[u8] = b"AAAAMMMMAMidoPHDpWWcRzzzz";
const ORDERS: &[u8] = b"mmmmmssFFFFRRtAAMPDHipnX";
const WEDGES: &[u8] = b"WWWPPPSiodpAMDHczzyyy";

impl World {
    /// One fault begins, and the next is planned.
    pub fn fault(&mut self) {
        if self.calm {
            return;
        }
        self.checker.statistics.faults += 1;
        let kinds = match self.plan.focus {
            Focus::Everything => EVERYTHING,
            Focus::Flapping => FLAPPING,
            Focus::Restarts => RESTARTS,
            Focus::Orders => ORDERS,
            Focus::Wedges => WEDGES,
        };
        let kind = kinds[self.plan.random.index(kinds.len())];
        let target = self.target();
        self.inject(kind, target);
        let hold = self.timing.hold_ns();
        let next = self.now + self.plan.random.spread(hold / 8, hold / 8 * self.plan.pause_max);
        if next < self.plan.until {
            self.queue.push(next, Event::Fault);
        }
    }

    fn inject(&mut self, kind: u8, target: usize) {
        let hold = self.timing.hold_ns();
        let lasts = self.plan.random.spread(hold / 8, 6 * hold);
        let soon = self.plan.random.spread(hold / 20, 3 * hold);
        match kind {
            b'i' => self.cut(self.around(target, true, true), lasts),
            b'c' => self.cut(self.around(target, true, false), lasts),
            b'o' => self.cut(self.around(target, false, true), lasts),
            b'd' => {
                let other = self.other(target);
                self.cut(self.between(target, other, false), lasts);
            }
            b'p' => {
                let other = self.other(target);
                self.cut(self.between(target, other, true), lasts);
            }
            b'l' => {
                let link = self.plan.random.index(self.network.links());
                let paths = self.all_paths().into_iter().filter(|path| path.2 == link).collect();
                self.cut(paths, lasts);
            }
            b'w' => {
                let side = self.plan.random.draw();
                let paths = self.all_paths().into_iter().filter(|(a, b, _)| (side >> a) & 1 != (side >> b) & 1);
                self.cut(paths.collect(), lasts);
            }
            b'f' => {
                let paths = if self.plan.random.per_mille(500) {
                    let (into, out) = [(true, true), (true, false), (false, true)][self.plan.random.index(3)];
                    self.around(target, into, out)
                } else {
                    let (other, both) = (self.other(target), self.plan.random.per_mille(500));
                    self.between(target, other, both)
                };
                let times = u8::try_from(self.plan.random.range(2, 8)).unwrap_or(2);
                self.fault_ends(Ends::Flap(paths, times));
            }
            b'z' => self.besiege(target),
            b'y' => self.wedge_twice(target),
            b'P' => self.pause(target, lasts),
            b'S' => {
                self.note(Some(target), || "! machine stalls".to_owned());
                if let Some(machine) = self.machines.get_mut(target).filter(|machine| machine.powered) {
                    machine.stalled = true;
                }
                self.ends(lasts, Ends::Stall(target));
            }
            b'W' => {
                let lasts = self.plan.random.spread(hold, 2 * self.timing.wedge_ns + 6 * hold);
                self.wedge(target, lasts);
            }
            b'A' => self.strike_agent(target, soon),
            b'M' => self.strike_machine(target, soon),
            b'D' => {
                self.note(Some(target), || "! disk is slow".to_owned());
                if let Some(machine) = self.machines.get_mut(target) {
                    machine.disk.latency = (500_000, hold / 2);
                }
                self.ends(4 * lasts, Ends::Disk(target));
            }
            b'H' => self.hang_disk(target, lasts),
            b'F' => {
                self.note(Some(target), || "! front link down".to_owned());
                if let Some(machine) = self.machines.get_mut(target) {
                    machine.front_up = false;
                }
                self.ends(lasts, Ends::Front(target));
                self.call(target, self.now);
            }
            b'R' => {
                self.note(Some(target), || "! resources do not start".to_owned());
                if let Some(machine) = self.machines.get_mut(target) {
                    machine.starts_fail = true;
                }
                self.ends(lasts, Ends::Starts(target));
            }
            b'm' => self.order_move(),
            b's' => {
                let node = VoterId(u8::try_from(target + 1).unwrap_or(1));
                let on = self.plan.random.per_mille(400);
                self.order(Order::Standby { node, on });
            }
            b't' => {
                self.note(Some(target), || "! agent is told to stop".to_owned());
                self.queue.push(self.now, Event::Tell(target, Box::new(Item::Shutdown)));
                let life = self.machines.get(target).map_or(0, |machine| machine.generation);
                self.ends(8 * hold + soon, Ends::Stop(target, life));
            }
            b'n' => self.storm(lasts),
            _ => {
                let before = self.machines.get(target).map_or(0, |machine| machine.preempted);
                self.note(Some(target), || "! driver lags".to_owned());
                if let Some(machine) = self.machines.get_mut(target) {
                    machine.preempted = 400;
                }
                self.ends(lasts, Ends::Preempted(target, before.min(self.plan.preempted)));
            }
        }
    }

    /// A fault ends (or, for some, goes into its next round).
    pub fn fault_ends(&mut self, ends: Ends) {
        let hold = self.timing.hold_ns();
        self.note(None, || format!("~ {}", describe(&ends)));
        match ends {
            Ends::Cut(paths) => self.uncut(&paths),
            Ends::Flap(paths, times) => {
                if times > 0 && !self.calm {
                    let cut = hold / 10 * self.plan.random.range(6, 16);
                    let whole = self.plan.random.spread(self.timing.interval_ns / 4, 3 * self.timing.interval_ns);
                    self.cut(paths.clone(), cut);
                    self.ends(cut + whole, Ends::Flap(paths, times - 1));
                }
            }
            Ends::Weather(weather) => self.network.weather = weather,
            Ends::Pause(at) => {
                if let Some(machine) = self.machines.get_mut(at) {
                    machine.paused = false;
                }
                self.resume(at);
            }
            Ends::Stall(at) => {
                if let Some(machine) = self.machines.get_mut(at) {
                    machine.stalled = false;
                }
                self.resume(at);
            }
            Ends::Wedge(at) => {
                if let Some(machine) = self.machines.get_mut(at) {
                    machine.wedged = false;
                }
                self.resume(at);
            }
            Ends::Disk(at) => {
                if let Some(machine) = self.machines.get_mut(at) {
                    machine.disk.latency = (50_000, 250_000);
                }
            }
            Ends::Front(at) => {
                if let Some(machine) = self.machines.get_mut(at) {
                    machine.front_up = true;
                }
                self.call(at, self.now);
            }
            Ends::Starts(at) => {
                if let Some(machine) = self.machines.get_mut(at) {
                    machine.starts_fail = false;
                }
            }
            Ends::Preempted(at, before) => {
                let before = if self.calm { 0 } else { before };
                if let Some(machine) = self.machines.get_mut(at) {
                    machine.preempted = before;
                }
            }
            Ends::Stop(at, life) => {
                let same = self.machines.get(at).is_some_and(|machine| machine.generation == life);
                if same {
                    self.crash_agent(at);
                }
                self.queue.push(self.now + hold / 4, Event::Start(at));
            }
            Ends::Strike(at, strike) => self.strike(at, strike),
            Ends::Race(usual) => self.racy = if self.calm { 0 } else { usual },
        }
    }

    /// Everything is mended, and every machine runs.
    pub fn calm_down(&mut self) {
        self.note(None, || "~ the faults stop".to_owned());
        self.calm = true;
        self.network.heal();
        self.network.weather = Weather::CALM;
        self.network.channel_both_ways = false;
        self.racy = 0;
        for at in 0..self.machines.len() {
            if let Some(machine) = self.machines.get_mut(at) {
                machine.stalled = false;
                machine.paused = false;
                machine.wedged = false;
                machine.front_up = true;
                machine.starts_fail = false;
                machine.preempted = 0;
                machine.disk.latency = (50_000, 250_000);
                machine.disk.hangs_until = 0;
            }
            self.resume(at);
            self.boot(at);
            self.start_agent(at);
            self.call(at, self.now);
        }
        self.queue.push(self.now, Event::Look);
    }

    pub(super) fn wedge(&mut self, at: usize, lasts: u64) {
        self.note(Some(at), || "! async part wedged".to_owned());
        if let Some(machine) = self.machines.get_mut(at) {
            machine.wedged = true;
        }
        self.ends(lasts, Ends::Wedge(at));
    }

    pub(super) fn strike_agent(&mut self, at: usize, back: u64) {
        self.note(Some(at), || "! agent crashes".to_owned());
        self.crash_agent(at);
        self.queue.push(self.now + back, Event::Start(at));
    }

    pub(super) fn strike_machine(&mut self, at: usize, back: u64) {
        self.note(Some(at), || "! machine crashes".to_owned());
        self.crash_machine(at);
        self.queue.push(self.now + back, Event::Boot(at));
    }

    pub(super) fn pause(&mut self, at: usize, lasts: u64) {
        self.note(Some(at), || "! user space is paused".to_owned());
        if let Some(machine) = self.machines.get_mut(at) {
            machine.paused = true;
        }
        self.ends(lasts, Ends::Pause(at));
    }

    pub(super) fn hang_disk(&mut self, at: usize, lasts: u64) {
        self.note(Some(at), || "! disk hangs".to_owned());
        let until = self.now + lasts;
        if let Some(machine) = self.machines.get_mut(at) {
            machine.disk.hangs_until = until;
        }
    }

    fn storm(&mut self, lasts: u64) {
        self.note(None, || "! storm on the network".to_owned());
        let hold = self.timing.hold_ns();
        self.network.weather = Weather {
            delay_min: 20_000,
            delay_max: self.plan.random.spread(200_000, self.timing.lease_ns / 2),
            loss: self.plan.random.range(0, 600),
            duplicate: self.plan.random.range(0, 300),
            straggle: self.plan.random.range(0, 200),
            straggle_max: 3 * hold,
        };
        let weather = self.plan.weather;
        self.ends(lasts, Ends::Weather(weather));
    }

    fn order_move(&mut self) {
        let nodes: Vec<VoterId> =
            self.voters.iter().filter(|(_, role)| *role == Role::Node).map(|(voter, _)| *voter).collect();
        let to = nodes[self.plan.random.index(nodes.len())];
        let group = self.group_ids[self.plan.random.index(self.group_ids.len())].clone();
        self.order(Order::Move { group, to, force: false });
    }

    /// An operator gives an order somewhere.
    pub fn order(&mut self, order: Order) {
        let at = self.plan.random.index(self.machines.len());
        self.note(Some(at), || format!("! operator: {order:?}"));
        self.queue.push(self.now, Event::Tell(at, Box::new(Item::Order(order))));
    }

    pub(super) fn ends(&mut self, after: u64, ends: Ends) {
        self.queue.push(self.now + after, Event::Ends(ends));
    }

    pub(super) fn cut(&mut self, paths: Vec<Path>, lasts: u64) {
        self.note(None, || format!("! cut {paths:?}"));
        for &(from, to, link) in &paths {
            self.network.set_cut(from, to, link, true);
        }
        self.ends(lasts, Ends::Cut(paths));
    }

    pub(super) fn uncut(&mut self, paths: &[Path]) {
        for &(from, to, link) in paths {
            self.network.set_cut(from, to, link, false);
        }
    }

    fn all_paths(&self) -> Vec<Path> {
        let ids: Vec<u8> = self.voters.iter().map(|(voter, _)| voter.0).collect();
        let mut paths = Vec::new();
        for &from in &ids {
            for &to in ids.iter().filter(|&&to| to != from) {
                paths.extend((0..self.network.links()).map(|link| (from, to, link)));
            }
        }
        paths
    }

    /// The paths into a machine, out of it, or both.
    pub(super) fn around(&self, at: usize, into: bool, out: bool) -> Vec<Path> {
        let id = u8::try_from(at + 1).unwrap_or(0);
        self.all_paths().into_iter().filter(|(from, to, _)| (out && *from == id) || (into && *to == id)).collect()
    }

    pub(super) fn between(&self, at: usize, other: usize, both: bool) -> Vec<Path> {
        let (id, peer) = (u8::try_from(at + 1).unwrap_or(0), u8::try_from(other + 1).unwrap_or(0));
        let wanted = |(from, to, _): &Path| (*from == id && *to == peer) || (both && *from == peer && *to == id);
        self.all_paths().into_iter().filter(wanted).collect()
    }

    fn other(&mut self, at: usize) -> usize {
        let count = self.machines.len();
        (at + 1 + self.plan.random.index(count - 1)) % count
    }

    /// Whom a fault hits: mostly somebody who matters.
    fn target(&mut self) -> usize {
        let any = self.plan.random.index(self.machines.len());
        let slot = self.plan.random.index(self.group_ids.len());
        let group = self.checker.newest().and_then(|state| state.groups.get(&self.group_ids[slot]));
        let leader = self.machines.iter().position(|machine| machine.raft_letter == 'L');
        let chosen = match self.plan.random.below(10) {
            0..=3 => group.and_then(|group| group.owner).map(Self::position),
            4..=5 => leader,
            6 => group.and_then(|group| group.movement).map(|movement| Self::position(movement.to)),
            _ => None,
        };
        chosen.unwrap_or(any)
    }
}

fn describe(ends: &Ends) -> String {
    match ends {
        Ends::Flap(_, left) => format!("a path flaps, {left} times left"),
        Ends::Strike(at, strike) => format!("strike on {}: {strike:?}", at + 1),
        Ends::Pause(at) => format!("{} goes on (user space)", at + 1),
        Ends::Stall(at) => format!("{} goes on (machine)", at + 1),
        Ends::Wedge(at) => format!("{} goes on (async part)", at + 1),
        Ends::Front(at) => format!("{} has its front link back", at + 1),
        Ends::Cut(_) => "a cut ends".to_owned(),
        other => format!("{other:?}"),
    }
}
