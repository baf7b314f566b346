//! What the flight recorder and the neighbours are told: who fell silent or returned, a lease that lapsed and came back.

use super::{
    command::{Command, Fact},
    ids::{Role, VoterId},
    out::Out,
    sight::Sight,
    transition::Transitions,
};

/// What was last noticed.
#[derive(Debug, Default)]
pub(super) struct Notices {
    silent: u16,
    lapsed: bool,
}

impl Notices {
    /// Records changes. A group that runs here is announced again when a node that may have claimed it returns, and when the
    /// own lease comes back: neighbours may hold stale entries from the time between.
    pub(super) fn step(&mut self, sight: &Sight<'_>, running: &Transitions, out: &mut Out<'_>) {
        let silent = sight.silent_mask();
        let changed = |mask: u16| sight.others().filter(move |v| mask & v.bit() != 0);
        changed(silent & !self.silent).for_each(|v| out.record(Fact::Silent(v)));
        let back: Vec<VoterId> = changed(self.silent & !silent).collect();
        self.silent = silent;
        back.iter().for_each(|v| out.record(Fact::Returned(*v)));

        let lapsed = sight.view.lease_end <= sight.now;
        let serves = running.running().next().is_some();
        if serves {
            out.wake_at(sight.view.lease_end);
            if lapsed && !self.lapsed {
                out.record(Fact::LeaseLapsed);
            }
        }
        let regained = self.lapsed && !lapsed;
        self.lapsed = lapsed && (serves || self.lapsed);
        let is_node = |v: &VoterId| sight.settings.voters.contains(&(*v, Role::Node));
        if regained || back.iter().any(is_node) {
            for group in running.running() {
                out.push(Command::Announce { group: group.clone() });
            }
        }
    }
}
