//! The leader's other duties: forming the cluster, giving ownerless groups to nodes, planned moves, operators' orders.

use std::collections::BTreeMap;

use super::{
    command::Command,
    entry::{Entry, Scope, Switch},
    ids::{Epoch, GroupId, Index, MILLISECOND, Nanos, Role, VoterId},
    message::{Order, Report},
    orders,
    out::Out,
    placement::{
        self, Constraints, Unfit,
        world::{Failback, Halt},
    },
    rounds::SETTLE,
    settings::{GroupSettings, OrderRefused},
    sight::Sight,
    state::{GroupState, Held, Movement},
};

#[cfg(test)]
mod tests;

/// A planned move that makes no progress for this long is given up.
const MOVE_PATIENCE: Nanos = 2_000 * MILLISECOND;
/// After a planned move ended without effect, the core does not begin another on its own for this long.
const MOVE_PAUSE: Nanos = 1_000 * MILLISECOND;
/// A better node must have been fit for this long before a group fails back to it.
const FAILBACK_AFTER: Nanos = 5_000 * MILLISECOND;
/// A drain whose node is not heard for this long is over: its flows are dead.
const DRAIN_PATIENCE: Nanos = 2_000 * MILLISECOND;
/// An order that could not be put into the log for this long is dropped.
const ORDER_PATIENCE: Nanos = 5_000 * MILLISECOND;
/// How many orders may wait.
const ORDERS_MAX: usize = 16;

/// What the leader remembers for these duties.
#[derive(Debug, Default)]
pub(super) struct Steward {
    /// Operators' orders that are not in the log yet, and until when they are tried.
    orders: Vec<(Order, Nanos)>,
    /// Planned moves: when the present step of each was first seen.
    moves: BTreeMap<GroupId, Watch>,
    /// No planned move of the group begins on its own before this.
    paused: BTreeMap<GroupId, Nanos>,
    /// Groups whose drain is on a node that is not heard, and since when.
    unheard: BTreeMap<GroupId, Nanos>,
    /// The better node of a group that may fail back, and since when it has been fit.
    better: BTreeMap<GroupId, (VoterId, Nanos)>,
    /// The next owners named in releases that are not applied yet, with the epoch given up: they count as owners when others are
    /// chosen.
    named: BTreeMap<GroupId, (Epoch, VoterId)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Watch {
    id: Index,
    ready: bool,
    since: Nanos,
}

impl Steward {
    /// Takes an operator's order; the caller has checked it.
    pub(super) fn order(&mut self, now: Nanos, order: Order) -> Result<(), OrderRefused> {
        if self.orders.iter().any(|(waiting, _)| *waiting == order) {
            return Ok(());
        }
        if self.orders.len() >= ORDERS_MAX {
            return Err(OrderRefused::Busy(ORDERS_MAX));
        }
        self.orders.push((order, now.saturating_add(ORDER_PATIENCE)));
        Ok(())
    }

    /// An entry was applied: an order that it carries out is done.
    pub(super) fn applied(&mut self, now: Nanos, entry: &Entry) {
        self.orders.retain(|(order, _)| !orders::carries_out(entry, order));
        if let Entry::Abandon { group, .. } = entry {
            self.paused.insert(group.clone(), now.saturating_add(MOVE_PAUSE));
        }
    }

    /// One step of the leader.
    pub(super) fn step(&mut self, sight: &Sight<'_>, rounds_open: bool, out: &mut Out<'_>) {
        if !sight.leads() {
            *self = Self::default();
            return;
        }
        configure(sight, out);
        if !sight.started() {
            return;
        }
        self.carry_out_orders(sight, out);
        for (id, group) in &sight.state.groups {
            self.watch_drain(sight, id, group, out);
            if let (Some(_), Some(movement)) = (group.owner, group.movement) {
                self.watch(sight, id, group, &movement, out);
            }
        }
        if placement::undecided(sight) {
            self.place(sight, rounds_open, out);
        }
        self.moves.retain(|id, _| sight.state.groups.get(id).is_some_and(|g| g.movement.is_some()));
        self.better.retain(|id, _| sight.state.groups.contains_key(id));
        self.paused.retain(|_, until| *until > sight.now);
    }

