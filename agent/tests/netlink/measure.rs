//! Figures of the critical path, printed, never judged: `cargo test --release --test netlink measure -- --ignored --nocapture`.

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
        wire,
    },
    resources::{
        Context, Resource, Work,
        vip::{Vip, VipSpec},
    },
};

use crate::lab;

fn ip(v6: bool, i: u16) -> IpAddr {
    if v6 {
        [0x2001, 0xdb8, 0, 0, 0, 0, 0xff, i].into()
    } else {
        [198, 51, (i >> 8) as u8, i as u8].into()
    }
}

/// Median and largest of a number of runs.
fn sample(name: &str, runs: usize, mut work: impl FnMut() -> Duration) {
    let mut all: Vec<Duration> = (0..runs).map(|_| work()).collect();
    all.sort_unstable();
    println!(
        "{name}: median {:?}, p90 {:?}, max {:?}",
        all[runs / 2],
        all[runs * 9 / 10],
        all[runs - 1]
    );
}

#[test]
#[ignore = "prints figures; run it alone, in release"]
fn the_critical_path() {
    assert!(wire::ip(&[0; 3]).is_none());
    lab::run(|_| {
        let front = lab::link();
        let mut socket = RequestSocket::open().unwrap();
        let only = std::env::var("BATON_MEASURE").unwrap_or_default();
        for v6 in [false, true] {
            let family = if v6 { "IPv6" } else { "IPv4" };
            for (count, runs) in [(1u16, 400), (10, 200), (100, 50), (1_000, 15)] {
                if !only.is_empty() && only != format!("{family}-{count}") {
                    continue;
                }
                let ips: Vec<IpAddr> = (0..count).map(|i| ip(v6, i)).collect();
                let all = ips
                    .iter()
                    .map(|ip| Address::vip(*ip, if v6 { 128 } else { 32 }, "front", front.index));
                let mut set = AddressSet::new(all.collect()).unwrap();
                let announcer = Announcer::new(&front, &ips).unwrap();
                let mut deletes = Vec::new();
                sample(&format!("{family} add {count}"), runs, || {
                    let begin = Instant::now();
                    assert!(set.add(&mut socket).unwrap().failures.is_empty());
                    let took = begin.elapsed();
                    let begin = Instant::now();
                    assert!(set.delete(&mut socket).unwrap().failures.is_empty());
                    deletes.push(begin.elapsed());
                    took
                });
                let mut deletes = deletes.into_iter();
                sample(&format!("{family} delete {count}"), runs, || {
                    deletes.next().unwrap()
                });
                sample(&format!("{family} announce {count}"), runs, || {
                    let begin = Instant::now();
                    assert_eq!(announcer.send().sent, usize::from(count));
                    begin.elapsed()
                });
                let specs = ips.iter().map(|ip| VipSpec::host(*ip, "front")).collect();
                let mut vip = Vip::new("measured", specs).unwrap();
                let context = Context {
                    group: GroupId::new("web"),
                    epoch: 1,
                };
                sample(
                    &format!("{family} start (add and announce) {count}"),
                    runs,
                    || {
                        let begin = Instant::now();
                        assert!(matches!(vip.start(&context), Work::Done(Ok(()))));
                        let took = begin.elapsed();
                        assert!(matches!(vip.stop(&context), Work::Done(Ok(()))));
                        took
                    },
                );
            }
        }
    });
}
