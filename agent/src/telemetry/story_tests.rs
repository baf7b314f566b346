//! Stories as the core and the executor tell them.

use super::*;

const A: VoterId = VoterId(1);
const B: VoterId = VoterId(2);
const C: VoterId = VoterId(3);

fn web() -> GroupId {
    GroupId::new("web")
}

fn changed(epoch: Epoch, from: Option<VoterId>, to: Option<VoterId>, cause: Cause) -> Fact {
    Fact::OwnerChanged { group: web(), epoch, from, to, cause }
}

fn tell(story: &mut Story, at: Nanos, fact: Fact) {
    story.fact(at, &fact, |v| format!("v{v}"));
}

fn phases(draft: &Draft) -> Vec<(PhaseName, Nanos)> {
    draft.steps.iter().map(|s| (s.phase, s.at)).collect()
}

#[test]
fn a_takeover_is_one_record_from_the_last_beat_to_the_first_packet() {
    let mut s = Story::new(B);
    s.mark(100, &Mark::LastBeat { node: A });
    tell(&mut s, 200, Fact::Silent(A));
    tell(&mut s, 210, Fact::RoundBegan(A, Cause::Silent));
    tell(&mut s, 220, Fact::FloorRaised(A));
    tell(&mut s, 230, Fact::Promised(A, B));
    tell(&mut s, 240, Fact::Promised(A, C));
    tell(&mut s, 250, Fact::ConclusionProposed(A));
    // The gate may be stamped before the fact of the change is told.
    s.mark(301, &Mark::GateOpen { group: web(), epoch: 8 });
    tell(&mut s, 300, changed(8, Some(A), Some(B), Cause::Silent));
    tell(&mut s, 300, Fact::Concluded(A));
    s.mark(310, &Mark::AddressesAdded { group: web(), epoch: 8, count: 2 });
    s.mark(320, &Mark::Announced { group: web(), epoch: 8 });
    s.mark(330, &Mark::Started { group: web(), epoch: 8 });
    assert!(s.settle(400).is_empty(), "the first packet is still awaited");
    s.mark(340, &Mark::FirstPacket { group: web(), epoch: 8 });
    let told = s.settle(500);
    assert_eq!(told.len(), 1);
    let record = &told[0];
    assert_eq!((record.epoch, record.from, record.to, record.cause), (8, Some(A), Some(B), Cause::Silent));
    use PhaseName as P;
    let expected = [
        (P::LastBeat, 100),
        (P::Silent, 200),
        (P::Round, 210),
        (P::FloorRaised, 220),
        (P::Promised, 230),
        (P::Promised, 240),
        (P::Proposed, 250),
        (P::Committed, 300),
        (P::GateOpen, 301),
        (P::AddressAdded, 310),
        (P::Announced, 320),
        (P::Started, 330),
        (P::FirstPacket, 340),
    ];
    assert_eq!(phases(record), expected);
    assert!(s.settle(500 + ROUND_NS).is_empty(), "the round is no record of its own");
    assert!(!s.is_busy());
}

#[test]
fn a_release_and_its_assignment_are_one_record() {
    let mut s = Story::new(A);
    s.mark(90, &Mark::GateClosed { group: web(), epoch: 4 });
    tell(&mut s, 100, changed(4, Some(A), None, Cause::FrontDown));
    tell(&mut s, 150, changed(5, None, Some(B), Cause::FrontDown));
    assert!(s.settle(160).is_empty(), "its own stop is still awaited");
    s.mark(170, &Mark::Stopped { group: web(), epoch: 4 });
    let told = s.settle(180);
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].epoch, told[0].from, told[0].to), (5, Some(A), Some(B)));
    use PhaseName as P;
    assert_eq!(phases(&told[0]), [(P::GateClosed, 90), (P::Released, 100), (P::Committed, 150), (P::Stopped, 170)]);
}

/// The agent stops whatever an earlier one left, and says epoch 0: the first release after it is not its doing.
#[test]
fn the_clearing_at_the_start_is_no_part_of_the_first_failover() {
    let mut s = Story::new(A);
    s.mark(50, &Mark::Stopped { group: web(), epoch: 0 });
    s.mark(50, &Mark::GateClosed { group: web(), epoch: 0 });
    assert!(!s.is_busy());
    s.mark(240, &Mark::GateClosed { group: web(), epoch: 1 });
    tell(&mut s, 250, changed(1, Some(A), None, Cause::FrontDown));
    s.mark(255, &Mark::Stopped { group: web(), epoch: 1 });
    tell(&mut s, 260, changed(2, None, Some(B), Cause::FrontDown));
    let told = s.settle(270);
    assert_eq!(told.len(), 1);
    use PhaseName as P;
    assert_eq!(phases(&told[0]), [(P::GateClosed, 240), (P::Released, 250), (P::Stopped, 255), (P::Committed, 260)]);
}