    /// How many groups each voter owns, or is about to.
    fn load(&mut self, sight: &Sight<'_>) -> BTreeMap<VoterId, usize> {
        let groups = &sight.state.groups;
        self.named.retain(|id, (epoch, _)| groups.get(id).is_some_and(|g| g.epoch == *epoch && g.owner.is_some()));
        let mut load = placement::load(sight);
        self.named.values().for_each(|(_, node)| *load.entry(*node).or_default() += 1);
        load
    }

    /// As [`Self::complete`], for what this machine proposes itself.
    pub(super) fn complete_all(&mut self, sight: &Sight<'_>, mut commands: Vec<Command>) -> Vec<Command> {
        for command in &mut commands {
            if let Command::Propose(entry @ Entry::Release { .. }) = command {
                *entry = self.complete(sight, entry.clone());
            }
        }
        commands
    }

    /// Names the next owner in a release, where this machine leads and would assign the group to one as soon as it is released.
    pub(super) fn complete(&mut self, sight: &Sight<'_>, entry: Entry) -> Entry {
        let Entry::Release { group, epoch, node, incarnation, reason } = &entry else {
            return entry;
        };
        let known = sight.state.groups.get(group).is_some_and(|g| g.epoch == *epoch && g.owner == Some(*node));
        let understood = sight.state.voters.keys().all(|v| sight.report(*v).is_some_and(|r| r.knows_release_to));
        if !sight.leads() || !sight.started() || !known || !understood {
            return entry;
        }
        self.named.remove(group);
        let Some(to) = self.successor(sight, group, *node) else {
            return entry;
        };
        self.named.insert(group.clone(), (*epoch, to));
        Entry::ReleaseTo {
            group: group.clone(),
            epoch: *epoch,
            node: *node,
            incarnation: *incarnation,
            reason: *reason,
            to,
        }
    }

    /// Who shall have a group that its owner gives up now. Where anything binds it to others or to a node's room, the steward
    /// decides when it is released: several releases may be on their way.
    fn successor(&mut self, sight: &Sight<'_>, id: &GroupId, owner: VoterId) -> Option<VoterId> {
        let settings = sight.settings.group(id).filter(|g| g.constraints == Constraints::default())?;
        let load = self.load(sight);
        let others = |other: &GroupId, _: &GroupState| (other != id).then_some(Halt::Round);
        let mut world = placement::gather(sight, Some(owner), others, |_| Failback::Off);
        for (node, seen) in &mut world.nodes {
            seen.load = load.get(node).copied().unwrap_or(0);
        }
        let step = placement::plan(&world).steps.into_iter().find(|s| s.group == *id && s.waits.is_empty())?;
        let settled = sight.now >= sight.detector.start + SETTLE;
        step.to.filter(|to| settled || !placement::awaits_better(sight, settings, *to, &load))
    }

    fn carry_out_orders(&mut self, sight: &Sight<'_>, out: &mut Out<'_>) {
        self.orders.retain(|(_, until)| *until > sight.now);
        for (order, until) in &self.orders {
            out.wake_at(*until);
            match order {
                Order::Standby { node, on } => {
                    out.propose(Entry::Standby { node: *node, on: *on });
                }
                Order::Switch { what, on } => {
                    out.propose(Entry::Switch { what: what.clone(), on: *on });
                }
                Order::Move { group, to, force } => {
                    let state = sight.state.groups.get(group).filter(|_| sight.state.held(group).is_none());
                    if let Some(g) = state.filter(|g| g.movement.is_none() && g.owner.is_some_and(|o| o != *to)) {
                        match g.drain.filter(|node| node != to) {
                            Some(node) if *force => drained(group, g, node, out),
                            Some(_) => {}
                            None => prepare(sight, group, g, *to, out),
                        }
                    }
                }
            }
        }
    }

    /// Gives up a planned move that cannot go on, or does not.
    fn watch(&mut self, sight: &Sight<'_>, id: &GroupId, group: &GroupState, m: &Movement, out: &mut Out<'_>) {
        let now = Watch { id: m.id, ready: m.ready, since: sight.now };
        let watch = self.moves.entry(id.clone()).or_insert(now);
        if (watch.id, watch.ready) != (m.id, m.ready) {
            *watch = now;
        }
        // The owner of what must not run twice stops it first.
        let gives_up = watch.since + MOVE_PATIENCE + sight.settings.stops_first(id).unwrap_or(0);
        out.wake_at(gives_up);
        let incarnations = sight.state.incarnation(m.to) == Some(m.to_incarnation)
            && sight.state.incarnation(m.from) == Some(m.from_incarnation);
        let well = |r: &Report| r.ready && r.front_up && !r.unfit.contains(id);
        let target = sight.heard(m.to) && sight.report(m.to).is_none_or(well);
        if !incarnations || !target || sight.now >= gives_up {
            out.propose(Entry::Abandon { group: id.clone(), epoch: group.epoch, movement: m.id });
        }
    }

