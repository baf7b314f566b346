//! What the voters report to one another: the newest report of each, and when this one is sent again.

use std::collections::BTreeMap;

use super::{
    command::Command,
    ids::{GroupId, MILLISECOND, Nanos, Role, VoterId},
    message::{Message, Report},
    out::Out,
    promises::Promises,
    sight::Sight,
    transition::Transitions,
};

/// The longest pause between two reports, however long the interval.
const AT_LEAST: Nanos = 100 * MILLISECOND;
/// Intervals between two reports that say nothing new.
const EVERY_INTERVALS: u64 = 10;

/// When and as what the own report was last sent.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    due: Nanos,
    sequence: u64,
}

impl Reporter {
    /// Sends the own report if it says something new or is due. Returns what belongs into the table.
    pub(super) fn step(&mut self, sight: &Sight<'_>, report: Report, out: &mut Out<'_>) -> Report {
        let known = sight.reports.get(&sight.me());
        let report = Report { sequence: self.sequence, ..report };
        // An entry that was applied is no news: the beats carry indices.
        let news = known.is_none_or(|k| Report { applied: report.applied, ..k.clone() } != report);
        let report = if news || sight.now >= self.due {
            self.sequence += 1;
            self.due = sight.now + AT_LEAST.min(EVERY_INTERVALS * sight.interval_ns());
            let report = Report { sequence: self.sequence, ..report };
            for to in sight.others() {
                out.push(Command::Send { to, message: Message::Report(report.clone()) });
            }
            report
        } else {
            report
        };
        out.wake_at(self.due);
        report
    }
}

/// What this machine has to say about itself and the others.
pub(super) fn own(sight: &Sight<'_>, promises: &Promises, transitions: &Transitions, leaving: bool) -> Report {
    let is_node = sight.settings.role == Role::Node;
    Report {
        sequence: 0,
        incarnation: sight.incarnation(),
        silent: sight.silent_mask(),
        promising: promises.mask(),
        applied: sight.state.applied,
        ready: sight.started() && !leaving,
        front_up: !is_node || sight.view.front_up,
        same_configuration: !sight.view.configuration_differs,
        unfit: if is_node { transitions.unfit(sight) } else { Vec::new() },
        unready: if is_node { transitions.unready() } else { Vec::new() },
        steers: sight.view.steers,
        running: awaited(sight, transitions),
        knows_release_to: true,
    }
}

/// The groups that run here and that others come after: nobody asks about the rest, and a report of them would be one more.
fn awaited(sight: &Sight<'_>, transitions: &Transitions) -> Vec<GroupId> {
    let after = |id: &GroupId| sight.settings.groups.iter().any(|g| g.constraints.after.contains(id));
    transitions.running().filter(|id| after(id)).cloned().collect()
}

/// Keeps the newest report of each voter, whatever order they arrive in.
pub(super) fn keep(reports: &mut BTreeMap<VoterId, Report>, from: VoterId, report: Report) {
    let age = |r: &Report| (r.incarnation, r.sequence);
    if reports.get(&from).is_none_or(|known| age(known) < age(&report)) {
        reports.insert(from, report);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_report_does_not_replace_a_newer_one() {
        let of = |incarnation, sequence| Report { incarnation, sequence, ..Report::default() };
        let mut reports = BTreeMap::new();
        let from = VoterId(2);
        for (report, kept) in [
            (of(1, 5), of(1, 5)),
            (of(1, 4), of(1, 5)),
            (of(1, 6), of(1, 6)),
            (of(2, 1), of(2, 1)),
            (of(1, 9), of(2, 1)),
        ] {
            keep(&mut reports, from, report);
            assert_eq!(reports[&from], kept);
        }
    }
}
