//! Random faults with lost, late and duplicated messages and entries: never two servers, and a server when all is mended.

use rand::Rng;

use super::*;

/// Runs one seed; returns what overlapped.
fn run(seed: u64, mutation: Option<&str>, faults: u32) -> Vec<String> {
    let roles: &[Role] = if seed.is_multiple_of(3) {
        &[Role::Node, Role::Node, Role::Node, Role::Arbiter, Role::Arbiter]
    } else {
        &[Role::Node, Role::Node, Role::Arbiter]
    };
    let voters = u8::try_from(roles.len()).unwrap_or(3);
    let groups = ["web", "db"].map(GroupSettings::anywhere).into();
    let mut lab = Lab::with(roles, groups, seed);
    if let Some(name) = mutation {
        lab.mutate(Mutations::for_simulation(name).unwrap());
    }
    lab.run_ms(2_500);
    lab.chaos = true;
    for _ in 0..faults {
        let id = lab.rng.random_range(1..=voters);
        let other = lab.rng.random_range(1..=voters);
        match lab.rng.random_range(0..12) {
            0 => lab.isolate(id, true),
            1 => lab.cut(id, other, true),
            2 => (1..=voters).for_each(|o| lab.cut(id, o, true)),
            3 => (1..=voters).for_each(|o| lab.cut(o, id, true)),
            4 | 5 => (1..=voters).for_each(|o| lab.isolate(o, false)),
            6 => lab.kill(v(id)),
            7 => lab.boot(v(id)),
            8 => {
                let wedged = lab.rng.random_bool(0.5);
                lab.host(v(id)).wedged = wedged;
            }
            9 => {
                let up = lab.rng.random_bool(0.5);
                lab.host(v(id)).front_up = up;
            }
            10 => {
                let (now, order) = (lab.now, Order::Move { group: g(), to: v(other), force: false });
                let _refused = lab.host(v(id)).core.on_order(now, order);
            }
            _ => {
                let (now, on) = (lab.now, lab.rng.random_bool(0.3));
                let _refused = lab.host(v(id)).core.on_order(now, Order::Standby { node: v(other), on });
            }
        }
        let ms = lab.rng.random_range(1..120);
        lab.run_ms(ms);
        if !lab.overlaps.is_empty() {
            return lab.overlaps;
        }
    }
    if mutation.is_none() {
        lab.mend();
        let end = lab.now + 12_000 * MILLISECOND;
        while lab.now < end && !lab.all_served() {
            lab.all_online();
            lab.run_ms(500);
        }
        assert!(lab.all_served(), "seed {seed}: not served 12 s after the faults: {:#?}", lab.state());
    }
    lab.overlaps
}

#[test]
fn random_faults_never_make_two_servers() {
    for seed in 0..24 {
        assert_eq!(run(seed, None, 60), Vec::<String>::new(), "seed {seed}");
    }
}

/// The lab itself can fail: with a rule left out, two serve within a few seeds.
#[test]
fn missing_rules_are_found() {
    for name in ["skip_hold", "skip_conclusion_floor"] {
        let found = (0..60).any(|seed| !run(seed, Some(name), 60).is_empty());
        assert!(found, "{name}");
    }
}
