//! Uploads and downloads of 100 MiB that are on their way when the group moves arrive whole, every byte compared.

use anyhow::{Result, ensure};
use baton_lab::{
    gates,
    load::{
        bulk::{Spec, Transfer, USUAL_BYTES, Way},
        proxy,
        stage::at_vips,
    },
    lock::Exclusive,
    wait,
};

use super::{LIMIT, divert_to, drained, draining_on, with_haproxy};

/// Bytes a second of each transfer: it lasts for some ten seconds.
const PACE: u64 = 10 << 20;
/// Segments travel as one packet of up to 64 KiB where nothing on the way cuts them.
const PACKET_MAX: u64 = 64 << 10;

#[test]
fn transfers_on_their_way_arrive_whole() -> Result<()> {
    let _one = Exclusive::take()?;
    let mut stage = with_haproxy("transfers")?;
    let owner = stage.steady(LIMIT)?;
    let client = stage.client()?;
    let mut transfers = Vec::new();
    for target in at_vips(proxy::PORT) {
        for way in [Way::Upload, Way::Download] {
            transfers.push(Transfer::start(&client, Spec { target, way, bytes: USUAL_BYTES, pace: Some(PACE) })?);
        }
    }
    wait::until(LIMIT, "all transfers to be under way", || Ok(transfers.iter().all(|t| t.moved() > PACE / 4)))?;
    let before = gates::counters(&stage.lab, 1 - owner)?;
    divert_to(&stage, 1 - owner)?;
    for transfer in &transfers {
        ensure!(!transfer.is_over() && transfer.moved() < USUAL_BYTES / 2, "a transfer was over before the move");
    }
    ensure!(draining_on(&stage)? == Some(owner), "nothing drains, with four transfers under way");
    let moved: Vec<u64> = transfers.iter().map(Transfer::moved).collect();
    for transfer in transfers {
        let done = transfer.finish()?;
        eprintln!("{:.1} MiB/s", done.rate / f64::from(1 << 20));
    }
    // The rest of both uploads went through the new owner.
    let steered = gates::counters(&stage.lab, 1 - owner)?.steered - before.steered;
    let rest: u64 = [0, 2].iter().map(|n| USUAL_BYTES - moved[*n]).sum();
    ensure!(steered >= rest / PACKET_MAX, "only {steered} packets were steered for {rest} bytes");
    drained(&stage)?;
    ensure!(stage.steady(LIMIT)? == 1 - owner);
    stage.one_owner_at_a_time()
}
