//! The observers themselves: two owners that a test forces must be seen by each of them.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use baton::clock;
use baton_lab::{
    addresses::AddressRecorder,
    lock::Exclusive,
    overlap::{conflicts, overlap_ns},
    probe::Probe,
    responder::Responder,
    stall::StallMeter,
    topology::{Lab, Spec, VIP4, VIP6},
    wait,
    wire::WireObserver,
};

const LIMIT: Duration = Duration::from_secs(20);
const MILLISECOND: u64 = 1_000_000;

#[test]
fn two_nodes_that_are_forced_to_answer_are_seen() -> Result<()> {
    let _one = Exclusive::take()?;
    let lab = Lab::new(Spec { arbiter: false, ..Spec::usual("two-owners") })?;
    let recorder = AddressRecorder::start(&lab)?;
    let wire = WireObserver::start(&lab, &Lab::vips())?;
    let start = clock::now();
    let add = format!("address add {VIP4}/24 dev front0\naddress add {VIP6}/64 dev front0 nodad");

    lab.nodes[0].ns.ip(&add)?;
    for vip in Lab::vips() {
        wait::until(LIMIT, "the first node to answer", || Ok(wire.answering(vip, 50 * MILLISECOND) == [0]))?;
        ensure!(conflicts(&wire.tenures(vip, start, clock::now())).is_empty(), "one owner is no conflict");
    }
    lab.nodes[1].ns.ip(&add)?;
    for vip in Lab::vips() {
        wait::until(LIMIT, "both nodes to answer", || Ok(wire.answering(vip, 50 * MILLISECOND) == [0, 1]))?;
        wait::until(LIMIT, "an overlap on the wire", || {
            Ok(overlap_ns(&wire.tenures(vip, start, clock::now())) > 20 * MILLISECOND)
        })?;
        ensure!(!conflicts(&wire.tenures(vip, start, clock::now())).is_empty());
        ensure!(overlap_ns(&recorder.tenures(vip, clock::now())) > 20 * MILLISECOND, "two holders of {vip} unseen");
    }
    lab.nodes[0].ns.ip(&add.replace("add ", "del ").replace(" nodad", ""))?;
    for vip in Lab::vips() {
        wait::until(LIMIT, "the second node alone", || Ok(wire.answering(vip, 50 * MILLISECOND) == [1]))?;
    }
    Ok(())
}

#[test]
fn the_probe_counts_what_is_lost_and_tells_who_answers() -> Result<()> {
    let _one = Exclusive::take()?;
    let lab = Lab::new(Spec { arbiter: false, ..Spec::usual("probe") })?;
    let vip = IpAddr::V4(VIP4);
    let _responders = [Responder::start(&lab.nodes[0].ns, vip, 0)?, Responder::start(&lab.nodes[1].ns, vip, 1)?];
    let meter = StallMeter::start()?;
    lab.nodes[0].ns.ip(&format!("address add {VIP4}/24 dev front0"))?;
    let probe = Probe::start(&lab.client()?.ns, vip, MILLISECOND)?;
    wait::until(LIMIT, "the first node to serve", || Ok(probe.steady_owner(50 * MILLISECOND) == Some(0)))?;

    let cut = clock::now();
    lab.wires().cut_off("lb1", &["front"])?;
    wait::until(LIMIT, "lost probes", || Ok(probe.report(cut, clock::now()).lost > 50))?;
    lab.wires().heal()?;
    wait::until(LIMIT, "the first node to serve again", || Ok(probe.steady_owner(50 * MILLISECOND) == Some(0)))?;
    let report = probe.report(cut, clock::now());
    ensure!(report.lost > 50 && report.gap_ns > 40 * MILLISECOND, "the cut was not seen: {report:?}");
    ensure!(report.lost < report.sent && report.owners == [0], "the recovery was not seen: {report:?}");
    ensure!(meter.worst(cut, cut) <= meter.worst(0, clock::now()));
    Ok(())
}