    /// Ends a drain whose node has been silent for long: nobody serves those flows any more.
    fn watch_drain(&mut self, sight: &Sight<'_>, id: &GroupId, group: &GroupState, out: &mut Out<'_>) {
        let Some(node) = group.drain.filter(|node| !sight.heard(*node)) else {
            self.unheard.remove(id);
            return;
        };
        let over = *self.unheard.entry(id.clone()).or_insert(sight.now) + DRAIN_PATIENCE;
        out.wake_at(over);
        if sight.now >= over {
            drained(id, group, node, out);
        }
    }

    /// Carries out what the plan has ready: groups without an owner get one, and those that have to leave their node, or may go
    /// back to a better one, begin to move.
    fn place(&mut self, sight: &Sight<'_>, rounds_open: bool, out: &mut Out<'_>) {
        let ripe = |id: &GroupId| self.better.get(id).filter(|(_, since)| sight.now >= since + FAILBACK_AFTER);
        let failback = |group: &GroupSettings| Failback::Ripe(ripe(&group.id).map(|(node, _)| *node));
        let world = placement::gather(sight, None, |id, group| self.halt(sight, rounds_open, id, group, out), failback);
        let plan = placement::plan(&world);
        let mut load = self.load(sight);
        for step in &plan.steps {
            let Some(group) = sight.state.groups.get(&step.group).filter(|_| step.waits.is_empty()) else {
                continue;
            };
            match (step.from, step.to) {
                (None, Some(to)) => assign(sight, &step.group, group, to, &mut load, out),
                (Some(_), Some(to)) => prepare(sight, &step.group, group, to, out),
                // Its owner gives it up by itself.
                (_, None) => {}
            }
        }
        let moving = |id: &GroupId| sight.state.groups.get(id).is_some_and(|g| g.movement.is_some());
        self.better.retain(|id, _| plan.better.contains_key(id) || moving(id));
        for (id, node) in plan.better {
            let (known, since) = self.better.entry(id).or_insert((node, sight.now));
            if *known != node {
                (*known, *since) = (node, sight.now);
            }
            out.wake_at(*since + FAILBACK_AFTER);
        }
    }