/// A stop of the epoch before the one that was given up (rule 8: regained, so run anew) is another story's.
#[test]
fn the_stop_of_an_earlier_epoch_is_no_part_of_a_release() {
    let mut s = Story::new(A);
    s.mark(90, &Mark::Stopped { group: web(), epoch: 3 });
    tell(&mut s, 100, changed(4, Some(A), None, Cause::Shutdown));
    tell(&mut s, 150, changed(5, None, Some(B), Cause::Shutdown));
    s.mark(170, &Mark::Stopped { group: web(), epoch: 4 });
    let told = s.settle(180);
    use PhaseName as P;
    assert_eq!(phases(&told[0]), [(P::Released, 100), (P::Committed, 150), (P::Stopped, 170)]);
}

/// A group that was taken away without a new owner began a new epoch; its old owner stops the one before.
#[test]
fn the_old_owner_of_a_group_that_nobody_took_tells_of_its_stop() {
    let mut s = Story::new(A);
    tell(&mut s, 100, changed(4, Some(A), None, Cause::NoLease));
    s.mark(110, &Mark::GateClosed { group: web(), epoch: 3 });
    s.mark(120, &Mark::Stopped { group: web(), epoch: 3 });
    tell(&mut s, 200, changed(5, None, Some(B), Cause::NoLease));
    let told = s.settle(300);
    use PhaseName as P;
    let expected = [(P::Committed, 100), (P::GateClosed, 110), (P::Stopped, 120)];
    assert_eq!(phases(&told[0]), expected, "the commit is told once");
}

#[test]
fn a_group_that_nobody_can_take_is_recorded_too() {
    let mut s = Story::new(B);
    tell(&mut s, 100, Fact::RoundBegan(A, Cause::Wedged));
    tell(&mut s, 200, changed(4, Some(A), None, Cause::Wedged));
    assert!(s.settle(300).is_empty());
    let told = s.settle(200 + SETTLE_NS);
    assert_eq!((told.len(), told[0].to), (1, None));
}

#[test]
fn a_round_that_moves_nothing_is_told_and_a_silence_that_ended_is_not() {
    let mut s = Story::new(B);
    tell(&mut s, 100, Fact::Silent(A));
    tell(&mut s, 900, Fact::Silent(A));
    tell(&mut s, 910, Fact::RoundBegan(A, Cause::Silent));
    tell(&mut s, 950, Fact::Concluded(A));
    let told = s.settle(950 + ROUND_NS);
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].group.clone(), told[0].from), (None, Some(A)));
    assert_eq!(phases(&told[0]), [(PhaseName::Silent, 900), (PhaseName::Round, 910)]);

    tell(&mut s, 5_000, Fact::Silent(C));
    assert!(s.settle(5_000 + STALE_NS).is_empty());
    assert!(!s.is_busy());
}

#[test]
fn the_second_failover_does_not_inherit_the_first_ones_round() {
    let mut s = Story::new(C);
    tell(&mut s, 100, Fact::Silent(A));
    tell(&mut s, 110, Fact::RoundBegan(A, Cause::Silent));
    tell(&mut s, 120, changed(2, Some(A), Some(B), Cause::Silent));
    tell(&mut s, 120, Fact::Concluded(A));
    assert_eq!(s.settle(130).len(), 1, "an observer waits for nothing");
    tell(&mut s, 200, Fact::Silent(B));
    tell(&mut s, 220, changed(3, Some(B), Some(A), Cause::Silent));
    let told = s.settle(230);
    assert_eq!(phases(&told[0]), [(PhaseName::Silent, 200), (PhaseName::Committed, 220)]);
}

#[test]
fn a_flood_of_marks_and_changes_stays_within_bounds() {
    let mut s = Story::new(B);
    for epoch in 0..5_000 {
        s.mark(epoch, &Mark::GateOpen { group: web(), epoch: epoch + 100_000 });
        tell(&mut s, epoch, changed(epoch + 1, Some(A), Some(B), Cause::Order));
        s.mark(epoch, &Mark::ResourceStarted { group: web(), epoch: 5_000, resource: format!("r{epoch}") });
    }
    assert!(s.open.len() <= OPEN_MAX && s.early.len() <= EARLY_MAX);
    assert!(s.settle(SETTLE_NS * 2).iter().all(|d| d.steps.len() <= STEPS_MAX));
}
