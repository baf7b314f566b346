//! The usual load through HAProxy during twenty moves to and fro: no request fails, no connection breaks, no SYN is sent
//! twice.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use baton::clock;
use baton_lab::{
    load::{
        http::{self, Load},
        proxy,
        record::Kind,
        stage::at_vips,
    },
    lock::Exclusive,
    wait,
};

use super::{LIMIT, move_to, with_haproxy};

const MOVES: usize = 20;
/// New connections of so long a time are looked at.
const RECENT: u64 = 200_000_000;

fn to_and_fro(name: &str, target: SocketAddr) -> Result<()> {
    let _one = Exclusive::take()?;
    let mut stage = with_haproxy(name)?;
    let mut owner = stage.steady(LIMIT)?;
    let spec = http::Spec::usual(target);
    let from = clock::now();
    let load = Load::start(&stage.client()?, spec.clone())?;
    load.ready(&spec, LIMIT)?;
    for n in 1..=MOVES {
        let (ordered, to) = (clock::now(), 1 - owner);
        let said = move_to(&stage, to).with_context(|| match load.report(from, clock::now()) {
            Ok(report) => format!("move {n}; so far the clients saw: {report}"),
            Err(error) => format!("move {n}; {error}"),
        })?;
        // New connections, and those that HAProxy asked to open anew, are the new owner's alone.
        wait::until(LIMIT, "all requests to be answered by the new owner", || {
            let now = clock::now();
            std::thread::sleep(Duration::from_millis(50));
            let recent = load.report((now - RECENT).max(ordered), now)?;
            let alone = BTreeSet::from([to]);
            Ok(recent.nodes(Kind::Fresh) == alone && recent.nodes(Kind::Kept) == alone)
        })
        .with_context(|| format!("move {n}: {said}"))?;
        let seen = load.report(ordered, clock::now())?;
        eprintln!("move {n}: {}; {seen}", said.trim_end().replace('\n', "; "));
        seen.nothing_lost().with_context(|| format!("move {n}: {said}"))?;
        owner = to;
    }
    let report = load.finish(from)?;
    eprintln!("{MOVES} moves: {report}");
    report.nothing_lost()?;
    // Every connection was handed over at every move, in order, and asked for it.
    ensure!(report.reopened > 0, "HAProxy never asked anybody to open anew: {report}");
    stage.one_owner_at_a_time()
}

#[test]
fn twenty_moves_under_load_over_ipv4() -> Result<()> {
    to_and_fro("moves4", at_vips(proxy::PORT)[0])
}

#[test]
fn twenty_moves_under_load_over_ipv6() -> Result<()> {
    to_and_fro("moves6", at_vips(proxy::PORT)[1])
}
