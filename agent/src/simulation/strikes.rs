//! Faults that aim at a short race: answers to what a core has just done, and two scenarios in several acts.

use super::{
    faults::{Ends, Moment, Strike},
    world::World,
};

impl World {
    /// A core has just done something; sometimes fate answers.
    pub fn provoke(&mut self, position: usize, moment: Moment) {
        if self.calm || !self.plan.random.per_mille(self.plan.provoked) {
            return;
        }
        let about = match moment {
            Moment::Asking(node, _)
            | Moment::FloorRaised(node)
            | Moment::Promised(node)
            | Moment::Concluding(node)
            | Moment::Preparing(node) => Self::position(node),
            Moment::GivingUp => position,
        };
        let strikes: &[(usize, Strike)] = match moment {
            Moment::Asking(_, voter) => {
                // The races of rule 3: the node is heard again just when a voter raises its floor.
                let voter = Self::position(voter);
                if self.plan.random.per_mille(500) {
                    // A beat that arrives together with the question.
                    self.strike(about, Strike::Heard);
                    self.wedge(about, 2 * self.timing.hold_ns());
                    self.send_beats(about);
                    self.strike(about, Strike::Race);
                } else {
                    self.strike(about, Strike::Race);
                    self.strike(voter, Strike::Lag);
                }
                &[(about, Strike::Heard), (about, Strike::Heard), (voter, Strike::Withhold), (voter, Strike::Machine)]
            }
            Moment::FloorRaised(_) => &[(about, Strike::Heard), (position, Strike::Agent), (position, Strike::Pause)],
            Moment::Promised(_) => &[
                (position, Strike::Machine),
                (position, Strike::Agent),
                (about, Strike::Heard),
                (position, Strike::Isolate),
            ],
            Moment::Concluding(_) => &[
                (about, Strike::Lag),
                (position, Strike::Disk),
                (position, Strike::Isolate),
                (position, Strike::Pause),
                (position, Strike::Agent),
                (about, Strike::Heard),
                (about, Strike::Agent),
            ],
            Moment::GivingUp => &[
                (position, Strike::Agent),
                (position, Strike::Deaf),
                (position, Strike::Pause),
                (position, Strike::Isolate),
            ],
            Moment::Preparing(_) => {
                &[(about, Strike::Agent), (about, Strike::Pause), (position, Strike::Isolate), (position, Strike::Disk)]
            }
        };
        let hold = self.timing.hold_ns();
        for _ in 0..self.plan.random.range(1, 2) {
            let (at, strike) = strikes[self.plan.random.index(strikes.len())];
            let after = self.plan.random.spread(10_000, hold / 4);
            self.ends(after, Ends::Strike(at, strike));
        }
    }

    pub(super) fn strike(&mut self, at: usize, strike: Strike) {
        if self.calm {
            return;
        }
        let hold = self.timing.hold_ns();
        let lasts = self.plan.random.spread(hold / 8, 4 * hold);
        let soon = self.plan.random.spread(hold / 40, hold);
        match strike {
            Strike::Agent => self.strike_agent(at, soon),
            Strike::Machine => self.strike_machine(at, soon),
            Strike::Pause => self.pause(at, lasts),
            Strike::Isolate => self.cut(self.around(at, true, true), lasts),
            Strike::Deaf => self.cut(self.around(at, true, false), lasts),
            Strike::Disk => self.hang_disk(at, lasts),
            Strike::Lag => {
                self.note(Some(at), || "! driver lags".to_owned());
                if let Some(machine) = self.machines.get_mut(at) {
                    machine.preempted = 600;
                }
                let usual = self.plan.preempted;
                self.ends(lasts, Ends::Preempted(at, usual));
            }
            Strike::Wedge => self.wedge(at, self.timing.wedge_ns / 8 * 9 + 5 * hold),
            Strike::Withhold => {
                self.note(Some(at), || "! promises are held up".to_owned());
                let until = self.now + self.plan.random.range(4 * hold, 9 * hold);
                if let Some(machine) = self.machines.get_mut(at) {
                    machine.promises_late = (until, until);
                }
            }
            Strike::Race => {
                self.note(None, || "! programs are preempted".to_owned());
                let usual = self.plan.racy;
                self.racy = [300, 950][self.plan.random.index(2)];
                self.ends(lasts, Ends::Race(usual));
            }
            Strike::Heard => {
                // The cuts around it are gone for good; whoever cut it takes back what is left.
                let paths = self.around(at, true, true);
                for _ in 0..4 {
                    self.uncut(&paths);
                }
            }
        }
    }

    /// Two rounds about one node, with the promises of the first one arriving in the second.
    pub(super) fn wedge_twice(&mut self, at: usize) {
        let hold = self.timing.hold_ns();
        let noticed = self.timing.wedge_ns / 8 * 9;
        let again = noticed + 7 * hold;
        let late = (self.now + again, self.now + again + noticed / 9 * 8);
        for machine in self.machines.iter_mut().filter(|machine| World::position(machine.id) != at) {
            machine.promises_late = late;
        }
        self.wedge(at, noticed + hold);
        self.ends(again, Ends::Strike(at, Strike::Wedge));
    }

    /// A node keeps its lease by the fewest voters that it takes, and one of those restarts quickly.
    pub(super) fn besiege(&mut self, at: usize) {
        let hold = self.timing.hold_ns();
        let lasts = self.plan.random.range(2 * hold, 5 * hold);
        let count = self.machines.len();
        let leader = self.machines.iter().position(|machine| machine.raft_letter == 'L').filter(|&leader| leader != at);
        let mut others: Vec<usize> = (0..count).filter(|&other| other != at && Some(other) != leader).collect();
        let last = others.remove(self.plan.random.index(others.len()));
        let besiegers = count - crate::cluster::timing::majority(count);
        for besieger in leader.into_iter().chain(others).take(besiegers) {
            self.cut(self.between(at, besieger, true), lasts);
        }
        let after = self.plan.random.range(hold, 2 * hold);
        let strike = if self.plan.random.per_mille(700) { Strike::Machine } else { Strike::Agent };
        self.ends(after, Ends::Strike(last, strike));
    }
}
