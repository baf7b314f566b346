//! The warnings: each comes when it is true, and none when all is well.

use super::*;

fn voter(id: u8, role: Role) -> VoterStatus {
    VoterStatus {
        id: VoterId(id),
        name: format!("v{id}"),
        role,
        me: id == 1,
        life: Life::Alive,
        last_seen_ns: Some(1_000_000),
        incarnation: 1,
        holds_lease: Some(role == Role::Node),
        standby: false,
        maintenance: false,
        same_configuration: Some(true),
        front_up: Some(true),
        links: vec![LinkStatus { up: true, ..LinkStatus::default() }; 2],
    }
}

/// Two nodes and an arbiter, all well.
fn healthy() -> StatusReport {
    StatusReport {
        cluster: "lb".into(),
        node: "v1".into(),
        id: VoterId(1),
        role: Role::Node,
        version: String::new(),
        incarnation: 1,
        uptime_ns: 0,
        interval_ns: 10_000_000,
        lease_ns: 50_000_000,
        quorum: true,
        leader: Some("v2".into()),
        term: 1,
        applied: 1,
        gate_index: 1,
        lease: LeaseStatus { held: true, remaining_ns: 1, enforced: true, lapsed: 0 },
        voters: vec![voter(1, Role::Node), voter(2, Role::Node), voter(3, Role::Arbiter)],
        groups: vec![GroupStatus {
            name: "web".into(),
            owner: Some("v1".into()),
            epoch: 1,
            cause: None,
            moving_to: None,
            draining_on: None,
            last_move: None,
            serving_here: true,
            why: "it waits".into(),
            stopped: false,
            maintenance: false,
            unmanaged: Vec::new(),
            runs: Vec::new(),
            vips: vec![VipStatus { address: "192.0.2.10/24".into(), device: "eth0".into(), present: true }],
            candidates: vec!["v2".into()],
            against: std::collections::BTreeMap::new(),
        }],
        maintenance: false,
        fronts: vec![FrontStatus { device: "eth0".into(), up: true, gate: "tcx".into() }],
        warnings: Vec::new(),
    }
}

fn warnings(change: impl FnOnce(&mut StatusReport)) -> Vec<String> {
    let mut report = healthy();
    change(&mut report);
    report.find_warnings();
    report.warnings
}

#[test]
fn a_healthy_cluster_has_no_warning() {
    assert_eq!(warnings(|_| ()), [""; 0]);
}

#[test]
fn each_trouble_is_named() {
    type Change = fn(&mut StatusReport);
    let cases: [(Change, &str); 16] = [
        (|r| r.voters[2].life = Life::Silent, "one failure from an outage: 2 of 3 voters are alive"),
        (|r| r.voters[2].life = Life::Silent, "v3 is silent"),
        (|r| r.voters[1].life = Life::Wedged, "the agent on v2 makes no progress"),
        (
            |r| r.voters.iter_mut().skip(1).for_each(|v| v.life = Life::NeverSeen),
            "no quorum: 1 of 3 voters are alive and 2 are needed",
        ),
        (|r| r.quorum = false, "no leader is known"),
        (|r| r.voters.push(voter(4, Role::Arbiter)), "an even number of voters (4) survives no more deaths than 3"),
        (|r| r.lease.enforced = false, "the lease is not enforced in the kernel"),
        (|r| r.lease.held = false, "this node holds no lease"),
        (|r| r.lease.lapsed = 2, "the lease lapsed 2 times"),
        (|r| r.voters[1].same_configuration = Some(false), "the configuration of v2 differs"),
        (|r| r.voters[1].front_up = Some(false), "a front link of v2 is down"),
        (|r| r.voters[1].links[0].up = false, "1 of 2 backplane links to v2 are down"),
        (|r| r.voters[1].standby = true, "v2 is on standby; `baton online v2` ends it"),
        (|r| r.groups[0].candidates.clear(), "one failure from an outage: no node could take web over from v1"),
        (|r| r.groups[0].owner = None, "web has no owner: it waits"),
        (|r| r.groups[0].vips[0].present = false, "192.0.2.10/24 does not stand on eth0"),
    ];
    for (change, words) in cases {
        let found = warnings(change);
        assert!(found.iter().any(|w| w.contains(words)), "no \"{words}\" in {found:?}");
    }
    assert!(warnings(|r| r.fronts[0].up = false).contains(&"the front link eth0 is down".to_owned()));
    assert!(
        warnings(|r| r.groups[0].serving_here = false)
            .contains(&"web is owned here, but not served: it waits".to_owned())
    );
}

#[test]
fn an_arbiter_needs_no_lease() {
    let change = |r: &mut StatusReport| {
        r.role = Role::Arbiter;
        r.lease = LeaseStatus::default();
        r.node = "v3".into();
        r.groups[0].serving_here = false;
    };
    assert_eq!(warnings(change), [""; 0]);
}

#[test]
fn asking_twice_adds_nothing() {
    let mut report = healthy();
    report.lease.lapsed = 1;
    report.find_warnings();
    report.find_warnings();
    assert_eq!(report.warnings.len(), 1);
}