    /// Why an owned group is not moved of one's own accord now.
    fn halt(
        &self,
        sight: &Sight<'_>,
        rounds_open: bool,
        id: &GroupId,
        group: &GroupState,
        out: &mut Out<'_>,
    ) -> Option<Halt> {
        let owner = group.owner.filter(|_| group.movement.is_none())?;
        if rounds_open {
            return Some(Halt::Round);
        }
        if let Some(until) = self.paused.get(id).filter(|until| **until > sight.now) {
            out.wake_at(*until);
            return Some(Halt::Paused);
        }
        if !sight.heard(owner) {
            return Some(Halt::Unheard);
        }
        // It waits until the last move has drained.
        group.drain.map(Halt::Draining)
    }
}

/// Checks an order against what this machine sees.
pub(super) fn check(sight: &Sight<'_>, order: &Order) -> Result<(), OrderRefused> {
    let is_node = |n: VoterId| sight.state.voters.get(&n).is_some_and(|v| v.role == Role::Node);
    match order {
        Order::Standby { node, .. } if !is_node(*node) => Err(OrderRefused::NotANode(*node)),
        Order::Standby { node, on: true } => {
            let owned = sight.state.groups.iter().filter(|(_, g)| g.owner == Some(*node));
            let held = owned.filter_map(|(id, _)| Some((id, sight.state.held(id)?)));
            let mut held = held.filter(|(_, why)| *why != Held::Stopped);
            held.next().map_or(Ok(()), |(group, why)| Err(OrderRefused::Held { group: group.clone(), why }))
        }
        Order::Standby { .. } => Ok(()),
        Order::Switch { what: Switch::Maintenance(Scope::Node(node)), .. } if !is_node(*node) => {
            Err(OrderRefused::NotANode(*node))
        }
        Order::Switch { what, .. } => match what.group().filter(|group| !sight.state.groups.contains_key(*group)) {
            Some(unknown) => Err(OrderRefused::UnknownGroup(unknown.clone())),
            None => Ok(()),
        },
        Order::Move { group, to, force } => {
            let unknown = || OrderRefused::UnknownGroup(group.clone());
            let state = sight.state.groups.get(group).ok_or_else(unknown)?;
            let settings = sight.settings.group(group).ok_or_else(unknown)?;
            if !is_node(*to) {
                return Err(OrderRefused::NotANode(*to));
            }
            if let Some(why) = sight.state.held(group) {
                return Err(OrderRefused::Held { group: group.clone(), why });
            }
            match state.owner {
                None => return Err(OrderRefused::NoOwner(group.clone())),
                Some(owner) if owner == *to => {
                    return Err(OrderRefused::AlreadyThere(group.clone(), *to));
                }
                Some(_) => {}
            }
            if state.movement.is_some() {
                return Err(OrderRefused::Moving(group.clone()));
            }
            if let Some(node) = state.drain.filter(|node| node != to && !force) {
                return Err(OrderRefused::Draining(group.clone(), node));
            }
            let against = placement::against(sight, settings, *to);
            if against.is_empty() {
                return bound(sight, group, *to);
            }
            let text = |why: &Unfit| match placement::unready(sight, group, *to) {
                Some(detail) if *why == Unfit::Unready => format!("{why}: {detail}"),
                _ => why.to_string(),
            };
            let reason = against.iter().map(text).collect::<Vec<_>>().join(", ");
            Err(OrderRefused::NotFit { group: group.clone(), node: *to, reason })
        }
    }
}

/// Whether a move would break what binds the group, or those that follow it.
fn bound(sight: &Sight<'_>, group: &GroupId, to: VoterId) -> Result<(), OrderRefused> {
    let world = placement::gather(sight, None, |_, _| None, |_| Failback::Off);
    let against = placement::against_order(&world, group, to);
    if against.is_empty() {
        return Ok(());
    }
    let reason = placement::text::list(&against, &|node| format!("node {node}"));
    Err(OrderRefused::Bound { group: group.clone(), node: to, reason })
}

/// Forms the cluster, and keeps the list of groups as the configuration has it.
fn configure(sight: &Sight<'_>, out: &mut Out<'_>) {
    let settings = sight.settings;
    let mut groups: Vec<GroupId> = settings.groups.iter().map(|g| g.id.clone()).collect();
    groups.sort();
    groups.dedup();
    let formed = !sight.state.voters.is_empty();
    // A group that somebody still owns goes later; until then it is no difference.
    let present =
        sight.state.groups.iter().filter(|(id, g)| g.owner.is_none() || groups.contains(id)).map(|(id, _)| id);
    let differs = !present.eq(groups.iter());
    if !formed || (differs && sight.agrees() && !sight.view.configuration_differs) {
        let (voters, lease_ns) = (settings.voters.clone(), settings.timing.lease_ns);
        out.propose(Entry::Configure { voters, groups, lease_ns });
    }
}

fn assign(
    sight: &Sight<'_>,
    id: &GroupId,
    group: &GroupState,
    to: VoterId,
    load: &mut BTreeMap<VoterId, usize>,
    out: &mut Out<'_>,
) {
    let Some(settings) = sight.settings.group(id) else {
        return;
    };
    let settled = sight.detector.start + SETTLE;
    if sight.now < settled && placement::awaits_better(sight, settings, to, load) {
        out.wake_at(settled);
        return;
    }
    *load.entry(to).or_default() += 1;
    out.propose(Entry::Assign { group: id.clone(), epoch: group.epoch, to, cause: group.cause });
}

fn drained(id: &GroupId, group: &GroupState, node: VoterId, out: &mut Out<'_>) {
    out.propose(Entry::Drained { group: id.clone(), epoch: group.epoch, node, summary: None });
}

fn prepare(sight: &Sight<'_>, id: &GroupId, group: &GroupState, to: VoterId, out: &mut Out<'_>) {
    if let Some(to_incarnation) = sight.state.incarnation(to) {
        out.propose(Entry::Prepare { group: id.clone(), epoch: group.epoch, to, to_incarnation });
    }
}
