//! Orders that operators gave to this voter: repeated to whoever leads until the log has them, because a leader that is just being
//! replaced forgets what it was told.

use super::{
    command::Command,
    entry::Entry,
    ids::{MILLISECOND, Nanos},
    message::{Message, Order},
    out::Out,
    settings::OrderRefused,
    sight::Sight,
    steward::Steward,
};

/// How long an order is repeated.
const PATIENCE: Nanos = 5_000 * MILLISECOND;
/// Between two times that it is given to a leader.
const PACE: Nanos = 50 * MILLISECOND;
/// How many orders may wait.
const WAITING_MAX: usize = 16;

/// The orders that are not in the log yet.
#[derive(Debug, Default)]
pub(super) struct Orders(Vec<Waiting>);

#[derive(Debug)]
struct Waiting {
    order: Order,
    until: Nanos,
    next: Nanos,
}

/// Whether an applied entry is what an order asked for.
pub(super) fn carries_out(entry: &Entry, order: &Order) -> bool {
    match (entry, order) {
        (Entry::Prepare { group, to, .. }, Order::Move { group: wanted, to: target, .. }) => {
            group == wanted && to == target
        }
        (Entry::Standby { node, on }, Order::Standby { node: wanted, on: way }) => node == wanted && on == way,
        (Entry::Switch { what, on }, Order::Switch { what: wanted, on: way }) => what == wanted && on == way,
        _ => false,
    }
}

impl Orders {
    /// Takes an order that has been checked.
    pub(super) fn take(&mut self, now: Nanos, order: Order) -> Result<(), OrderRefused> {
        self.0.retain(|waiting| waiting.order != order);
        if self.0.len() >= WAITING_MAX {
            return Err(OrderRefused::Busy(WAITING_MAX));
        }
        self.0.push(Waiting { order, until: now.saturating_add(PATIENCE), next: now });
        Ok(())
    }

    /// An entry was applied: an order that it carries out is done.
    pub(super) fn applied(&mut self, entry: &Entry) {
        self.0.retain(|waiting| !carries_out(entry, &waiting.order));
    }

    /// Gives what is due to the leader, which may be this machine.
    pub(super) fn step(&mut self, sight: &Sight<'_>, steward: &mut Steward, out: &mut Out<'_>) {
        self.0.retain(|waiting| waiting.until > sight.now);
        for waiting in &mut self.0 {
            if waiting.next <= sight.now {
                if sight.leads() {
                    // A leader that has too many orders is asked again.
                    steward.order(sight.now, waiting.order.clone()).ok();
                } else if let Some(to) = sight.view.raft.leader {
                    out.push(Command::Send { to, message: Message::Order(waiting.order.clone()) });
                }
                waiting.next = sight.now.saturating_add(PACE);
            }
            out.wake_at(waiting.next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::bench::{A, ARBITER, B, Bench, web};

    fn sent_to(commands: &[Command]) -> Vec<crate::cluster::ids::VoterId> {
        let orders = commands.iter().filter_map(|c| match c {
            Command::Send { to, message: Message::Order(_) } => Some(*to),
            _ => None,
        });
        orders.collect()
    }

    /// Found by the takeover bench: an order given while the leadership was handed over was forgotten.
    #[test]
    fn an_order_is_repeated_to_whoever_leads_until_the_log_has_it() {
        let mut bench = Bench::new(ARBITER);
        bench.core.on_order(bench.now, Order::Move { group: web(), to: B, force: false }).unwrap();
        let commands = bench.pass_ms(1);
        assert_eq!(sent_to(&commands), [B]);
        bench.view.raft.leader = Some(A);
        let repeated = sent_to(&bench.pass_ms(120));
        assert!(repeated.len() >= 2 && repeated.iter().all(|to| *to == A), "{repeated:?}");
        bench.apply(&Entry::Prepare { group: web(), epoch: 1, to: B, to_incarnation: 1 });
        assert_eq!(sent_to(&bench.pass_ms(1_000)), []);
    }

    #[test]
    fn an_order_that_nobody_carries_out_is_given_up() {
        let mut bench = Bench::new(ARBITER);
        bench.core.on_order(bench.now, Order::Standby { node: A, on: true }).unwrap();
        bench.pass_ms(5_100);
        assert_eq!(sent_to(&bench.pass_ms(500)), []);
    }
}
