//! Figures of the critical path, printed, never judged. `BATON_MEASURE=IPv6-1000` chooses one row.
//!
//! `cargo test --release --test netlink measure -- --ignored --nocapture`

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use baton::{
    cluster::ids::GroupId,
    netlink::{
        RequestSocket,
        address::{Address, AddressSet},
        announce::Announcer,
    },
    resources::{
        Context, Operation, Resource,
        vip::{Vip, VipSpec},
    },
};

use crate::lab;

fn ip(v6: bool, i: u16) -> IpAddr {
    if v6 { [0x2001, 0xdb8, 0, 0, 0, 0, 0xff, i].into() } else { [198, 51, (i >> 8) as u8, i as u8].into() }
}

fn show(name: &str, mut all: Vec<Duration>) {
    all.sort_unstable();
    let at = |percent: usize| all[all.len() * percent / 100];
    println!("{name}: median {:?}, p90 {:?}, max {:?}", at(50), at(90), all[all.len() - 1]);
}

#[test]
#[ignore = "prints figures; run it alone, in release"]
fn the_critical_path() {
    lab::run(|_| {
        let only = std::env::var("BATON_MEASURE").unwrap_or_default();
        for (family, v6) in [("IPv4", false), ("IPv6", true)] {
            for (count, runs) in [(1, 400), (10, 200), (100, 50), (1_000, 15)] {
                let row = format!("{family}-{count}");
                if only.is_empty() || only == row {
                    sets(&row, (0..count).map(|i| ip(v6, i)).collect(), runs);
                    resource(&row, (0..count).map(|i| ip(v6, i)).collect(), runs);
                }
            }
        }
    });
}

/// The parts: addresses in one call, announcements in one call.
fn sets(row: &str, ips: Vec<IpAddr>, runs: usize) {
    let front = lab::link();
    let mut socket = RequestSocket::open().unwrap();
    let prefix = |ip: &IpAddr| if ip.is_ipv4() { 32 } else { 128 };
    let all = ips.iter().map(|ip| Address::vip(*ip, prefix(ip), "front", front.index)).collect();
    let mut set = AddressSet::new(all).unwrap();
    let announcer = Announcer::new(&front, &ips).unwrap();
    let (mut adds, mut deletes, mut announcements) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let begin = Instant::now();
        assert!(set.add(&mut socket).unwrap().failures.is_empty());
        adds.push(begin.elapsed());
        let begin = Instant::now();
        assert_eq!(announcer.send().sent, ips.len());
        announcements.push(begin.elapsed());
        let begin = Instant::now();
        assert!(set.delete(&mut socket).unwrap().failures.is_empty());
        deletes.push(begin.elapsed());
    }
    show(&format!("{row} add in one call"), adds);
    show(&format!("{row} announce"), announcements);
    show(&format!("{row} delete in one call"), deletes);
}

/// The whole: the resource's start until packets are accepted and announced, and until every address is there.
fn resource(row: &str, ips: Vec<IpAddr>, runs: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let begin = Instant::now();
    let mut vip = Vip::new("measured", ips.iter().map(|ip| VipSpec::host(*ip, "front")).collect()).unwrap();
    println!("{row} prepare: {:?}", begin.elapsed());
    let context = Context { group: GroupId::new("web"), epoch: 1 };
    let (mut served, mut complete, mut stopped) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let begin = Instant::now();
        let work = vip.start(&context);
        served.push(begin.elapsed());
        runtime.block_on(work.within(lab::PATIENCE, "measured", Operation::Start)).unwrap();
        complete.push(begin.elapsed());
        let begin = Instant::now();
        let work = vip.stop(&context);
        runtime.block_on(work.within(lab::PATIENCE, "measured", Operation::Stop)).unwrap();
        stopped.push(begin.elapsed());
    }
    show(&format!("{row} start: accepted and announced"), served);
    show(&format!("{row} start: every address there"), complete);
    show(&format!("{row} stop"), stopped);
}
