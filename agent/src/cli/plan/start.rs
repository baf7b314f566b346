//! From where a plan starts: the groups of a configuration, on the nodes of a status or on none.

use std::collections::BTreeMap;

use crate::{
    api::status::{GroupStatus, Life, StatusReport, VoterStatus},
    cluster::{
        ids::{Role, VoterId},
        placement::{
            Unfit, World,
            world::{Failback, Group, Halt, Node},
        },
    },
    config::{self, Shared, Voter},
};

/// The world of a configuration as a status has it; without one nothing runs and every node is well.
pub(super) fn world(shared: &Shared, status: Option<&StatusReport>) -> World {
    let seen = |voter: &Voter| status.and_then(|s| s.voters.iter().find(|v| *v.name == *voter.name));
    let mut world = World::default();
    for (id, voter) in &shared.voters {
        let room = voter.capacity.map(|c| c.room()).unwrap_or_default();
        let standby = seen(voter).is_some_and(|v| v.standby);
        world.nodes.insert(*id, Node { standby, room, load: 0 });
    }
    for (id, group) in &shared.groups {
        let known = status.and_then(|s| s.groups.iter().find(|g| *g.name == *id.0));
        let against = shared.voters.iter().map(|(id, v)| (*id, against(group, v, known, seen(v))));
        let halt = known.and_then(|g| halted(shared, status?, g));
        let group = planned(shared, group, known, against.collect(), halt);
        if let Some(node) = group.owner.and_then(|o| world.nodes.get_mut(&o)) {
            node.load += 1;
        }
        world.groups.insert(id.clone(), group);
    }
    world
}

fn planned(
    shared: &Shared,
    group: &config::Group,
    known: Option<&GroupStatus>,
    against: BTreeMap<VoterId, Vec<Unfit>>,
    halt: Option<Halt>,
) -> Group {
    let named = |name: &Option<String>| name.as_deref().and_then(|n| shared.voter_named(n)).map(|v| v.id);
    let owner = known.and_then(|g| named(&g.owner));
    Group {
        owner,
        target: known.and_then(|g| named(&g.moving_to)).filter(|_| owner.is_some()),
        running: owner.is_some(),
        against,
        scores: group.prefer.iter().map(|(n, score)| (*n, i64::from(*score))).collect(),
        stickiness: i64::from(group.stickiness),
        failback: if group.failback { Failback::Now } else { Failback::Off },
        constraints: group.constraints.clone(),
        halt,
        order: None,
    }
}

/// What keeps a group as it is.
fn halted(shared: &Shared, status: &StatusReport, group: &GroupStatus) -> Option<Halt> {
    let on = |v: &&VoterStatus| Some(&v.name) == group.owner.as_ref();
    if group.stopped {
        Some(Halt::Stopped)
    } else if status.maintenance || group.maintenance || status.voters.iter().find(on).is_some_and(|v| v.maintenance) {
        Some(Halt::Maintenance)
    } else {
        group.draining_on.as_deref().and_then(|n| shared.voter_named(n)).map(|v| Halt::Draining(v.id))
    }
}

/// What stands against a voter as the owner of a group, by the configuration and by what the agent sees.
fn against(
    group: &config::Group,
    voter: &Voter,
    known: Option<&GroupStatus>,
    seen: Option<&VoterStatus>,
) -> Vec<Unfit> {
    let mut found = Vec::new();
    let mut note = |is: bool, why: Unfit| {
        if is && !found.contains(&why) {
            found.push(why);
        }
    };
    note(voter.role == Role::Arbiter, Unfit::Arbiter);
    note(voter.role == Role::Node && !group.nodes.contains(&voter.id), Unfit::NotAllowed);
    if let Some(seen) = seen {
        note(seen.standby, Unfit::Standby);
        note(seen.maintenance, Unfit::Maintenance);
        note(matches!(seen.life, Life::Silent | Life::NeverSeen), Unfit::Silent);
        note(seen.life == Life::Wedged, Unfit::Wedged);
        note(seen.front_up == Some(false), Unfit::FrontDown);
    }
    // Of the rest only what the groups themselves have to say: what the configuration says may have changed.
    let own = [Unfit::Refuses, Unfit::Unready];
    let reported = known.and_then(|g| g.against.get(&*voter.name)).into_iter().flatten();
    reported.filter(|w| own.contains(w)).for_each(|w| note(true, *w));
    found
}
